"""``hpsearch ensemble``: several registered versions as one model."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.cli.ensembling import Registered


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
    from hpsearch.cli import ensembling
    from hpsearch.models.serving import EnsembleRecipe
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.registry import Registry, quieten_mlflow

    if dimensions is not None and combine is How.mean:
        raise UserError("--dimensions is for --combine concatenate; a mean has as many as a member")
    quieten_mlflow()
    workspace = Workspace(home)
    tracking = workspace.tracking(tracking_uri)
    found = ensembling.load_members(members, tracking)
    store, split = ensembling.patches_of(found, workspace, data)
    train = store.part(split, "train")
    network, kept = ensembling.combined(found, combine.value, train, dimensions=dimensions)
    recipe = EnsembleRecipe(
        members=tuple(member.recipe for member in found),
        combine=combine.value,
        dimensions=network.combine.out_features,
    )
    registry = Registry(tracking=tracking, model=name)
    done = ensembling.register(
        network, recipe, found, registry, store=store, split=split, kept=kept
    )
    show(done, name, [member.words for member in found])


def show(done: "Registered", name: str, members: Sequence[str]) -> None:
    """Scores, and what became of it."""
    scores = done.scores
    if done.kept is not None:
        out.print(
            f"the projection keeps {100 * done.kept:.1f} % of the variance on training patches"
        )
    out.print(
        f"on test: verification {scores.verification:.3f}, matching {scores.matching:.3f}, "
        f"retrieval {scores.retrieval:.3f}, mean mAP {scores.mean:.4f}"
    )
    out.print(f"Registered {name} version {done.version} as {done.alias}: {', '.join(members)}")
    out.print(f"  {done.decision.reason}", soft_wrap=True)
