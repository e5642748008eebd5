"""Commands for searches on a Ray cluster: submit, status, logs, stop, list."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpsearch.cli.app import TrackingUri, app
from hpsearch.cli.old_words import rewrite_old_words
from hpsearch.cli.options import drop_none, to_cli_args
from hpsearch.console.output import out, print_plain
from hpsearch.errors import UserError
from hpsearch.untrusted import command_line

if TYPE_CHECKING:
    from hpsearch.execution.job_client import SearchJob
    from hpsearch.search.resources import Resources
    from hpsearch.search.search import Search

CLUSTER_PANEL = "Cluster"
ADDRESS_VARIABLES = ["HPSEARCH_ADDRESS", "RAY_API_SERVER_ADDRESS"]
Address = Annotated[
    str,
    typer.Option(envvar=ADDRESS_VARIABLES, help="The dashboard of a Ray head: http://HEAD:8265."),
]
Name = Annotated[str, typer.Argument(help="Name of a search.")]
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


@app.command(rich_help_panel=CLUSTER_PANEL)
def status(name: Name, address: Address) -> None:
    """Print progress of a search on a cluster, and the reason if it failed.

    Example: hpsearch status full --address http://HEAD:8265
    """
    from hpsearch.execution.job_client import JobClient

    server = JobClient(address)
    job = server.job(name)
    print_plain(f"{name}: {job.state}{_format_duration(job)}")
    line = server.progress(job)
    if line:
        print_plain(f"  {line}")
    if job.state == "stopped":
        print_plain(f"  resume with:  {command_line('resume', name, '--address', address)}")


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


@app.command(rich_help_panel=CLUSTER_PANEL)
def stop(name: Name, address: Address) -> None:
    """Stop a search on a cluster; its trials are saved, and it can be resumed.

    Example: hpsearch stop full --address http://HEAD:8265
    """
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


@app.command("list", rich_help_panel=CLUSTER_PANEL)
def list_(address: Address) -> None:
    """List the searches of a cluster.

    Example: hpsearch list --address http://HEAD:8265
    """
    from hpsearch.execution.job_client import JobClient

    jobs = JobClient(address).jobs()
    if not jobs:
        print_plain(f"no search was submitted to {address}")
    for job in {job.search: job for job in jobs}.values():
        began = (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started_at))
            if job.started_at
            else ""
        )
        print_plain(f"{job.search:<24} {job.state:<10} {began:<17} {_format_duration(job).strip()}")


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
