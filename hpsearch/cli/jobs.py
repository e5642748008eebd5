"""Commands for searches here and on a Ray cluster: submit, status, logs, stop, list."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.old_words import rewrite_old_words
from hpsearch.cli.options import drop_none, to_cli_args
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.untrusted import command_line

if TYPE_CHECKING:
    from hpsearch.execution.job_client import SearchJob
    from hpsearch.search.resources import Resources
    from hpsearch.search.search import Search
    from hpsearch.search.search_context import SearchContext

CLUSTER_PANEL, RUNNING_PANEL = "Cluster", "Running"
ADDRESS_VARIABLES = ["HPSEARCH_ADDRESS", "RAY_API_SERVER_ADDRESS"]
Address = Annotated[
    str,
    typer.Option(envvar=ADDRESS_VARIABLES, help="The dashboard of a Ray head: http://HEAD:8265."),
]
OptionalAddress = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS_VARIABLES,
        help="The dashboard of a Ray head, http://HEAD:8265, for its searches (default: those of "
        "the home folder).",
    ),
]
Name = Annotated[str, typer.Argument(help="Name of a search.")]
STOP_LOCAL_TIMEOUT_S = 60.0
"""Seconds that a search on this file system has to save its trials and end."""
ClusterHome = Annotated[
    str, typer.Option(help="Home folder on the cluster; better on a disk that all nodes see.")
]
CLUSTER_HOME = "~/hpsearch"


@app.command(
    rich_help_panel=CLUSTER_PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def submit(
    context: typer.Context,
    space: Annotated[Path, typer.Argument(help="A Python file that exports SEARCH.")],
    address: Address,
    name: Annotated[
        str | None, typer.Option(help="Name of the search (default: that of the file).")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: ClusterHome = CLUSTER_HOME,
) -> None:
    """Queue a search on a Ray cluster; other options are those of hpsearch search.

    Example: hpsearch submit search_spaces/full.py --address http://HEAD:8265 --trials 200
    """
    from hpsearch.search.overrides import parse_overrides, with_overrides
    from hpsearch.search.space_file import imported_modules, load_search
    from hpsearch.untrusted import check_name, name_from

    stated, modules = load_search(space), imported_modules()
    chosen = check_name(name_from(space.stem) if name is None else name, "a search")
    options = [*to_cli_args(tracking_uri=tracking_uri), *context.args]
    arguments = ["search", space.name, "--name", chosen, "--address", "auto", *options]
    asked = _check_search_arguments(context, arguments)
    stated = with_overrides(stated, parse_overrides(asked["overrides"] or []))
    stated.validate_space()

    from hpsearch.execution.job_checks import check_data
    from hpsearch.execution.job_client import JobClient

    check_data(asked["data"] or stated.data)
    server = JobClient(address)
    server.check_versions()
    if not asked["wait_for_nodes"]:
        server.check_capacity(_requested_resources(stated, asked), asked["max_concurrent_trials"])
    server.submit(chosen, arguments, home=home, space=space, modules=modules)
    _print_submitted(chosen, address)


def _check_search_arguments(context: typer.Context, arguments: list[str]) -> dict[str, Any]:
    """Check the arguments of ``hpsearch search`` before the job is submitted."""
    commands: Any = context.find_root().command
    parsed = commands.get_command(context, "search").make_context(
        "search", rewrite_old_words("search", arguments[1:]), parent=context.parent
    )
    return parsed.params


def _requested_resources(stated: "Search", asked: dict[str, Any]) -> "Resources":
    from hpsearch.search.resources import Resources

    wanted = drop_none(
        cpus=asked["cpus_per_trial"], gpus=asked["gpus_per_trial"],
        tpus=asked["tpus_per_trial"], device=asked["device"],
    )  # fmt: skip
    found = Resources.model_validate({**stated.resources.model_dump(), **wanted})
    return found.with_default_device(stated.compute.device)


def submit_resume(name: str, address: str, home: str | None, options: list[str]) -> None:
    """Queue the resumption of a search, in ``home`` if the search is new to this cluster."""
    from hpsearch.execution.job_client import JobClient
    from hpsearch.untrusted import check_name

    check_name(name, "a search")
    server = JobClient(address)
    known = {job.search: job.home for job in server.jobs()}
    if name not in known and home is None:
        raise UserError(
            f"{address} has no search {name!r}; give the home of its folder there with --home"
        )
    server.check_versions()
    # wherever it started, it resumes on the cluster that it is submitted to
    arguments = ["resume", name, "--address", "auto", *options]
    server.submit(name, arguments, home=known.get(name) or home or "")
    _print_submitted(name, address)


@app.command(rich_help_panel=RUNNING_PANEL)
def status(name: Name, address: OptionalAddress = None, home: Home = DEFAULT_HOME) -> None:
    """Print progress of a search, here or on a cluster, and the reason if it failed.

    Example: hpsearch status quickstart
    """
    if address is None:
        from hpsearch.search.workspace import Workspace

        return print_local_status(Workspace(home).open(name))

    from hpsearch.execution.job_client import JobClient

    server = JobClient(address)
    job = server.job(name)
    print_plain(f"{name}: {job.state}{_format_duration(job)}")
    line = server.progress(job)
    if line:
        print_plain(f"  {line}")
    if job.state == "stopped":
        print_plain(f"  resume with:  {command_line('resume', name, '--address', address)}")


def print_local_status(context: "SearchContext") -> None:
    """Print the state of a search on this file system."""
    from hpsearch.reporting.text_tables import format_duration
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
        print_plain(f"  best {context.objective.metric} {value:.4f}, trial {found.best.label}")
    if found.state == "interrupted" or found.state == "new":
        print_plain(f"  resume with:  {context.command('resume')}")


@app.command(rich_help_panel=CLUSTER_PANEL)
def logs(
    name: Name,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the search ends.")
    ] = False,
) -> None:
    """Print the log of a search on a cluster.

    Example: hpsearch logs full -f --address http://HEAD:8265
    """
    from hpsearch.execution.job_client import JobClient

    server = JobClient(address)
    job = server.job(name)
    for piece in server.follow(job) if follow else [server.logs(job)]:
        out.print(piece, end="", markup=False, soft_wrap=True)


@app.command(rich_help_panel=RUNNING_PANEL)
def stop(
    name: Name,
    trial: Annotated[
        str | None,
        typer.Option(help="Stop this trial alone, at its next report; it counts as pruned."),
    ] = None,
    address: OptionalAddress = None,
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
    if address is None:
        return _stop_local(name, trial, home)
    _stop_job(name, address)


def _stop_local(name: str, trial: str | None, home: Path) -> None:
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.steer_search import stop_search, stop_trial

    context = Workspace(home).open(name)
    if trial is not None:
        run = stop_trial(context, trial)
        print_plain(f"{name}: trial {run.label} stops at its next report")
    elif stop_search(context, timeout=STOP_LOCAL_TIMEOUT_S):
        print_plain(f"{name}: stopped\n  resume with:  {context.command('resume')}")
    else:
        raise UserError(
            f"search {name!r} still runs {STOP_LOCAL_TIMEOUT_S:.0f} s after the request to stop; "
            f"look at `{context.command('status')}`, or press Ctrl-C where it runs",
            code="search-not-stopped",
        )


def _stop_job(name: str, address: str) -> None:
    """Stop the job of a search on a cluster."""
    from hpsearch.execution.job_client import STOP_TIMEOUT_S, JobClient

    server = JobClient(address)
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
            f"`{command_line('logs', name, '--address', address)}`, and stop it again"
        )
    if job.state != "completed":
        print_plain(f"  resume with:  {command_line('resume', name, '--address', address)}")


@app.command("list", rich_help_panel=RUNNING_PANEL)
def list_(address: OptionalAddress = None, home: Home = DEFAULT_HOME) -> None:
    """List the searches of the home folder, or those of a cluster.

    Example: hpsearch list
    """
    if address is None:
        return _list_local(home)

    from hpsearch.execution.job_client import JobClient

    jobs = JobClient(address).jobs()
    if not jobs:
        print_plain(f"no search was submitted to {address}")
    for job in {job.search: job for job in jobs}.values():
        _print_row(job.search, job.state, job.started_at, _format_duration(job).strip())


def _list_local(home: Path) -> None:
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.steer_search import search_status

    workspace = Workspace(home)
    names = workspace.searches()
    if not names:
        print_plain(f"there is no search in {home}; start one with `hpsearch search SPACE`")
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
            best = f", best {context.objective.metric} {value:.4f}"
        progress = f"{found.ended} of {found.trials} trials{best}"
        _print_row(name, found.state, found.started, progress)


def _print_row(name: str, state: str, started: float | None, more: str) -> None:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if started else ""
    print_plain(f"{name:<24} {state:<11} {began:<17} {more}")


def _print_submitted(name: str, address: str) -> None:
    print_plain(f"submitted search {name} to {address}")
    for words, why in (
        (("status", name), "progress"),
        (("logs", name, "-f"), "log output"),
        (("stop", name), "save all trials and stop"),
    ):
        print_plain(f"  {command_line(*words, '--address', address):<64}  {why}")


def _format_duration(job: "SearchJob") -> str:
    passed = job.duration
    if passed is None:
        return ""
    minutes, seconds = divmod(round(passed), 60)
    hours, minutes = divmod(minutes, 60)
    return f" for {hours} h {minutes} min" if hours else f" for {minutes} min {seconds} s"
