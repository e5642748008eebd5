"""``hpsearch search``: a new search.

What is heavy is imported where it is used: ``--help`` and a mistake in a space answer at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app
from hpsearch.cli.options import (
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
    given,
    limits,
    resources,
)


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
    stated.rehearse()

    from hpsearch.data.embedded import refuse_absent

    refuse_absent(data or stated.data)

    from hpsearch.cli.data import progress_bar
    from hpsearch.cli.running import announce, run
    from hpsearch.data.splits import folds
    from hpsearch.running import ray_tune
    from hpsearch.search.limits import Limits
    from hpsearch.search.study import check_free
    from hpsearch.search.warm import check_comparable
    from hpsearch.search.workspace import SearchRecord, Workspace

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
    if stated.folds:
        folds(store.split(split), stated.folds)
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
        trials=stated.total(trials),
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
    ray_tune.start_ray(address=address, cpus=cpus)
    if not wait:
        ray_tune.check_room(record.resources, concurrent)
    folder = workspace.create(chosen, space, record)
    with folder.alone():
        announce(folder, stated, store)
        run(folder)
