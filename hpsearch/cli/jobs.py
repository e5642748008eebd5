"""Commands for searches here, on a Ray cluster or in Slurm: status, logs, stop, list."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import Home, app
from hpsearch.cli.completion import complete_searches
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import CLUSTER_HOME, DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.locations import home_address, remote_address
from hpsearch.untrusted import command_line

if TYPE_CHECKING:
    from hpsearch.execution.job_client import JobClient, SearchJob
    from hpsearch.execution.slurm import SlurmClient
    from hpsearch.search.search_context import SearchContext

CLUSTER_PANEL, RUNNING_PANEL = "Cluster", "Running"
ADDRESS_VARIABLES = ["HPSEARCH_ADDRESS", "RAY_API_SERVER_ADDRESS"]
Address = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS_VARIABLES,
        is_eager=True,
        help="The dashboard of a Ray head: http://HEAD:8265.",
    ),
]
OptionalAddress = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS_VARIABLES,
        is_eager=True,
        help="The dashboard of a Ray head, http://HEAD:8265, for its searches (default: those of "
        "the home folder).",
    ),
]
Slurm = Annotated[
    bool,
    typer.Option(
        "--slurm", is_eager=True, help="The search is a Slurm job; run this on the login node."
    ),
]
Name = Annotated[str, typer.Argument(help="Name of a search.", autocompletion=complete_searches)]
STOP_LOCAL_TIMEOUT_S = 60.0
"""Seconds that a search on this file system has to save its trials and end."""


def require_address(address: str | None) -> str:
    """Address of a cluster, which a command needs.

    Raises:
        UserError: if none is given.
    """
    if address is None:
        raise UserError(
            "no cluster is named; give the dashboard of a Ray head with --address, or --slurm",
            code="no-cluster",
        )
    return address


def slurm_home(home: Path) -> Path:
    """Home folder of searches in Slurm: the one that is given, else ``~/hpsearch``."""
    return Path(CLUSTER_HOME).expanduser() if home == DEFAULT_HOME else home


def _server(
    address: str | None, slurm: bool, home: Path
) -> tuple["JobClient | SlurmClient", tuple[str, ...]]:
    """Client of a cluster, and the options that name it on the command line."""
    if slurm:
        from hpsearch.execution.slurm import SlurmClient, slurm_words

        client = SlurmClient(CLUSTER_HOME if home == DEFAULT_HOME else home)
        return client, slurm_words(client.address)
    from hpsearch.execution.job_client import JobClient

    address = require_address(address)
    return JobClient(address), ("--address", address)


@app.command(rich_help_panel=RUNNING_PANEL)
def status(
    name: Name, address: OptionalAddress = None, slurm: Slurm = False, home: Home = DEFAULT_HOME
) -> None:
    """Print progress of a search, here or on a cluster, and the reason if it failed.

    Example: hpsearch status quickstart
    """
    if address is None and not slurm:
        from hpsearch.search.workspace import Workspace

        return print_local_status(Workspace(home).open(name))

    server, options = _server(address, slurm, home)
    job = server.job(name)
    print_plain(f"{name}: {job.state}{_format_duration(job)}")
    line = server.progress(job)
    if line:
        print_plain(f"  {line}")
    if job.state == "stopped":
        print_plain(f"  resume with:  {_resume_line(name, options)}")


def print_local_status(context: "SearchContext") -> None:
    """Print the state of a search on this file system."""
    from hpsearch.reporting.text_tables import format_duration
    from hpsearch.search.workspace import resume_command
    from hpsearch.workflows.steer_search import search_status

    found = search_status(context)
    left = (
        "" if found.seconds_left is None else f", about {format_duration(found.seconds_left)} left"
    )
    counts = ", ".join(f"{number} {status}" for status, number in found.by_status.items())
    print_plain(f"{context.name}: {found.state}{left}")
    print_plain(f"  {found.ended} of {found.trials} trials ended{f' ({counts})' if counts else ''}")
    if found.best is not None:
        value = found.best.reports[-1]["objective"]
        print_plain(f"  best last {context.objective.metric} {value:.4f}, trial {found.best.label}")
    if found.state == "interrupted" or found.state == "new":
        print_plain(f"  resume with:  {resume_command(context)}")


@app.command(rich_help_panel=CLUSTER_PANEL)
def logs(
    name: Name,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the search ends.")
    ] = False,
    slurm: Slurm = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Print the log of a search on a cluster.

    Example: hpsearch logs full -f --address http://HEAD:8265
    """
    server, _ = _server(address, slurm, home)
    job = server.job(name)
    for piece in server.follow(job) if follow else [server.logs(job)]:
        out.print(piece, end="", markup=False, soft_wrap=True)


@app.command(rich_help_panel=RUNNING_PANEL)
def stop(
    name: Name,
    trial: Annotated[
        str | None,
        typer.Option(
            is_eager=True, help="Stop this trial alone, at its next report; it counts as pruned."
        ),
    ] = None,
    address: OptionalAddress = None,
    slurm: Slurm = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Stop a search, here or on a cluster, or one trial; trials are saved, and it can be resumed.

    Example: hpsearch stop quickstart --trial 012
    """
    if address is not None and trial is not None:
        raise UserError(
            "--trial needs the folder of the search; run the command where --home reaches it, "
            "without --address",
            code="trial-on-cluster",
        )
    if address is None and (not slurm or trial is not None):
        return _stop_local(name, trial, home)
    _stop_job(name, *_server(address, slurm, home))


def _stop_local(name: str, trial: str | None, home: Path) -> None:
    from hpsearch.search.workspace import Workspace, resume_command
    from hpsearch.workflows.steer_search import search_status, stop_search, stop_trial

    context = Workspace(home).open(name)
    if trial is not None:
        run = stop_trial(context, trial)
        when = "stops at its next report"
        if search_status(context).state != "running":
            when = "stops when the search is resumed"
        elif run.status == "paused":
            when = "is paused, and ends now"
        print_plain(f"{name}: trial {run.label} {when}")
    elif stop_search(context, timeout=STOP_LOCAL_TIMEOUT_S):
        if search_status(context).state == "completed":
            print_plain(f"{name}: completed before it could be stopped")
        else:
            print_plain(f"{name}: stopped\n  resume with:  {resume_command(context)}")
    else:
        raise UserError(
            f"search {name!r} still runs {STOP_LOCAL_TIMEOUT_S:.0f} s after the request to stop; "
            f"look at `{context.command('status')}`, or press Ctrl-C where it runs",
            code="search-not-stopped",
        )


def _stop_job(name: str, server: "JobClient | SlurmClient", options: tuple[str, ...]) -> None:
    """Stop the job of a search on a cluster."""
    from hpsearch.execution.job_client import STOP_TIMEOUT_S

    job = server.job(name)
    if job.is_finished:
        raise UserError(f"search {name!r} is not running; its state is {job.state}")
    server.stop(job)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not job.is_finished and time.monotonic() < deadline:
        time.sleep(1)
        job = server.job(name)
    print_plain(f"{name}: {job.state}{_format_duration(job)}")
    if not job.is_finished:
        raise UserError(
            f"search {name!r} still runs {STOP_TIMEOUT_S} s after the request to stop; check "
            f"`{command_line('logs', name, *options)}`, and stop it again"
        )
    if job.state != "completed":
        print_plain(f"  resume with:  {_resume_line(name, options)}")


@app.command("list", rich_help_panel=RUNNING_PANEL)
def list_(address: OptionalAddress = None, slurm: Slurm = False, home: Home = DEFAULT_HOME) -> None:
    """List the searches of the home folder, or those of a cluster.

    Example: hpsearch list
    """
    if address is None and not slurm:
        return _list_local(home)

    jobs = _server(address, slurm, home)[0].jobs()
    if not jobs:
        where = f"Slurm from {remote_address(home) or home}" if slurm else address
        print_plain(f"no search was submitted to {where}")
    for job in {job.search: job for job in jobs}.values():
        _print_row(job.search, job.state, job.started_at, _format_duration(job).strip())


def _list_local(home: Path) -> None:
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.steer_search import search_status

    workspace = Workspace(home)
    names = workspace.searches()
    if not names:
        print_plain(
            f"there is no search in {home_address(home)}; start one with `hpsearch search SPACE`"
        )
    for name in names:
        try:
            context = workspace.open(name)
            found = search_status(context)
        except UserError as error:
            print_plain(f"{name:<24} damaged    {error}")
            continue
        best = ""
        if found.best is not None:
            value = found.best.reports[-1]["objective"]
            best = f", best last {context.objective.metric} {value:.4f}"
        progress = f"{found.ended} of {found.trials} trials{best}"
        _print_row(name, found.state, found.started, progress)


def _print_row(name: str, state: str, started: float | None, more: str) -> None:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if started else ""
    print_plain(f"{name:<24} {state:<11} {began:<17} {more}")


def _resume_line(name: str, options: tuple[str, ...]) -> str:
    return command_line("resume", name, *options)


def _format_duration(job: "SearchJob") -> str:
    passed = job.duration
    if passed is None:
        return ""
    minutes, seconds = divmod(round(passed), 60)
    hours, minutes = divmod(minutes, 60)
    return f" for {hours} h {minutes} min" if hours else f" for {minutes} min {seconds} s"
