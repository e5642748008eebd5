"""``hpsearch ensemble``: several registered versions as one model."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, say
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.promotion.ensembling import Registered, Union


class How(StrEnum):
    """How the members' descriptors become one."""

    mean = "mean"
    concatenate = "concatenate"


@app.command(rich_help_panel="Models")
def ensemble(
    members: Annotated[list[str], typer.Argument(help="NAME@3, NAME@champion …; at least two.")],
    name: Annotated[str, typer.Option(help="What to register the ensemble as.")],
    combine: Annotated[
        How, typer.Option(help="Project them side by side on what varies most, or average them.")
    ] = How.concatenate,
    dimensions: Annotated[
        int | None, typer.Option(min=2, help="Of a projection; a member's if unset.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Their patch set; if unset, that of their search.")
    ] = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Average several registered versions into one descriptor; score it on test, and register it.

    The members must have been trained and tested on the same patches. What a projection needs is
    learnt from their training sequences. The ensemble is compared with the champion of its name.

    Example: hpsearch ensemble patch-descriptor@1 patch-descriptor@3 --name two-of-them
    """
    from hpsearch.promotion.ensembling import combined, register
    from hpsearch.promotion.gradebook import Gradebook
    from hpsearch.promotion.members import load_members, patches_of
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.registry import Registry, quieten_mlflow

    if dimensions is not None and combine is How.mean:
        raise UserError("--dimensions is for --combine concatenate; a mean has as many as a member")
    quieten_mlflow()
    workspace = Workspace(home)
    tracking = workspace.tracking(tracking_uri)
    found = load_members(members, tracking)
    store, split = patches_of(found, workspace, data)
    union = combined(found, combine.value, store.part(split, "train"), dimensions=dimensions)
    book = Gradebook(workspace.home, store, split)
    show(union, register(union, Registry(tracking=tracking, model=name), book), name)


def show(union: "Union", done: "Registered", name: str) -> None:
    """Scores, and what became of it."""
    scores = done.scores
    if union.kept is not None:
        say(f"the projection keeps {union.kept:.1%} of the variance on training patches")
    say(
        f"on test: verification {scores.verification:.3f}, matching {scores.matching:.3f}, "
        f"retrieval {scores.retrieval:.3f}, mean mAP {scores.mean:.4f}"
    )
    say(f"Registered {name} version {done.version} as {done.alias}: {union.names}")
    say(f"  {done.decision.reason}")
