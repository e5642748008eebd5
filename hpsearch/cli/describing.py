"""From patches to descriptors on disk, part by part."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hpsearch.cli.app import err
from hpsearch.cli.data import progress_bar
from hpsearch.cli.describe_sources import Source, from_array, from_folder, from_store
from hpsearch.data.embedded import RECIPES
from hpsearch.errors import UserError
from hpsearch.evaluation.descriptor_outputs import Table, descriptor_output
from hpsearch.models.ensemble import Ensemble, length
from hpsearch.models.pipeline import Pipeline
from hpsearch.models.serving import describe_any
from hpsearch.search.workspace import Workspace
from hpsearch.training.devices import choose_device

FILES = (".npy", ".parquet")


def open_source(words: str, workspace: Workspace, *, clean: bool) -> Source:
    """Patches by a path or an embedded set's name.

    Raises:
        UserError: if there is nothing of the kind, or it is damaged.
    """
    path = Path(words)
    if words not in RECIPES and path.is_dir():
        return from_folder(path, clean=clean)
    if path.suffix == ".npy":
        return from_array(path)
    if path.suffix.lower() in (".png", ".jpg", ".jpeg") and path.exists():
        raise UserError(f"{path} is one picture; give the folder with the strips or patches")
    with progress_bar("building patches") as advance:
        return from_store(workspace.store(words, progress=advance), clean=clean)


def refuse_layout(source: Source, to: Path) -> None:
    """Make sure that what is read can be written as ``to`` asks for.

    Raises:
        UserError: if it cannot.
    """
    if to.suffix in FILES:
        return
    if to.suffix and not to.is_dir():
        raise UserError(
            f"{to.suffix} is no output; give --to a .npy file, a .parquet file, or a folder"
        )
    if not source.whole_points:
        raise UserError(
            f"{source.said} have no sequences and views, which the official layout needs; give "
            "--to a .npy or .parquet file"
        )


def describe_source(
    pipeline: Pipeline | Ensemble, source: Source, to: Path, *, model: str, force: bool
) -> str:
    """Write the descriptors of all patches; what to say about it.

    Raises:
        UserError: if a patch is none, a descriptor is not finite, or the disk refuses.
    """
    device = choose_device("auto")
    dimensions = length(pipeline)
    table = Table(
        rows=source.total,
        dimensions=dimensions,
        facts={"model": model, "patches": source.said},
    )
    pipeline.to(device)
    begun, done = time.monotonic(), 0
    with _bar(source.total) as advance, descriptor_output(to, table, force=force) as write:
        for keys, pixels in source.parts():
            found = describe_any(pipeline, pixels, device=device)
            if not np.isfinite(found).all():
                raise UserError(f"{model} gives NaN for these patches; its weights are damaged")
            write(keys, found)
            done += len(found)
            advance(done)
    rate = done / max(time.monotonic() - begun, 1e-9)
    where = to if to.suffix in FILES else f"{to}/SEQUENCE/VIEW.csv"
    return f"{done:,} descriptors of {dimensions} numbers in {where}: {rate:,.0f} patches a second"


@contextmanager
def _bar(total: int) -> Iterator:
    """A bar with patches a second on a terminal; nothing in a file."""
    columns = (
        TextColumn("describing"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} patches"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        shown = bar.add_task("describing", total=total, rate=0.0)

        def advance(done: int) -> None:
            bar.update(shown, completed=done, rate=bar.tasks[0].speed or 0.0)

        yield advance
