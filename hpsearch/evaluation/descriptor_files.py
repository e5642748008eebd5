"""Descriptors in the layout of the official tool: ``DESC/SEQUENCE/VIEW.csv``, one row a patch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from hpsearch.errors import UserError
from hpsearch.evaluation.views import VIEW_NAMES
from hpsearch.shapes import Float, Num

SEPARATORS = (",", ";")


def read_descriptors(
    folder: Path, names: Sequence[str] | None = None
) -> dict[str, Float[np.ndarray, "n 16 d"]]:
    """Descriptors by sequence in float32, as the official tool casts them; ``,`` or ``;`` separate.

    Args:
        names: sequences to read; default: every sub-folder, sorted.

    Raises:
        UserError: naming file and row: a missing view, unequal rows or dimensions, NaN, a value
            that is no number, another separator.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give DESC of DESC/SEQUENCE/VIEW.csv")
    if names is None:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise UserError(f"{folder} holds no sequences: expected DESC/SEQUENCE/VIEW.csv")
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
    """Write the next points of a sequence to the end of its files, or begin them."""
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
    separator, dimension = _form(path)
    columns = [str(i) for i in range(dimension)]
    try:
        table = csv.read_csv(
            path,
            # one thread: only so do errors name their row
            read_options=csv.ReadOptions(column_names=columns, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.float64())),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a table of numbers: {error}") from error
    with np.errstate(over="ignore"):  # beyond float32 becomes infinity, which is refused below
        rows = np.stack([table[i].to_numpy() for i in range(dimension)], axis=1, dtype=np.float32)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise UserError(f"{path}, row {wrong[0] + 1}: NaN, infinity or an empty value")
    return rows


def _form(path: Path) -> tuple[str, int]:
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
