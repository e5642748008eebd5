"""Command that decides claims by training listed runs: ``hpsearch reproduce``."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.atomic_files import check_target_folder
from hpsearch.cli.app import Home, app
from hpsearch.console.output import print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError

LISTS = Path("search_spaces/reports")
"""Folder of the lists that come with the project."""


@app.command(rich_help_panel="Search")
def reproduce(
    claims: Annotated[
        list[str] | None,
        typer.Argument(help="Claims to train for (default: all runs of the lists)."),
    ] = None,
    lists: Annotated[
        list[Path] | None,
        typer.Option(
            "--list",
            help="File with runs and claims; repeatable (default: all of search_spaces/reports).",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="Store of a patch set that the lists name."),
    ] = None,
    results: Annotated[
        Path, typer.Option(help="Folder of the table of runs and of claims.md.")
    ] = Path("docs/results"),
    until: Annotated[str | None, typer.Option(help="No run begins after this time, HH:MM.")] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Print the runs that are missing, and train nothing.")
    ] = False,
    no_training: Annotated[
        bool, typer.Option("--no-training", help="Decide from the rows that are there.")
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Train the runs that claims need and that the table lacks, and write claims.md.

    Runs one after the other, on one thread of the CPU; Ctrl-C stops it, and the same command
    continues. While a file `pause` is in HOME/reproduce, training waits at its next report.

    Example: hpsearch reproduce R1-hard-matching --data photographs=photographs.arrow
    """  # fmt: skip
    from hpsearch.workflows.reproduce import CLAIMS, Reproduction, missing_runs
    from hpsearch.workflows.reproduce import reproduce as decide_claims

    settings = Reproduction(
        lists=tuple(lists or _default_lists()),
        data=dict(_name_and_path(word) for word in data or ()),
        claims=tuple(claims or ()),
        results=results,
        folder=home / "reproduce",
        until=until,
        train=not no_training,
    )
    if missing:
        for run in missing_runs(settings):
            print_plain(f"{run.block}: {run.name}, seed {run.config.seed}")
        return
    if settings.train:
        check_target_folder(home, "--home")
    check_target_folder(results, "--results")
    decisions = decide_claims(settings, log=print_plain)
    for found in decisions:
        if not settings.claims or found.claim.name in settings.claims:
            print_plain(f"{found.claim.name}: {found.verdict}")
    print_plain(f"wrote {results / CLAIMS}")


def _default_lists() -> list[Path]:
    found = sorted(LISTS.glob("*.py"))
    if not found:
        raise UserError(
            f"there are no lists of runs in {LISTS}; run the command in a checkout of the project, "
            "or give --list FILE"
        )
    return found


def _name_and_path(word: str) -> tuple[str, str]:
    name, _, path = word.partition("=")
    if not (name and path):
        raise UserError(f"--data takes NAME=PATH, got {word!r}")
    return name, path
