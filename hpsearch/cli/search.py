"""Commands of searches: search, resume, extend."""

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import STARTED_AT, Home, TrackingUri, app
from hpsearch.cli.completion import complete_searches, complete_spaces
from hpsearch.cli.jobs import ADDRESS_VARIABLES, Slurm
from hpsearch.cli.options import (
    Cpus,
    CpusPerTrial,
    Device,
    GpuSeconds,
    GpusPerTrial,
    MaxConcurrent,
    MaxPatches,
    Notify,
    NotifyIdle,
    OnSpaceChange,
    ReportTimeout,
    SplitName,
    TimeLimit,
    TpusPerTrial,
    WaitForNodes,
    drop_none,
    notifiers,
    to_cli_args,
)
from hpsearch.cli.submit import resume_on_slurm, submit_resume
from hpsearch.console.output import print_plain
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import EXIT_INTERRUPTED, UserError
from hpsearch.locations import remote_address

if TYPE_CHECKING:
    from hpsearch.workflows.observer import Observer, SearchResult


@app.command(rich_help_panel="Search")
def search(
    space: Annotated[
        Path,
        typer.Argument(help="A Python file that exports SEARCH.", autocompletion=complete_spaces),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the search (default: that of the file).")
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="Name it NAME-2, NAME-3 and so on if the name exists."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(help="Patches: mini, tiny, or the path of a store (default: the space's)."),
    ] = None,
    validation_data: Annotated[
        str | None,
        typer.Option(help="Other patches to validate on, apart from their test part."),
    ] = None,
    test_data: Annotated[
        str | None, typer.Option(help="Other patches whose test part winners are evaluated on.")
    ] = None,
    split: SplitName = "auto",
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Replace a setting of the space, also several times: budget=200_000, pruner=none, "
            "descriptor.width=0.5.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            is_eager=True,
            help="Check everything, time two steps of a trial, and start nothing.",
        ),
    ] = False,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Number of trials (default: from the space file).")
    ] = None,
    max_concurrent_trials: MaxConcurrent = None,
    cpus: Cpus = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster, HEAD:6379 (default: none).")
    ] = None,
    warm_start_from: Annotated[
        str | None,
        typer.Option(
            help="An earlier search whose trials the sampler starts with, or URL#NAME of an Optuna "
            "study."
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Database URL or journal:PATH of the study; $NAME is an environment variable."
        ),
    ] = None,
    time_limit: TimeLimit = None,
    max_patches: MaxPatches = None,
    gpu_seconds: GpuSeconds = None,
    report_timeout: ReportTimeout = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    tpus_per_trial: TpusPerTrial = None,
    device: Device = None,
    wait_for_nodes: WaitForNodes = False,
    model: Annotated[str | None, typer.Option(help="Name of the registered model.")] = None,
    notify: Notify = None,
    notify_idle: NotifyIdle = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Search a space, evaluate the winner on test patches, and register it.

    Example: hpsearch search search_spaces/quickstart.py
    """
    from hpsearch.search.overrides import parse_overrides
    from hpsearch.workflows.search_plan import SearchOptions

    options = SearchOptions(
        name=name,
        again=again,
        overrides=parse_overrides(overrides or []),
        data=data,
        validation_data=validation_data,
        test_data=test_data,
        split=split,
        trials=trials,
        max_concurrent_trials=max_concurrent_trials,
        cpus=cpus,
        address=address,
        warm_start_from=warm_start_from,
        study=study,
        limits=drop_none(seconds=time_limit, patches=max_patches, gpu_seconds=gpu_seconds),
        resources=drop_none(
            cpus=cpus_per_trial, gpus=gpus_per_trial, tpus=tpus_per_trial, device=device
        ),
        report_timeout=report_timeout,
        wait_for_nodes=wait_for_nodes,
        model=model,
        tracking_uri=tracking_uri,
    )
    callbacks = notifiers(notify, notify_idle)
    if dry_run:
        from hpsearch.console.search_output import print_dry_run
        from hpsearch.workflows.dry_run import dry_run as try_search

        found = try_search(space, options, home=home, observer=console_observer())
        return print_dry_run(found, home)

    from hpsearch.workflows.run_search import run_search

    finish(
        run_search(
            space,
            **vars(options),
            home=home,
            observer=console_observer(),
            callbacks=callbacks,
        )
    )


def console_observer() -> "Observer":
    """Create the observer that prints; imported when a command needs it."""
    from hpsearch.console.console_observer import ConsoleObserver

    return ConsoleObserver()


def finish(result: "SearchResult") -> None:
    """End a command that ran a search, whose scores have been printed; 130 if trials are left.

    Raises:
        UserError: if there is no winner, or it could not be registered.
    """
    from hpsearch.console.search_output import print_duration, print_trials

    if result.status == "interrupted":
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.winner is None:
        print_trials(result.context)
        raise UserError(result.reason, code="no-completed-trial")
    print_duration(result, time.monotonic() - STARTED_AT)
    if result.registration is None:
        raise UserError(result.reason, code="not-registered")


OTHER_CLUSTER_HELP = "HEAD:6379 of another Ray cluster than the search began on; local for none"
Address = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS_VARIABLES,
        is_eager=True,
        help=f"The dashboard of a Ray head, http://HEAD:8265, to resume as a job there; or "
        f"{OTHER_CLUSTER_HELP}.",
    ),
]
Cluster = Annotated[str | None, typer.Option("--address", help=f"{OTHER_CLUSTER_HELP}.")]
Name = Annotated[str, typer.Argument(help="Name of the search.", autocompletion=complete_searches)]


@app.command(rich_help_panel="Search")
def resume(
    name: Name,
    address: Address = None,
    on_space_change: OnSpaceChange = None,
    max_concurrent_trials: MaxConcurrent = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = None,
    max_patches: MaxPatches = None,
    gpu_seconds: GpuSeconds = None,
    report_timeout: ReportTimeout = None,
    notify: Notify = None,
    notify_idle: NotifyIdle = None,
    tracking_uri: TrackingUri = None,
    slurm: Slurm = False,
    home: Home = DEFAULT_HOME,
) -> None:
    """Resume a search that was interrupted or reached a limit; ended trials stay as they are.

    Example: hpsearch resume quickstart
    """
    on_dashboard = address is not None and address.startswith(("http://", "https://"))
    if slurm or on_dashboard:
        options = to_cli_args(
            on_space_change=on_space_change, max_concurrent_trials=max_concurrent_trials,
            time_limit=time_limit, max_patches=max_patches, gpu_seconds=gpu_seconds,
            report_timeout=report_timeout,
            tracking_uri=tracking_uri,
        )  # fmt: skip
        if slurm:
            return resume_on_slurm(name, home, options)
        folder = None if home == DEFAULT_HOME else remote_address(home) or str(home)
        submit_resume(name, address or "", folder, options)
        return

    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.steer_search import unpause

    if unpause(Workspace(home).open(name)):
        return print_plain(f"{name}: trials are started again by the process that runs it")

    from hpsearch.workflows.resume_search import resume_search

    finish(
        resume_search(
            name,
            address=address,
            on_space_change=on_space_change,
            limits=drop_none(seconds=time_limit, patches=max_patches, gpu_seconds=gpu_seconds),
            tracking_uri=tracking_uri,
            home=home,
            observer=console_observer(),
            callbacks=notifiers(notify, notify_idle),
            **drop_none(
                max_concurrent_trials=max_concurrent_trials,
                cpus=cpus,
                report_timeout=report_timeout,
            ),
        )
    )


@app.command(rich_help_panel="Search")
def extend(
    name: Name,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of trials to add; with --budget, of the best ones to train on."
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Larger budget, to which those that completed train on."),
    ] = None,
    address: Cluster = None,
    on_space_change: OnSpaceChange = None,
    max_concurrent_trials: MaxConcurrent = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = None,
    max_patches: MaxPatches = None,
    gpu_seconds: GpuSeconds = None,
    report_timeout: ReportTimeout = None,
    notify: Notify = None,
    notify_idle: NotifyIdle = None,
    tracking_uri: TrackingUri = None,
    home: Home = DEFAULT_HOME,
) -> None:
    """Add trials to a search, or train its best trials on to a larger budget.

    The schedule of the learning rate is laid over the new budget; the winner is scored again.

    Example: hpsearch extend quickstart --budget 96000 --trials 3
    """
    from hpsearch.workflows.extend_budget import extend_budget
    from hpsearch.workflows.resume_search import extend_search

    if budget is None and trials is None:
        raise UserError(
            "give what to add: --trials 20 for more trials, or --budget 96000 to train on",
            code="nothing-to-extend",
        )
    run = partial(extend_search, name, trials or 0)
    if budget is not None:
        run = partial(extend_budget, name, budget, trials=trials)
    finish(
        run(
            address=address,
            on_space_change=on_space_change,
            limits=drop_none(seconds=time_limit, patches=max_patches, gpu_seconds=gpu_seconds),
            tracking_uri=tracking_uri,
            home=home,
            observer=console_observer(),
            callbacks=notifiers(notify, notify_idle),
            **drop_none(
                max_concurrent_trials=max_concurrent_trials,
                cpus=cpus,
                report_timeout=report_timeout,
            ),
        )
    )
