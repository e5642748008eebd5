"""Descriptors written as they come: a .npy file, Parquet, or the layout of the official tool.

An output is written beside its place and put there when it is whole; whatever stops it before
that, the draft is removed and what stood there still does. Memory is that of one row group.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from hpsearch.errors import UserError
from hpsearch.evaluation.descriptor_files import append_descriptors
from hpsearch.evaluation.views import VIEW_NAMES
from hpsearch.shapes import Float, Int

ROW_GROUP = 16_384
"""Rows; 8 MB of descriptors of 128 numbers."""


class Keys(NamedTuple):
    """Which patches some descriptors are of."""

    sequence: Sequence[str] | None
    point: Int[np.ndarray, " n"]
    """Within the sequence; the row of the input where there are no sequences."""
    view: Int[np.ndarray, " n"] | None
    """Into ``VIEW_NAMES``."""


Write = Callable[[Keys, Float[np.ndarray, "n d"]], None]
"""Takes the next rows."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is to be written."""

    rows: int
    dimensions: int
    facts: Mapping[str, str]
    """Kept in the metadata of a Parquet file."""


@contextmanager
def descriptor_output(to: Path, table: Table, *, force: bool = False) -> Iterator[Write]:
    """Open an output by its name: ``.npy``, ``.parquet``, else a folder ``TO/SEQUENCE/VIEW.csv``.

    Args:
        to: its folder is made if it is missing.
        table: what is to be written; rows that come must add up to it.
        force: whether an output that is there is replaced.

    Raises:
        UserError: if it is there already, or the disk refuses.
    """
    kinds = {".npy": _npy, ".parquet": _parquet}
    with drafted(to, force=force) as draft, kinds.get(to.suffix, _official)(draft, table) as write:
        yield write


def refuse_existing(to: Path, *, force: bool) -> None:
    """Make sure that an output may be written.

    Raises:
        UserError: if there is something that must not be replaced.
    """
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists() and not force:
        raise UserError(f"{to} exists already; choose another --to, or replace it with --force")
    if to.is_dir() and not (_holds_descriptors(to) and to.suffix not in (".npy", ".parquet")):
        raise UserError(f"{to} holds more than descriptors, so --force leaves it; choose another")


@contextmanager
def drafted(to: Path, *, force: bool) -> Iterator[Path]:
    """A path beside ``to`` whose file or folder takes its place at the end, or is removed.

    Raises:
        UserError: as ``refuse_existing``, or if the disk refuses.
    """
    refuse_existing(to, force=force)
    draft = to.with_name(f".{to.name}.{uuid4().hex[:8]}.part")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        if to.is_dir():
            old = to.rename(draft.with_suffix(".old"))
            draft.rename(to)
            _remove(old)
        else:
            draft.rename(to)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{to} cannot be written ({why}); choose another place") from error
    finally:
        _remove(draft)


@contextmanager
def _npy(draft: Path, table: Table) -> Iterator[Write]:
    header = {"descr": "<f4", "fortran_order": False, "shape": (table.rows, table.dimensions)}
    with draft.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)

        def write(keys: Keys, found: Float[np.ndarray, "n d"]) -> None:
            file.write(found.astype("<f4").tobytes())

        yield write


@contextmanager
def _parquet(draft: Path, table: Table) -> Iterator[Write]:
    schema = pa.schema(
        [
            ("sequence", pa.dictionary(pa.int32(), pa.string())),
            ("point", pa.int64()),
            ("view", pa.dictionary(pa.int32(), pa.string())),
            ("descriptor", pa.list_(pa.float32(), table.dimensions)),
        ],
        metadata={f"hpsearch.{name}": value for name, value in table.facts.items()},
    )
    waiting: list[pa.Table] = []
    # Descriptors neither repeat nor compress: trying to would only take time.
    with parquet.ParquetWriter(
        draft,
        schema,
        compression="none",
        use_dictionary=["sequence", "view"],  # type: ignore[arg-type]  the stubs want a bool
    ) as writer:

        def write(keys: Keys, found: Float[np.ndarray, "n d"]) -> None:
            waiting.append(pa.Table.from_arrays(_columns(keys, found), schema=schema))
            if sum(len(part) for part in waiting) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(waiting).unify_dictionaries())
                waiting.clear()

        yield write
        if waiting:
            writer.write_table(pa.concat_tables(waiting).unify_dictionaries())


def _columns(keys: Keys, found: Float[np.ndarray, "n d"]) -> list[pa.Array]:
    views = None if keys.view is None else np.array(VIEW_NAMES)[keys.view].tolist()
    return [
        _names(keys.sequence, len(found)),
        pa.array(keys.point, pa.int64()),
        _names(views, len(found)),
        pa.FixedSizeListArray.from_arrays(pa.array(found.ravel(), pa.float32()), found.shape[1]),
    ]


def _names(names: Sequence[str] | None, count: int) -> pa.Array:
    return pa.array([None] * count if names is None else names, pa.string()).dictionary_encode()


@contextmanager
def _official(draft: Path, table: Table) -> Iterator[Write]:
    draft.mkdir()

    def write(keys: Keys, found: Float[np.ndarray, "n d"]) -> None:
        assert keys.sequence is not None, "the caller asks for a layout that the input has"
        names = np.array(keys.sequence)
        for name in dict.fromkeys(keys.sequence):
            own = found[names == name]
            append_descriptors(draft / name, own.reshape(-1, len(VIEW_NAMES), own.shape[1]))

    yield write


def _holds_descriptors(folder: Path) -> bool:
    return all(
        path.is_dir() and all(file.suffix == ".csv" for file in path.iterdir())
        for path in folder.iterdir()
    )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
