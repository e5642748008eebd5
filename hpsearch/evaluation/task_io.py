"""Reading and writing task lists in the official CSV format.

Files: ``verif_pos_split-X.csv``, ``verif_neg_inter_split-X.csv``, ``verif_neg_intra_split-X.csv``
(columns ``s1,t1,idx1,s2,t2,idx2``), ``retr_queries_split-X.csv``, ``retr_distractors_split-X.csv``
(columns ``s,idx``); sequences by name, everything else a 0-based index.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from hpsearch.errors import UserError
from hpsearch.evaluation.tasks import PAIR_COLUMNS, POINT_COLUMNS, Tasks, first_outside
from hpsearch.shapes import Int

TASK_FILES = {
    "positives": "verif_pos_split-{}.csv",
    "inter": "verif_neg_inter_split-{}.csv",
    "intra": "verif_neg_intra_split-{}.csv",
    "queries": "retr_queries_split-{}.csv",
    "distractors": "retr_distractors_split-{}.csv",
}

FIRST_DATA_LINE = 2
"""Line number of the first row after the header."""


def read_tasks(folder: Path, split: str, *, names: Sequence[str], counts: Sequence[int]) -> Tasks:
    """Read the tasks of a split, with indices checked against the points of each sequence.

    Args:
        folder: folder of the task files.
        split: name of the split.
        names: sequences in the order of the descriptors.
        counts: number of points of each sequence.

    Raises:
        UserError: naming file and line: missing file, wrong header or separator, an unknown
            sequence, an index that is not a number or is outside its sequence.
    """
    lists = {}
    for role, pattern in TASK_FILES.items():
        path = Path(folder) / pattern.format(split)
        columns = PAIR_COLUMNS if role in ("positives", "inter", "intra") else POINT_COLUMNS
        lists[role] = _read_task_rows(path, columns, names=names)
        problem = first_outside(lists[role], columns, names=names, counts=counts)
        if problem:
            raise UserError(f"{path}, line {problem[0] + FIRST_DATA_LINE}: {problem[1]}")
    tasks = Tasks(names=tuple(names), **lists)
    tasks.check(counts)
    return tasks


def write_tasks(tasks: Tasks, folder: Path, split: str) -> None:
    """Write the five official files of a split into a folder, which is created if missing."""
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
        with (folder / TASK_FILES[role].format(split)).open("wb") as file:
            file.write((",".join(columns) + "\n").encode())
            csv.write_csv(table, file, lines)


def _read_task_rows(
    path: Path, columns: Sequence[str], *, names: Sequence[str]
) -> Int[np.ndarray, "n c"]:
    _check_csv_header(path, columns)
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),  # for line numbers in errors
            convert_options=csv.ConvertOptions(
                column_types={name: pa.string() for name in columns}
            ),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not a task file: {error}") from error
    of_name = {name: index for index, name in enumerate(names)}
    rows = np.empty((table.num_rows, len(columns)), np.int32)
    for i, column in enumerate(columns):
        known = of_name if column.startswith("s") else None
        rows[:, i] = _parse_indices(
            table[column].combine_chunks(), known=known, where=f"{path}, {column}"
        )
    return rows


def _check_csv_header(path: Path, columns: Sequence[str]) -> None:
    if not path.is_file():
        raise UserError(
            f"task file {path} is missing: give the folder with the five files of the split"
        )
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().strip()
    if header != ",".join(columns):
        separator = ", with commas" if "," not in header else ""
        raise UserError(
            f"{path}, line 1: the header must be {','.join(columns)}{separator}, "
            f"got {header[:80]!r}"
        )


def _parse_indices(
    column: pa.StringArray, *, known: dict[str, int] | None, where: str
) -> Int[np.ndarray, " n"]:
    """Parse a column: each distinct value once, the rows by an array index."""
    encoded = column.dictionary_encode()
    rows = encoded.indices.to_numpy()
    values = encoded.dictionary.to_pylist()
    indices = [
        known.get(value, -1) if known is not None else _parse_index(value) for value in values
    ]
    wrong = np.flatnonzero(np.array(indices, np.int64)[rows] < 0)
    if len(wrong):
        what = "an index (0, 1, 2, …)" if known is None else "one of the sequences given"
        value = values[rows[wrong[0]]]
        raise UserError(f"{where}, line {wrong[0] + FIRST_DATA_LINE}: {value!r} is not {what}")
    return np.array(indices, np.int32)[rows]


def _parse_index(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
