"""Commands for a search while it runs: try, pause, concurrency, note; and show, doctor, du, rm."""

import ast
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from hpsearch.cli.app import Home, app
from hpsearch.cli.completion import complete_searches
from hpsearch.cli.jobs import OptionalAddress, Slurm, print_local_status, slurm_home
from hpsearch.console.output import out, print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.locations import home_address

PANEL = "Running"
Name = Annotated[str, typer.Argument(help="Name of a search.", autocompletion=complete_searches)]
Trial = Annotated[str, typer.Option(help="Number of a trial, such as 012.")]


def open_context(name: str, home: Path) -> Any:
    """Open a search by its name, without anything heavy."""
    from hpsearch.search.workspace import Workspace

    return Workspace(home).open(name)


@app.command("try", rich_help_panel=PANEL)
def try_(
    name: Name,
    point: Annotated[
        str, typer.Argument(help='Values by the names of the space, as JSON: {"lr": 0.01}.')
    ],
    home: Home = DEFAULT_HOME,
) -> None:
    """Try a point as the next trial; the sampler draws the values that it leaves out.

    Example: hpsearch try quickstart '{"dropout": 0.2}'
    """
    from hpsearch.workflows.steer_search import enqueue_trial

    enqueue_trial(open_context(name, home), _parse_point(point))
    print_plain(f"{name}: the next trial to start has this point")


def _parse_point(text: str) -> dict[str, Any]:
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict) and all(isinstance(key, str) for key in found):
            return found
    raise UserError(
        f'a point is JSON such as {{"lr": 0.01}}, not {text[:80]!r}; put it in single quotes',
        code="invalid-point",
    )


@app.command(rich_help_panel=PANEL)
def pause(name: Name, home: Home = DEFAULT_HOME) -> None:
    """Start no further trials; those that run are trained to their end. `resume` continues.

    Example: hpsearch pause quickstart
    """
    from hpsearch.workflows.steer_search import pause as request_pause

    context = open_context(name, home)
    request_pause(context)
    print_plain(f"{name}: no further trial is started until  {context.command('resume')}")


@app.command(rich_help_panel=PANEL)
def concurrency(
    name: Name,
    trials: Annotated[int, typer.Argument(min=1, help="Largest number of trials at once.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Change how many trials run at once; those that run are not stopped.

    Example: hpsearch concurrency quickstart 4
    """
    from hpsearch.workflows.steer_search import set_concurrency

    set_concurrency(open_context(name, home), trials)
    print_plain(f"{name}: at most {trials} trials at once, as far as the cluster holds them")


@app.command(rich_help_panel=PANEL)
def note(
    name: Name,
    text: Annotated[str, typer.Argument(help="The note.")],
    trial: Annotated[
        str | None, typer.Option(help="Number of a trial, such as 012 (default: the search).")
    ] = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Note something about a trial or a search, which `show` prints.

    Example: hpsearch note quickstart "loss jumps at 20,000" --trial 012
    """
    from hpsearch.workflows.steer_search import add_note

    add_note(open_context(name, home), text, trial=trial)
    print_plain(f"{name}: noted")


@app.command(rich_help_panel=PANEL)
def show(
    name: Name, address: OptionalAddress = None, slurm: Slurm = False, home: Home = DEFAULT_HOME
) -> None:
    """Print settings, state, notes and trials of a search, here or on a cluster.

    A search on a Ray cluster is read there, by a short job, in the home that it was submitted with.

    Example: hpsearch show quickstart
    """
    if slurm:
        home = slurm_home(home)
    elif address is not None:
        from hpsearch.execution.job_client import JobClient

        client = JobClient(address)
        return print_plain(client.run(["show", name], home=client.job(name).home))
    _show_local(name, home)


def _show_local(name: str, home: Path) -> None:
    from hpsearch.console.search_output import print_trials
    from hpsearch.search.requests import SearchRequests

    context = open_context(name, home)
    record, search = context.record, context.search
    print_local_status(context)
    for what, value in (
        ("space", record.space),
        ("overrides", ", ".join(f"{k}={v}" for k, v in record.overrides.items())),
        ("data", f"{record.store}, split {record.split}"),
        ("objective", ", ".join(f"{o.direction} {o.metric}" for o in search.objectives)),
        ("constraints", ", ".join(map(str, search.limits))),
        ("gates", ", ".join(map(str, search.promotion_gates))),
        ("budget", f"{search.budget:,} patches of a trial, report every {search.report_every:,}"),
        ("sampler", search.sampler.kind),
        ("pruner", search.active_pruner.kind),
        ("warm start", record.warm_start_from or ""),
        ("folder", _folder_address(context)),
    ):
        if value:
            print_plain(f"  {what:<11} {value}")
    for trial, notes in SearchRequests(context.event_log).notes.items():
        for text in notes:
            print_plain(f"  note {trial or 'of the search'}: {text}")
    if context.runs:
        print_trials(context)


def _folder_address(context: Any) -> str:
    """Folder of a search; in an object store its address there, not that of the mirror."""
    inside = context.paths.folder.relative_to(context.home)
    return f"{home_address(context.home)}/{inside.as_posix()}"


@app.command(rich_help_panel="Housekeeping")
def doctor(home: Home = DEFAULT_HOME) -> None:
    """Print versions, ports, MLflow, GPU, disk and memory, as a text for a bug report.

    Example: hpsearch doctor
    """
    from hpsearch.workflows.doctor import diagnose

    for line in diagnose(home):
        print_plain(line)


@app.command(rich_help_panel="Housekeeping")
def du(home: Home = DEFAULT_HOME) -> None:
    """Print the disk space of each search, of the data and of MLflow's files.

    Example: hpsearch du
    """
    from hpsearch.workflows.housekeeping import disk_usage

    for use in disk_usage(home):
        print_plain(f"{use.size / 2**20:>10,.1f} MiB  {use.name}")


@app.command(rich_help_panel="Housekeeping")
def rm(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Remove a search with its checkpoints, its study and its MLflow runs, after a question.

    Registered models stay. MLflow's runs are deleted as MLflow does it: `mlflow gc` frees them.

    Example: hpsearch rm quickstart
    """
    from hpsearch.workflows.housekeeping import plan_removal, remove_search

    removal = plan_removal(open_context(name, home))
    print_plain(
        f"{_folder_address(removal.context)}: {removal.size / 2**20:,.1f} MiB, "
        f"{removal.trials} trials"
    )
    if not yes and not typer.confirm("remove it, and its runs in MLflow?"):
        raise typer.Exit(1)
    runs = remove_search(removal)
    print_plain(f"removed search {name} and {runs} runs of MLflow")


@app.command(rich_help_panel="Housekeeping")
def archive(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The archive (default: NAME.tar.gz).")
    ] = None,
    checkpoints: Annotated[
        bool, typer.Option(help="Include the checkpoints of the trials.")
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Write a search into an archive: space, event log, study, scores; the search stays.

    Unpacked into the folder `searches` of a home, it can be read and reported there.

    Example: hpsearch archive quickstart --output quickstart.tar.gz
    """
    from hpsearch.workflows.housekeeping import archive_search

    path = output or Path(f"{name}.tar.gz")
    size = archive_search(open_context(name, home), path, checkpoints=checkpoints)
    out.print(f"{path}: {size / 2**20:,.1f} MiB", soft_wrap=True)
