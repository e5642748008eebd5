"""Commands that train: search, resume, extend, train."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.jobs import ADDRESS_VARIABLES, submit_resume
from hpsearch.cli.options import (
    Cpus,
    CpusPerTrial,
    Device,
    GpuSeconds,
    GpusPerTrial,
    MaxConcurrent,
    OnSpaceChange,
    Patches,
    ReportTimeout,
    TimeLimit,
    TpusPerTrial,
    WaitForNodes,
    drop_none,
    to_cli_args,
)
from hpsearch.console.output import print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import EXIT_INTERRUPTED, UserError

if TYPE_CHECKING:
    from hpsearch.workflows.observer import Observer
    from hpsearch.workflows.search_session import SearchResult


@app.command(rich_help_panel="Search")
def search(
    space: Annotated[Path, typer.Argument(help="A Python file that exports SEARCH.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the search; that of the file if unset.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="mini, tiny, or the path of a store.")] = None,
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    trials: Annotated[int | None, typer.Option(min=1, help="Instead of the space's.")] = None,
    concurrent: MaxConcurrent = None,
    cpus: Cpus = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster.")] = None,
    warm_from: Annotated[
        str | None, typer.Option(help="Earlier search whose trials the sampler starts with.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Database URL or journal:PATH of the study; $NAME is an environment variable."
        ),
    ] = None,
    time_limit: TimeLimit = None,
    patches: Patches = None,
    gpu_seconds: GpuSeconds = None,
    hang_after: ReportTimeout = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    tpus_per_trial: TpusPerTrial = None,
    device: Device = None,
    wait: WaitForNodes = False,
    model: Annotated[str | None, typer.Option(help="Name in the registry.")] = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Search a space, evaluate the winner on test patches, and register it.

    Example: hpsearch search search_spaces/quickstart.py
    """
    from hpsearch.workflows.run_search import run_search

    finish(
        run_search(
            space,
            name=name,
            data=data,
            split=split,
            trials=trials,
            concurrent=concurrent,
            cpus=cpus,
            address=address,
            warm_from=warm_from,
            study=study,
            limits=drop_none(seconds=time_limit, patches=patches, gpu_seconds=gpu_seconds),
            resources=drop_none(
                cpus=cpus_per_trial, gpus=gpus_per_trial, tpus=tpus_per_trial, device=device
            ),
            report_timeout=hang_after,
            wait=wait,
            model=model,
            tracking_uri=tracking_uri,
            home=home,
            observer=console_observer(),
        )
    )


def console_observer() -> "Observer":
    """Create the observer that prints; imported when a command needs it."""
    from hpsearch.console.console_observer import ConsoleObserver

    return ConsoleObserver()


def finish(result: "SearchResult") -> None:
    """Print a result; exit with 130 if trials are left.

    Raises:
        UserError: if there is no winner.
    """
    from hpsearch.console.search_output import print_result

    print_result(result)
    if result.status == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.winner is None:
        raise UserError(result.reason)


OTHER_CLUSTER_HELP = "another Ray cluster, HEAD:6379, than the search began on; local for none"
Address = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS_VARIABLES,
        help=f"The dashboard of a Ray head, http://HEAD:8265, to resume as a job there; or "
        f"{OTHER_CLUSTER_HELP}.",
    ),
]
Cluster = Annotated[
    str | None, typer.Option("--address", help=OTHER_CLUSTER_HELP.capitalize() + ".")
]
Name = Annotated[str, typer.Argument(help="Name of the search.")]


@app.command(rich_help_panel="Search")
def resume(
    name: Name,
    address: Address = None,
    changed_space: OnSpaceChange = None,
    concurrent: MaxConcurrent = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = None,
    patches: Patches = None,
    gpu_seconds: GpuSeconds = None,
    hang_after: ReportTimeout = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Resume a search that was interrupted or reached a limit; ended trials stay as they are.

    Example: hpsearch resume quickstart
    """
    if address is not None and address.startswith(("http://", "https://")):
        options = to_cli_args(
            changed_space=changed_space, concurrent=concurrent, time_limit=time_limit,
            patches=patches, gpu_seconds=gpu_seconds, hang_after=hang_after,
            tracking_uri=tracking_uri,
        )  # fmt: skip
        submit_resume(name, address, None if home == DEFAULT_HOME else str(home), options)
        return

    from hpsearch.workflows.resume_search import resume_search

    finish(
        resume_search(
            name,
            address=address,
            changed_space=changed_space,
            limits=drop_none(seconds=time_limit, patches=patches, gpu_seconds=gpu_seconds),
            tracking_uri=tracking_uri,
            home=home,
            observer=console_observer(),
            **drop_none(concurrent=concurrent, cpus=cpus, hang_after=hang_after),
        )
    )


@app.command(rich_help_panel="Search")
def extend(
    name: Name,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials to add.")],
    address: Cluster = None,
    changed_space: OnSpaceChange = None,
    concurrent: MaxConcurrent = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = None,
    patches: Patches = None,
    gpu_seconds: GpuSeconds = None,
    hang_after: ReportTimeout = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Add trials to a search, finished or not, and run them; the winner is selected again.

    Example: hpsearch extend quickstart --trials 20
    """
    from hpsearch.workflows.resume_search import extend_search

    finish(
        extend_search(
            name,
            trials,
            address=address,
            changed_space=changed_space,
            limits=drop_none(seconds=time_limit, patches=patches, gpu_seconds=gpu_seconds),
            tracking_uri=tracking_uri,
            home=home,
            observer=console_observer(),
            **drop_none(concurrent=concurrent, cpus=cpus, hang_after=hang_after),
        )
    )


@app.command(rich_help_panel="Search")
def train(
    trial: Annotated[Path, typer.Argument(help="A TrialConfig as JSON.")],
    to: Annotated[Path | None, typer.Option(help="Folder for checkpoint and model.")] = None,
    data: Annotated[str, typer.Option(help="mini, tiny, or the path of a store.")] = "mini",
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    sequences: Annotated[str, typer.Option(help="Training sequences, separated by commas.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or xla.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="Precision of convolutions in training: auto, float32 or bfloat16.")
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Use torch.compile; worthwhile for long budgets.")
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Use deterministic operations only.")
    ] = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Train one trial on this machine without Ray, from the JSON in its MLflow run.

    Run again with the same --to, it resumes from its checkpoint.

    Example: hpsearch train config.json --to runs/trained
    """
    from hpsearch.config import ComputeConfig
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.train_trial import local_environment, read_config, train_trial

    compute_config = ComputeConfig.model_validate(
        {
            "device": device,
            "precision": precision,
            "compiled": compiled,
            "deterministic": deterministic,
        }
    )
    config = read_config(trial)
    workspace = Workspace(home)
    wanted = tuple(name for name in sequences.split(",") if name)
    job = local_environment(
        config, workspace, data=data, split=split, sequences=wanted, compute_config=compute_config
    )
    output = to or home / "trained" / trial.stem
    train_trial(config, job, output, observer=console_observer())
    print_plain(
        f"saved {output}; evaluate it with:  hpsearch evaluate {output} --data {job.store.path}"
    )
