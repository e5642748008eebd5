"""``hpsearch resume`` and ``hpsearch extend``: a search goes on."""

from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app
from hpsearch.cli.jobs import ADDRESS_VARIABLES, submit_resume
from hpsearch.cli.options import (
    ChangedSpace,
    Concurrent,
    Cpus,
    GpuSeconds,
    HangAfter,
    Patches,
    TimeLimit,
    as_words,
    given,
    limits,
)

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

    from hpsearch.cli.resuming import moved, open_again, refuse_finished, settle_space
    from hpsearch.cli.running import run

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
    from hpsearch.cli.resuming import extended, moved, open_again, settle_space
    from hpsearch.cli.running import run

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
