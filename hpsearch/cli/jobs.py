"""``hpsearch submit``, ``status``, ``logs``, ``stop``, ``list``: searches on a Ray cluster."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from hpsearch.cli.app import app, out
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.running.jobs import SearchJob

PANEL = "Cluster"
DASHBOARD = typer.Option(
    envvar=["HPSEARCH_ADDRESS", "RAY_API_SERVER_ADDRESS"],
    help="The dashboard of a Ray head: http://HEAD:8265.",
)
Address = Annotated[str, DASHBOARD]
MaybeAddress = Annotated[str | None, DASHBOARD]
Name = Annotated[str, typer.Argument(help="Name of a search.")]
ClusterHome = Annotated[
    str, typer.Option(help="Home folder on the cluster; better on a disk that all nodes see.")
]
CLUSTER_HOME = "~/hpsearch"


@app.command(
    rich_help_panel=PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def submit(
    context: typer.Context,
    space: Annotated[Path, typer.Argument(help="A Python file that exports SEARCH.")],
    address: Address,
    name: Annotated[str | None, typer.Option(help="The file's, if unset.")] = None,
    home: ClusterHome = CLUSTER_HOME,
) -> None:
    """Queue a search on a Ray cluster; other options are those of ``hpsearch search``.

    Example: hpsearch submit search_spaces/full.py --address http://HEAD:8265 --trials 200
    """
    from hpsearch.running.jobs import JobServer
    from hpsearch.search.search import load_search

    load_search(space).rehearse()
    chosen = name or space.stem
    arguments = ["search", space.name, "--name", chosen, "--address", "auto", *_tracking()]
    server = JobServer(address)
    server.submit(chosen, [*arguments, *context.args], home=home, space=space)
    _say_submitted(chosen, address)


def submit_resume(name: str, address: str, home: str | None, options: list[str]) -> None:
    """Queue the resumption of a search, in ``home`` if this cluster has not seen it yet."""
    from hpsearch.running.jobs import JobServer

    server = JobServer(address)
    known = {job.search: job.home for job in server.jobs()}
    if name not in known and home is None:
        raise UserError(
            f"{address} has not seen search {name!r}; say with --home where its folder lies there"
        )
    server.submit(name, ["resume", name, *options], home=known.get(name) or home or "")
    _say_submitted(name, address)


@app.command(rich_help_panel=PANEL)
def status(name: Name, address: Address) -> None:
    """How far a search on a cluster is, and why it failed if it did.

    Example: hpsearch status full --address http://HEAD:8265
    """
    from hpsearch.running.jobs import JobServer

    server = JobServer(address)
    job = server.job(name)
    _raw(f"{name}: {job.state}{_duration(job)}")
    line = server.progress(job)
    if line:
        _raw(f"  {line}")
    if job.state == "stopped":
        _raw(f"  go on with:  hpsearch resume {name} --address {address}")


@app.command(rich_help_panel=PANEL)
def logs(
    name: Name,
    address: Address,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
) -> None:
    """What a search on a cluster prints.

    Example: hpsearch logs full -f --address http://HEAD:8265
    """
    from hpsearch.running.jobs import JobServer

    server = JobServer(address)
    job = server.job(name)
    for piece in server.follow(job) if follow else [server.logs(job)]:
        out.print(piece, end="", markup=False, soft_wrap=True)


@app.command(rich_help_panel=PANEL)
def stop(name: Name, address: Address) -> None:
    """Stop a search on a cluster; its trials are saved, and it can be resumed.

    Example: hpsearch stop full --address http://HEAD:8265
    """
    from hpsearch.running.jobs import STOP_WAIT, JobServer

    server = JobServer(address)
    job = server.job(name)
    if job.over:
        raise UserError(f"search {name!r} is not running; it has {job.state}")
    server.stop(job)
    deadline = time.monotonic() + STOP_WAIT
    while not job.over and time.monotonic() < deadline:
        time.sleep(1)
        job = server.job(name)
    _raw(f"{name}: {job.state}{_duration(job)}")
    _raw(f"  go on with:  hpsearch resume {name} --address {address}")


@app.command("list", rich_help_panel=PANEL)
def list_(address: Address) -> None:
    """The searches of a cluster.

    Example: hpsearch list --address http://HEAD:8265
    """
    from hpsearch.running.jobs import JobServer

    jobs = JobServer(address).jobs()
    if not jobs:
        _raw(f"no search has been submitted to {address}")
    for job in {job.search: job for job in jobs}.values():
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.began)) if job.began else ""
        _raw(f"{job.search:<24} {job.state:<10} {began:<17} {_duration(job).strip()}")


def _tracking() -> list[str]:
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return []
    if urlsplit(uri).password:
        raise UserError(
            "MLFLOW_TRACKING_URI holds a password, and jobs can be read by everybody who reaches "
            "the dashboard; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the head"
        )
    return ["--tracking-uri", uri]


def _say_submitted(name: str, address: str) -> None:
    _raw(f"submitted search {name} to {address}")
    for verb, why in (
        (f"status {name}", "how far it is"),
        (f"logs {name} -f", "what it prints"),
        (f"stop {name}", "save its trials and stop"),
    ):
        _raw(f"  {f'hpsearch {verb} --address {address}':<64}  {why}")


def _duration(job: "SearchJob") -> str:
    if job.began is None:
        return ""
    minutes, seconds = divmod(round((job.ended or time.time()) - job.began), 60)
    return f" for {minutes} min {seconds} s"


def _raw(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)
