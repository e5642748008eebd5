"""Reader of patch stores: memory-mapping, and checks of what a file claims to contain."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hpsearch.data.arrow_header import (
    READABLE_VERSIONS,
    Header,
    PointViews,
    from_metadata,
    version_of,
)
from hpsearch.data.arrow_writer import side_columns
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE
from hpsearch.shapes import Int, UInt8
from hpsearch.untrusted import reason


class MappedStore(NamedTuple):
    """Memory-mapped store; the pixels are read-only views of the file."""

    header: Header
    clean: UInt8[np.ndarray, "rows 32 32"]
    noisy: UInt8[np.ndarray, "rows 32 32"]
    views: list[PointViews] | None
    """Views of the points of each sequence; None for the 16 views of HPatches."""


def map_store(path: Path, content: pa.Buffer | None = None) -> MappedStore:
    """Map a store file; no pixel is read.

    Args:
        path: path of the file.
        content: content of the file, if this machine has it in memory and not on disk.

    Raises:
        UserError: if the file is missing, is not a complete patch store, or has another version.
    """
    if content is None and not path.is_file():
        raise UserError(
            f"no patch store at {path}; make one with `hpsearch data import` or `data photos`"
        )
    with _translate_errors(path):
        header, batch = _read_batch(path, content)
        _check_sizes(header, batch)
        shape = (sum(header.rows), SIDE, SIDE)
        clean, noisy = (
            np.frombuffer(batch.column(name).buffers()[1], np.uint8).reshape(shape)
            for name in ("clean", "noisy")
        )
        return MappedStore(header, clean, noisy, _point_views(header, batch))


def check_columns(path: Path) -> None:
    """Check the columns other than the pixels against the header.

    Raises:
        UserError: if they differ.
    """
    with _translate_errors(path):
        header, batch = _read_batch(path)
        batch.validate(full=True)
        views = _point_views(header, batch)
        for name, column in side_columns(header.names, header.counts, views).items():
            if not batch.column(name).equals(column):
                raise ValueError(f"its column {name!r} has changed")


def corrupt_store_error(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a usable patch store ({why}); give another file, or, if it was one, "
        "build or import it again"
    )


@contextlib.contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Translate any error of reading a damaged file into a ``UserError``."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # a reader of crafted bytes may raise anything
        raise corrupt_store_error(path, reason(e)) from e


def _check_sizes(header: Header, batch: pa.RecordBatch) -> None:
    """Check types and lengths of all columns against the header before they are used.

    Raises:
        ValueError: if one does not match.
    """
    batch.validate()
    rows = sum(header.rows)
    for name in ("clean", "noisy"):
        column = batch.column(name)
        if column.type != pa.binary(SIDE * SIDE) or len(column) != rows or column.offset:
            raise ValueError(f"its column {name!r} does not contain the expected {rows:,} patches")


def _read_batch(path: Path, content: pa.Buffer | None = None) -> tuple[Header, pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)) if content is None else content)
    metadata = reader.schema.metadata or {}
    version = version_of(metadata)
    if version is None:
        raise ValueError("it contains no patches")
    if version not in READABLE_VERSIONS:
        raise UserError(
            f"{path} has schema version {version}, but hpsearch reads "
            f"{' and '.join(READABLE_VERSIONS)}; update hpsearch, or build or import it again"
        )
    return from_metadata(metadata), reader.get_batch(0)


def _point_views(header: Header, batch: pa.RecordBatch) -> list[PointViews] | None:
    """Views and pairs of each sequence from the columns of the store.

    Raises:
        ValueError: if they contradict each other or the header.
    """
    if header.patches is None:
        return None
    for name, kind in (("view", pa.int32()), ("pairs", pa.list_(pa.int32()))):
        batch.column(name).validate(full=True)
        if batch.column(name).type != kind or batch.column(name).null_count:
            raise ValueError(f"its column {name!r} has another type")
    first = np.flatnonzero(batch.column("view").to_numpy() == 0)
    stops = np.cumsum(header.patches)
    starts, ends = stops - header.patches, np.searchsorted(first, stops)
    if not np.array_equal(ends, np.cumsum(header.counts)):
        raise ValueError("its points are not those of its header")
    if not np.isin(starts, first).all():
        raise ValueError("one of its sequences does not begin with a point")
    pairs = _pairs(batch.column("pairs"))
    of_pair = np.searchsorted(stops, pairs, side="right")
    if (of_pair[:, 0] != of_pair[:, 1]).any():
        raise ValueError("one of its pairs is of two sequences")
    counts = np.split(np.diff(first, append=stops[-1]), ends[:-1])
    return [
        PointViews(own, pairs[of_pair[:, 0] == i] - start)
        for i, (own, start) in enumerate(zip(counts, starts, strict=True))
    ]


def _pairs(column: pa.ListArray) -> Int[np.ndarray, "n 2"]:
    second = column.flatten().to_numpy()
    first = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
    if len(second) and not 0 <= second.min() <= second.max() < len(column):
        raise ValueError("one of its pairs is of a patch that it does not contain")
    return np.column_stack([first, second.astype(np.int64)])
