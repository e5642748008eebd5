"""Descriptor files: reading and writing of CSV, npy and Parquet."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from hpsearch.atomic_files import check_target_file, check_target_folder
from hpsearch.defaults import SPEC_FILE
from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES
from hpsearch.shapes import Bool, Float, Int, Num
from hpsearch.untrusted import is_clutter

FILE_SUFFIXES = (".npy", ".parquet", ".onnx", ".png", ".npz")
"""Suffixes of outputs that are one file; any other output is a folder."""
SEPARATORS = (",", ";")


def read_descriptors(
    folder: Path, names: Sequence[str] | None = None
) -> dict[str, Float[np.ndarray, "n 16 d"]]:
    """Read descriptors by sequence, float32 as in the official tool; separator ``,`` or ``;``.

    Args:
        folder: folder with ``SEQUENCE/VIEW.csv``.
        names: sequences to read; default: every sub-folder, sorted.

    Raises:
        UserError: naming file and row: a missing view, unequal rows or dimensions, NaN, a value
            that is not a number, another separator, a header of numbers, a column of row numbers.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give DESC of DESC/SEQUENCE/VIEW.csv")
    if names is None:
        folders = (path.name for path in folder.iterdir() if path.is_dir())
        names = sorted(name for name in folders if not is_clutter(Path(name)))
    if not names:
        raise UserError(f"{folder} contains no sequences: expected DESC/SEQUENCE/VIEW.csv")
    found = {name: _read_sequence(folder / name) for name in names}
    dimension = found[names[0]].shape[2]
    for name, array in found.items():
        if array.shape[2] != dimension:
            raise UserError(
                f"{folder / name}: dimension {array.shape[2]}, but {dimension} in {names[0]}"
            )
    return found


def write_descriptors(
    folder: Path, descriptors: Mapping[str, Num[np.ndarray, "n 16 d"]], *, separator: str = ","
) -> None:
    """Write every view with five decimals, as the official tool does (``%10.5f``).

    Raises:
        UserError: if the separator is neither ``,`` nor ``;``.
    """
    if separator not in SEPARATORS:
        raise UserError(f"the separator must be one of {' '.join(SEPARATORS)}, got {separator!r}")
    for name, array in descriptors.items():
        for view in VIEW_NAMES:
            (Path(folder) / name / f"{view}.csv").unlink(missing_ok=True)
        append_descriptors(Path(folder) / name, array, separator=separator)


def append_descriptors(
    sequence: Path, rows: Num[np.ndarray, "n 16 d"], *, separator: str = ","
) -> None:
    """Append points of a sequence to its files, which are created if missing."""
    sequence.mkdir(parents=True, exist_ok=True)
    for view, found in zip(VIEW_NAMES, rows.swapaxes(0, 1), strict=True):
        with (sequence / f"{view}.csv").open("a") as file:
            np.savetxt(file, found, fmt="%10.5f", delimiter=separator)


def _read_sequence(folder: Path) -> Float[np.ndarray, "n 16 d"]:
    views = [_read_view(folder / f"{view}.csv") for view in VIEW_NAMES]
    for view, rows in zip(VIEW_NAMES, views, strict=True):
        if rows.shape != views[0].shape:
            raise UserError(
                f"{folder / view}.csv: {rows.shape[0]} rows × {rows.shape[1]} values, but "
                f"{views[0].shape[0]} × {views[0].shape[1]} in ref.csv"
            )
    return np.stack(views, axis=1)


def _read_view(path: Path) -> Float[np.ndarray, "n d"]:
    separator, dimension = _csv_format(path)
    columns = [str(i) for i in range(dimension)]
    try:
        table = csv.read_csv(
            path,
            # one thread, because otherwise errors do not name their row
            read_options=csv.ReadOptions(column_names=columns, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.float64())),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a table of numbers: {error}") from error
    with np.errstate(over="ignore"):  # overflow becomes infinity, which is rejected below
        rows = np.stack([table[i].to_numpy() for i in range(dimension)], axis=1, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise UserError(f"{path}, row {wrong[0] + 1}: NaN, infinity or an empty value")
    _check_counting(path, rows)
    return rows


MIN_COUNTED = 3
"""Numbers in a row, such as 0, 1, 2, from which on they are taken for a count."""


def _check_counting(path: Path, rows: Float[np.ndarray, "n d"]) -> None:
    """Check that no row counts columns and no column counts rows."""
    header = rows[0]
    for names in (header, header[1:]):  # the second of a header above an index column
        if len(names) >= MIN_COUNTED and _counts(names[:, None])[0] and names[0] in (0, 1):
            raise UserError(
                f"{path}, row 1 holds the column numbers {names[0]:g}, {names[1]:g}, "
                f"{names[2]:g}, …: remove this header line, because every row is a descriptor"
            )
    if len(rows) < MIN_COUNTED:
        return
    counting = np.flatnonzero(_counts(rows))
    if len(counting):
        first = rows[:3, counting[0]]
        raise UserError(
            f"{path}, column {counting[0] + 1} counts rows ({first[0]:g}, {first[1]:g}, "
            f"{first[2]:g}, …): remove this index, because every column is part of the descriptor"
        )


def _counts(rows: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " d"]:
    """True for columns of consecutive whole numbers."""
    return (rows[0] == np.round(rows[0])) & (np.diff(rows, axis=0) == 1).all(axis=0)


def _csv_format(path: Path) -> tuple[str, int]:
    """Separator and number of values of the first row."""
    if not path.is_file():
        raise UserError(f"{path} is missing: a sequence needs all {len(VIEW_NAMES)} views")
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    separators = [separator for separator in SEPARATORS if separator in first]
    if len(separators) != 1:
        raise UserError(
            f"{path}, row 1: values must be separated by , or ; (one of them), got {first[:60]!r}"
        )
    return separators[0], first.count(separators[0]) + 1


ROWS_PER_GROUP = 16_384
"""Rows per Parquet row group; 8 MB of descriptors of 128 numbers."""


class PatchKeys(NamedTuple):
    """Sequence, point and view of each descriptor."""

    sequence: Sequence[str] | None
    point: Int[np.ndarray, " n"]
    """Point within the sequence, or the row of the input if there are no sequences."""
    view: Int[np.ndarray, " n"] | None
    """Index into ``view_names``."""
    view_names: Sequence[str] = VIEW_NAMES


WriteFn = Callable[[PatchKeys, Float[np.ndarray, "n d"]], None]
"""Function that writes the next rows."""


@dataclass(frozen=True, kw_only=True)
class DescriptorTableSpec:
    """Shape and metadata of a descriptor table to be written."""

    rows: int
    descriptor_dim: int
    metadata: Mapping[str, str]
    """Metadata of a Parquet file."""


@contextmanager
def descriptor_output(
    output: Path, spec: DescriptorTableSpec, *, force: bool = False
) -> Iterator[WriteFn]:
    """Open an output by its suffix: ``.npy``, ``.parquet``, else a folder ``SEQUENCE/VIEW.csv``.

    Args:
        output: file or folder; its parent folder is created if missing.
        spec: shape of the table; the written rows must add up to it.
        force: True to replace an existing output.

    Raises:
        UserError: if the output exists, or the disk reports an error.
    """
    kinds = {".npy": _npy_writer, ".parquet": _parquet_writer}
    with (
        atomic_output(output, force=force) as draft,
        kinds.get(output.suffix, _csv_writer)(draft, spec) as write,
    ):
        yield write


def is_descriptor_folder(ref: str) -> bool:
    """Return whether a path is, or is meant to be, a folder in the official layout."""
    path = Path(ref)
    return path.is_dir() and not (path / SPEC_FILE).is_file()


def check_can_write(output: Path, *, force: bool) -> None:
    """Check that an output may be written.

    Raises:
        UserError: if a file or folder exists that must not be replaced, or the output cannot be
            written.
    """
    is_file = output.suffix in FILE_SUFFIXES
    if not output.exists():
        check = check_target_file if is_file else check_target_folder
        return check(output, "--output")
    if output.is_dir() and not any(output.iterdir()):
        return
    if output.exists() and not force:
        raise UserError(
            f"{output} exists already; choose another --output, or replace it with --force"
        )
    if output.is_dir() and not (
        _holds_descriptors(output) and output.suffix not in (".npy", ".parquet")
    ):
        raise UserError(
            f"{output} contains other files than descriptors, so --force does not replace it; "
            "choose another output"
        )


@contextmanager
def atomic_output(output: Path, *, force: bool) -> Iterator[Path]:
    """Yield a draft path whose file or folder replaces ``output`` at the end, or is removed.

    Raises:
        UserError: as ``check_can_write``, or if the disk reports an error.
    """
    check_can_write(output, force=force)
    draft = output.with_name(f".{output.name}.{uuid4().hex[:8]}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        if output.is_dir():
            old = output.rename(draft.with_suffix(".old"))
            draft.rename(output)
            _remove_path(old)
        else:
            draft.rename(output)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{output} cannot be written ({why}); choose another output") from error
    finally:
        _remove_path(draft)


@contextmanager
def _npy_writer(draft: Path, spec: DescriptorTableSpec) -> Iterator[WriteFn]:
    header = {"descr": "<f4", "fortran_order": False, "shape": (spec.rows, spec.descriptor_dim)}
    with draft.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)

        def write(keys: PatchKeys, found: Float[np.ndarray, "n d"]) -> None:
            file.write(found.astype("<f4").tobytes())

        yield write


@contextmanager
def _parquet_writer(draft: Path, spec: DescriptorTableSpec) -> Iterator[WriteFn]:
    schema = pa.schema(
        [
            ("sequence", pa.dictionary(pa.int32(), pa.string())),
            ("point", pa.int64()),
            ("view", pa.dictionary(pa.int32(), pa.string())),
            ("descriptor", pa.list_(pa.float32(), spec.descriptor_dim)),
        ],
        metadata={f"hpsearch.{name}": value for name, value in spec.metadata.items()},
    )
    pending: list[pa.Table] = []
    # Descriptors do not compress, and dictionaries do not help: both would only take time.
    with parquet.ParquetWriter(
        draft,
        schema,
        compression="none",
        use_dictionary=["sequence", "view"],  # type: ignore[arg-type]  the stubs expect a bool
    ) as writer:

        def write(keys: PatchKeys, found: Float[np.ndarray, "n d"]) -> None:
            pending.append(pa.Table.from_arrays(_columns(keys, found), schema=schema))
            if sum(len(part) for part in pending) >= ROWS_PER_GROUP:
                writer.write_table(pa.concat_tables(pending).unify_dictionaries())
                pending.clear()

        yield write
        if pending:
            writer.write_table(pa.concat_tables(pending).unify_dictionaries())


def _columns(keys: PatchKeys, found: Float[np.ndarray, "n d"]) -> list[pa.Array]:
    views = None if keys.view is None else np.array(keys.view_names)[keys.view].tolist()
    return [
        _name_array(keys.sequence, len(found)),
        pa.array(keys.point, pa.int64()),
        _name_array(views, len(found)),
        pa.FixedSizeListArray.from_arrays(pa.array(found.ravel(), pa.float32()), found.shape[1]),
    ]


def _name_array(names: Sequence[str] | None, count: int) -> pa.Array:
    return pa.array([None] * count if names is None else names, pa.string()).dictionary_encode()


@contextmanager
def _csv_writer(draft: Path, spec: DescriptorTableSpec) -> Iterator[WriteFn]:
    draft.mkdir()

    def write(keys: PatchKeys, found: Float[np.ndarray, "n d"]) -> None:
        assert keys.sequence is not None, "CSV output requires sequences and points"
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


def _remove_path(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
