"""``hpsearch report``: what a search has found, at any time."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, app, out
from hpsearch.errors import UserError


@app.command(rich_help_panel="Look")
def report(
    name: Annotated[str | None, typer.Argument(help="A search; the latest, if unset.")] = None,
    to: Annotated[Path | None, typer.Option(help="The page; in the search's folder.")] = None,
    home: Home = HOME,
) -> None:
    """Print the leaderboard and write the report as one HTML page, also while the search runs.

    Example: hpsearch report quickstart --to report.html
    """
    from hpsearch.cli.ending import print_scores, print_trials
    from hpsearch.cli.figures import page, search_figures
    from hpsearch.promotion.winner import load_scores
    from hpsearch.search.workspace import Workspace

    workspace = Workspace(home)
    known = workspace.searches()
    if name is None and not known:
        raise UserError(f"there is no search in {home}; begin with `hpsearch search SPACE`")
    folder = workspace.open(name or known[-1])
    print_trials(folder)
    scores = load_scores(folder)
    if scores:
        print_scores(scores)
    to = to or folder.path / "report.html"
    to.write_text(page(folder, search_figures(folder)), encoding="utf-8")
    out.print(f"\n{to}", soft_wrap=True)
