"""What the evaluation compares: pairs to verify, queries and distractors to retrieve.

Matching needs no list: it takes every reference patch of every sequence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation.views import IMAGES
from hpsearch.shapes import Int

PAIR_COLUMNS = ("s1", "t1", "idx1", "s2", "t2", "idx2")
POINT_COLUMNS = ("s", "idx")

MIN_PAIRS = 5
"""The imbalanced list takes the first fifth of the positives, which must not be empty."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tasks:
    """One set of lists over the sequences ``names``.

    Pairs are rows ``sequence, image, point, sequence, image, point`` with 0-based indices; an image
    is 0 (reference) or 1..5, and the level being scored says which of its three views is meant.
    Order matters everywhere: ties keep it, pools and the imbalanced list are prefixes.
    """

    names: tuple[str, ...]
    positives: Int[np.ndarray, "n 6"]
    inter: Int[np.ndarray, "n 6"]
    """Negatives whose second patch is drawn from any (official) or another (ours) sequence."""
    intra: Int[np.ndarray, "n 6"]
    """Negatives whose second patch is another point of the same sequence."""
    queries: Int[np.ndarray, "q 2"]
    """Rows ``sequence, point``; the query is the point's reference patch."""
    distractors: Int[np.ndarray, "d 2"]

    def lists(self) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
        """Name, columns and rows of each of the five lists."""
        yield "positives", PAIR_COLUMNS, self.positives
        yield "inter", PAIR_COLUMNS, self.inter
        yield "intra", PAIR_COLUMNS, self.intra
        yield "queries", POINT_COLUMNS, self.queries
        yield "distractors", POINT_COLUMNS, self.distractors

    def check(self, counts: Sequence[int]) -> None:
        """Raise UserError, naming list and row, where a row points outside ``counts`` points."""
        if len(counts) != len(self.names):
            raise UserError(
                f"the tasks are about {len(self.names)} sequences, got {len(counts)} sequences"
            )
        for name, columns, rows in self.lists():
            if rows.ndim != 2 or rows.shape[1] != len(columns):
                raise UserError(f"{name} must have the columns {','.join(columns)}")
            problem = first_outside(rows, columns, names=self.names, counts=counts)
            if problem:
                raise UserError(f"{name}, row {problem[0]} (0-based): {problem[1]}")
        if not len(self.inter) == len(self.intra) == len(self.positives) >= MIN_PAIRS:
            raise UserError(
                "positives, inter and intra must be equally long, at least "
                f"{MIN_PAIRS} rows, got {len(self.positives)}, {len(self.inter)}, {len(self.intra)}"
            )
        if not len(self.queries) or not len(self.distractors):
            raise UserError("queries and distractors must hold at least one row each")


def first_outside(
    rows: Int[np.ndarray, "n c"],
    columns: Sequence[str],
    *,
    names: Sequence[str],
    counts: Sequence[int],
) -> tuple[int, str] | None:
    """Index of the first row that points outside the set and what is wrong with it, or None."""
    sizes = np.asarray(counts)
    limits = np.empty_like(rows)
    for column, name in enumerate(columns):
        if name.startswith("s"):
            limits[:, column] = len(names)
        elif name.startswith("t"):
            limits[:, column] = IMAGES + 1
        else:
            sequence = rows[:, 0 if column < 3 else 3]
            limits[:, column] = sizes[np.clip(sequence, 0, len(names) - 1)]
    outside = (rows < 0) | (rows >= limits)
    if not outside.any():
        return None
    row = int(np.argmax(outside.any(axis=1)))
    column = int(np.argmax(outside[row]))
    sequence = names[int(np.clip(rows[row, 0 if column < 3 else 3], 0, len(names) - 1))]
    allowed = f"0..{limits[row, column] - 1}"
    of = f" of {sequence}" if columns[column].startswith("idx") else ""
    return row, f"{columns[column]} is {rows[row, column]}, allowed is {allowed}{of}"
