"""Commands that train: search, resume, extend, train."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import Home, TrackingUri, app
from hpsearch.cli.jobs import ADDRESS_VARIABLES, submit_resume
from hpsearch.cli.options import (
    ChangedSpace,
    Concurrent,
    Cpus,
    CpusPerTrial,
    Device,
    GpuSeconds,
    GpusPerTrial,
    HangAfter,
    Patches,
    TimeLimit,
    TpusPerTrial,
    Wait,
    as_words,
    given,
    limits,
    resources,
)
from hpsearch.console.output import HOME


@app.command(rich_help_panel="Search")
def search(
    space: Annotated[Path, typer.Argument(help="A Python file that exports SEARCH.")],
    name: Annotated[str | None, typer.Option(help="The file's, if unset.")] = None,
    data: Annotated[str | None, typer.Option(help="mini, tiny, or the path of a store.")] = None,
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    trials: Annotated[int | None, typer.Option(min=1, help="Instead of the space's.")] = None,
    concurrent: Concurrent = None,
    cpus: Cpus = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster.")] = None,
    warm_from: Annotated[str | None, typer.Option(help="An earlier search to learn from.")] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Database URL or journal:PATH of the study; $NAME is filled in."),
    ] = None,
    time_limit: TimeLimit = None,
    patches: Patches = None,
    gpu_seconds: GpuSeconds = None,
    hang_after: HangAfter = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    tpus_per_trial: TpusPerTrial = None,
    device: Device = None,
    wait: Wait = False,
    model: Annotated[str | None, typer.Option(help="Name in the registry.")] = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Search a space, judge the winner on test patches, and register it.

    Example: hpsearch search search_spaces/quickstart.py
    """
    from hpsearch.search.search import load_search

    stated = load_search(space)
    stated.validate_space()

    from hpsearch.data.builtin_sets import refuse_absent

    refuse_absent(data or stated.data)

    from hpsearch.console.progress_bars import progress_bar
    from hpsearch.data.splits import folds
    from hpsearch.execution import ray_runtime
    from hpsearch.search.stopping import Limits
    from hpsearch.search.study import check_free
    from hpsearch.search.warm_start import check_comparable
    from hpsearch.search.workspace import SearchRecord, Workspace
    from hpsearch.workflows.run_search import announce, run

    workspace = Workspace(home)
    chosen = name or workspace.free_name(space.stem)
    workspace.refuse_taken(chosen)
    warm_from = warm_from or stated.warm_from
    earlier = workspace.open(warm_from) if warm_from else None
    if study:
        check_free(study, chosen)
    with progress_bar("building patches") as advance:
        store = workspace.store(data or stated.data, progress=advance)
    store.part(store.split(split), "train")  # says now if the split has nothing to train on
    if stated.num_folds:
        folds(store.split(split), stated.num_folds)
    if earlier:
        check_comparable(
            earlier, search=stated, fingerprint=store.fingerprint, split=store.split(split).name
        )
    record = SearchRecord(
        space=str(space),
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split=split,
        tracking_uri=workspace.tracking(tracking_uri).uri,
        trials=stated.num_trials(trials),
        concurrent=concurrent,
        cpus=cpus,
        address=address,
        wait=wait,
        study=study,
        warm_from=warm_from,
        hang_after=hang_after,
        origin=str(space.absolute()),
        limits=limits(
            Limits(seconds=stated.time_limit),
            time_limit=time_limit,
            patches=patches,
            gpu_seconds=gpu_seconds,
        ),
        resources=resources(
            stated.resources,
            cpus=cpus_per_trial,
            gpus=gpus_per_trial,
            tpus=tpus_per_trial,
            device=device,
        ),
        **given(model=model),
    )
    ray_runtime.start_ray(address=address, cpus=cpus)
    if not wait:
        ray_runtime.check_room(record.resources, concurrent)
    folder = workspace.create(chosen, space, record)
    with folder.alone():
        announce(folder, stated, store)
        run(folder)


OTHER_CLUSTER = "another Ray cluster, HEAD:6379, than the search began on; local for none"
Address = Annotated[
    str | None,
    typer.Option(
        envvar=ADDRESS_VARIABLES,
        help=f"The dashboard of a Ray head, http://HEAD:8265, to go on as a job there; or "
        f"{OTHER_CLUSTER}.",
    ),
]
Cluster = Annotated[str | None, typer.Option("--address", help=OTHER_CLUSTER.capitalize() + ".")]
Name = Annotated[str, typer.Argument(help="Name of the search.")]


@app.command(rich_help_panel="Search")
def resume(
    name: Name,
    address: Address = None,
    changed_space: ChangedSpace = None,
    concurrent: Concurrent = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = None,
    patches: Patches = None,
    gpu_seconds: GpuSeconds = None,
    hang_after: HangAfter = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Go on with a search that was interrupted or hit a limit; what has ended stays as it is.

    Example: hpsearch resume quickstart
    """
    if address is not None and address.startswith(("http://", "https://")):
        options = as_words(
            changed_space=changed_space, concurrent=concurrent, time_limit=time_limit,
            patches=patches, gpu_seconds=gpu_seconds, hang_after=hang_after,
            tracking_uri=tracking_uri,
        )  # fmt: skip
        submit_resume(name, address, None if home == HOME else str(home), options)
        return

    from hpsearch.workflows.resume_search import moved, open_again, refuse_finished, settle_space
    from hpsearch.workflows.run_search import run

    folder = open_again(name, home, tracking_uri)
    with folder.alone():
        folder = settle_space(folder, changed_space)
        new = limits(
            folder.record.limits, time_limit=time_limit, patches=patches, gpu_seconds=gpu_seconds
        )
        folder = folder.changed(
            limits=new, **given(concurrent=concurrent, cpus=cpus, hang_after=hang_after)
        )
        refuse_finished(folder)
        run(moved(folder, address))


@app.command(rich_help_panel="Search")
def extend(
    name: Name,
    trials: Annotated[int, typer.Option(min=1, help="How many to add.")],
    address: Cluster = None,
    changed_space: ChangedSpace = None,
    concurrent: Concurrent = None,
    cpus: Cpus = None,
    time_limit: TimeLimit = None,
    patches: Patches = None,
    gpu_seconds: GpuSeconds = None,
    hang_after: HangAfter = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Add trials to a search, finished or not, and go on; the winner is judged again at the end.

    Example: hpsearch extend quickstart --trials 20
    """
    from hpsearch.workflows.resume_search import extended, moved, open_again, settle_space
    from hpsearch.workflows.run_search import run

    folder = open_again(name, home, tracking_uri)
    with folder.alone():
        folder = settle_space(folder, changed_space)
        new = limits(
            folder.record.limits, time_limit=time_limit, patches=patches, gpu_seconds=gpu_seconds
        )
        run(
            extended(
                moved(folder, address),
                trials,
                limits=new,
                **given(concurrent=concurrent, cpus=cpus, hang_after=hang_after),
            )
        )


@app.command(rich_help_panel="Search")
def train(
    trial: Annotated[Path, typer.Argument(help="A TrialConfig as JSON.")],
    to: Annotated[Path | None, typer.Option(help="Folder for checkpoint and model.")] = None,
    data: Annotated[str, typer.Option(help="mini, tiny, or the path of a store.")] = "mini",
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    sequences: Annotated[str, typer.Option(help="Train on these only, with commas.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or xla.")] = "auto",
    precision: Annotated[
        str, typer.Option(help="auto, float32 or bfloat16, of training's convolutions.")
    ] = "auto",
    compiled: Annotated[
        bool, typer.Option("--compiled", help="torch.compile: pays on long budgets.")
    ] = False,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Refuse operations that vary between runs.")
    ] = False,
    home: Home = HOME,
) -> None:
    """Train one trial on this machine, with no Ray; the same JSON stands in every MLflow run.

    Run again with the same --to, it goes on from its checkpoint.

    Example: hpsearch train config.json --to runs/trained
    """
    from hpsearch.config import Computing
    from hpsearch.search.workspace import Workspace
    from hpsearch.workflows.train_trial import job_here, read_config, train_here

    computing = Computing.model_validate(
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
    job = job_here(config, workspace, data=data, split=split, sequences=wanted, computing=computing)
    train_here(config, job, to or home / "trained" / trial.stem)
