"""``hpsearch sync``: the MLflow runs of a search, made from its folder alone."""

from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.errors import UserError

if TYPE_CHECKING:
    from hpsearch.tracking.courier import Delivery


@app.command(rich_help_panel="Look")
def sync(
    name: Annotated[str, typer.Argument(help="Name of the search.")],
    pictures: Annotated[bool, typer.Option(help="Also figures, report and descriptions.")] = True,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Rebuild a search's MLflow runs from its folder; what is there already is left alone.

    For a server that was down, has lost something, or never knew the search. Twice is as once.

    Example: hpsearch sync quickstart --tracking-uri http://HOST:5000
    """
    from hpsearch.cli.data import progress_bar
    from hpsearch.cli.figures import home_option, publish_figures
    from hpsearch.search.workspace import Workspace
    from hpsearch.tracking.refusals import answering
    from hpsearch.tracking.registry import quieten_mlflow

    folder = Workspace(home).open(name, tracking_uri=tracking_uri)
    if not folder.ledger.events():
        raise UserError(f"search {name!r} is empty; begin it again with `hpsearch search`")
    quieten_mlflow()
    publisher = folder.publisher()
    with answering(publisher.tracking.uri):
        with progress_bar("sending trials") as advance:
            delivery = publisher.sync(again=True, progress=lambda i, n: advance(i, n, ""))
        out.print(f"{publisher.tracking.shown}: {_words(delivery)}", soft_wrap=True)
        if pictures:
            with progress_bar("drawing") as advance:
                count = publish_figures(folder, publisher, progress=lambda i, n: advance(i, n, ""))
            out.print(f"{count} figures and pages")
    out.print(f"look at them with:  hpsearch ui {name}{home_option(folder)}", soft_wrap=True)


def _words(delivery: "Delivery") -> str:
    """A report is one point of every metric."""
    return (
        f"{delivery.runs} runs ({delivery.created} new), "
        f"{delivery.sent} reports sent, {delivery.there} already there"
    )
