"""``hpsearch data``: patch sets."""

from pathlib import Path
from typing import Annotated

import typer

from hpsearch.cli.app import HOME, Home, app, out
from hpsearch.data.store import PatchStore
from hpsearch.search.workspace import Workspace

data = typer.Typer(help="Build and look at patch sets.", no_args_is_help=True)
app.add_typer(data, name="data", rich_help_panel="Data")


@data.command()
def build(
    name: Annotated[str, typer.Argument(help="mini or tiny.")] = "mini", home: Home = HOME
) -> None:
    """Build an embedded patch set from real photographs.

    Example: hpsearch data build mini
    """
    store = Workspace(home).store(
        name, progress=lambda done, of, name: out.print(f"{done:>3} of {of}  {name}")
    )
    _describe(store)


@data.command()
def info(
    store: Annotated[str, typer.Argument(help="mini, tiny, or the path of a store.")],
    home: Home = HOME,
) -> None:
    """Say what a patch store holds.

    Example: hpsearch data info mini
    """
    _describe(Workspace(home).store(store))


def _describe(store: PatchStore) -> None:
    points = sum(store.counts)
    out.print(f"{store.path}", soft_wrap=True)
    out.print(f"  sequences    {len(store.names)}, {points:,} points, {16 * points:,} patches")
    out.print(f"  points each  {min(store.counts)} to {max(store.counts)}")
    out.print(f"  noise        σ of ref and easy / hard / tough: {store.meta.noise}")
    out.print(f"  fingerprint  {store.fingerprint[:16]}")
    out.print(f"  size         {Path(store.path).stat().st_size / 1e6:.0f} MB")
    split = store.split()
    for part in ("train", "validation", "test"):
        out.print(f"  {part:<12} {' '.join(split.part(part))}", soft_wrap=True)  # type: ignore[arg-type]
