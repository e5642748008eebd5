"""Reading and writing task lists in the official CSV format.

Files: ``verif_pos_split-X.csv``, ``verif_neg_inter_split-X.csv``, ``verif_neg_intra_split-X.csv``
(columns ``s1,t1,idx1,s2,t2,idx2``), ``retr_queries_split-X.csv``, ``retr_distractors_split-X.csv``
(columns ``s,idx``); sequences by name, everything else a 0-based index.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from hpsearch.errors import UserError
from hpsearch.evaluation.tasks import PAIR_COLUMNS, POINT_COLUMNS, Tasks, first_outside
from hpsearch.shapes import Int

FILES = {
    "positives": "verif_pos_split-{}.csv",
    "inter": "verif_neg_inter_split-{}.csv",
    "intra": "verif_neg_intra_split-{}.csv",
    "queries": "retr_queries_split-{}.csv",
    "distractors": "retr_distractors_split-{}.csv",
}

FIRST_LINE = 2
"""Line number of the first row, the header being line 1."""


def read_tasks(folder: Path, split: str, *, names: Sequence[str], counts: Sequence[int]) -> Tasks:
    """Tasks of a split, indices checked against the points that each sequence has.

    Args:
        names: sequences in the order in which descriptors will be given.
        counts: points of each sequence.

    Raises:
        UserError: naming file and line: missing file, wrong header or separator, an unknown
            sequence, an index that is not a number or points outside its sequence.
    """
    lists = {}
    for role, pattern in FILES.items():
        path = Path(folder) / pattern.format(split)
        columns = PAIR_COLUMNS if role in ("positives", "inter", "intra") else POINT_COLUMNS
        lists[role] = _read_rows(path, columns, names=names)
        problem = first_outside(lists[role], columns, names=names, counts=counts)
        if problem:
            raise UserError(f"{path}, line {problem[0] + FIRST_LINE}: {problem[1]}")
    tasks = Tasks(names=tuple(names), **lists)
    tasks.check(counts)
    return tasks


def write_tasks(tasks: Tasks, folder: Path, split: str) -> None:
    """Write the five official files of a split into a folder (made where missing)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    dictionary = pa.array(tasks.names)
    for role, columns, rows in tasks.lists():
        table = pa.table(
            {
                name: dictionary.take(pa.array(rows[:, i]))
                if name.startswith("s")
                else pa.array(rows[:, i])
                for i, name in enumerate(columns)
            }
        )
        lines = csv.WriteOptions(include_header=False, quoting_style="none")
        with (folder / FILES[role].format(split)).open("wb") as file:
            file.write((",".join(columns) + "\n").encode())
            csv.write_csv(table, file, lines)


def _read_rows(
    path: Path, columns: Sequence[str], *, names: Sequence[str]
) -> Int[np.ndarray, "n c"]:
    _check_header(path, columns)
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),  # only so do errors name their line
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in columns}
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a task file: {error}") from error
    rows = np.empty((table.num_rows, len(columns)), np.int32)
    for i, name in enumerate(columns):
        column = table[name].combine_chunks()
        known = pa.array(names) if name.startswith("s") else None
        rows[:, i] = _indices(column, known=known, where=f"{path}", name=name)
    return rows


def _check_header(path: Path, columns: Sequence[str]) -> None:
    if not path.is_file():
        raise UserError(
            f"task file {path} is missing: give the folder with the five files of the split"
        )
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().strip()
    if header != ",".join(columns):
        separator = " (its separator must be a comma)" if "," not in header else ""
        raise UserError(
            f"{path}, line 1: the header must be {','.join(columns)}{separator}, got {header[:80]!r}"
        )


def _indices(
    column: pa.Array, *, known: pa.Array | None, where: str, name: str
) -> Int[np.ndarray, " n"]:
    if known is not None:
        found = pc.index_in(column, known)
        wrong = pc.is_null(found)
        what = "is not one of the sequences given"
    else:
        trimmed = pc.utf8_trim_whitespace(column)
        wrong = pc.invert(pc.match_substring_regex(trimmed, r"^\d{1,9}$"))
        found = pc.if_else(wrong, "0", trimmed).cast(pa.int32())
        what = "is not an index (0, 1, 2, …)"
    rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False))
    if len(rows):
        value = column[int(rows[0])].as_py()
        raise UserError(f"{where}, line {rows[0] + FIRST_LINE}: {name} {value!r} {what}")
    return found.to_numpy(zero_copy_only=False)
