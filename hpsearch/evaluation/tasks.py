"""Task lists of the HPatches protocol, and their sampling."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpsearch.errors import UserError
from hpsearch.patch_views import IMAGES_PER_LEVEL
from hpsearch.shapes import Float, Int

PAIR_COLUMNS = ("s1", "t1", "idx1", "s2", "t2", "idx2")
POINT_COLUMNS = ("s", "idx")

MIN_PAIR_COUNT = 5
"""Minimum number of pairs, so that the first fifth in the imbalanced list is not empty."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Tasks:
    """Task lists over the sequences ``names``.

    Pairs are rows ``sequence, image, point, sequence, image, point`` with 0-based indices; an image
    is 0 (reference) or 1..5, and the scored level selects one of its three views. The order of all
    lists matters: ties keep it, and pools and the imbalanced list are prefixes.
    """

    names: tuple[str, ...]
    positives: Int[np.ndarray, "n 6"]
    inter: Int[np.ndarray, "n 6"]
    """Negatives whose second patch is of any (official) or another (``sample_tasks``) sequence."""
    intra: Int[np.ndarray, "n 6"]
    """Negatives whose second patch is another point of the same sequence."""
    queries: Int[np.ndarray, "q 2"]
    """Rows ``sequence, point``; the query is the point's reference patch."""
    distractors: Int[np.ndarray, "d 2"]

    def __repr__(self) -> str:
        """Length of each list, without the rows."""
        lengths = ", ".join(f"{name}={len(rows)}" for name, _, rows in self.lists())
        return f"Tasks({lengths}, sequences={len(self.names)})"

    def lists(self) -> Iterator[tuple[str, tuple[str, ...], np.ndarray]]:
        """Name, columns and rows of each of the five lists."""
        yield "positives", PAIR_COLUMNS, self.positives
        yield "inter", PAIR_COLUMNS, self.inter
        yield "intra", PAIR_COLUMNS, self.intra
        yield "queries", POINT_COLUMNS, self.queries
        yield "distractors", POINT_COLUMNS, self.distractors

    def all_but_last_used(self, counts: Sequence[int]) -> bool:
        """Return True if the lists use all points of every sequence but the last of each."""
        starts = np.cumsum([0, *counts])
        used = np.zeros(starts[-1], bool)
        for _, columns, rows in self.lists():
            for sequence in range(0, len(columns), 3):
                used[starts[rows[:, sequence]] + rows[:, min(sequence + 2, len(columns) - 1)]] = (
                    True
                )
        last = starts[1:] - 1
        return min(counts) > 1 and used.sum() == len(used) - len(last) and not used[last].any()

    def check(self, counts: Sequence[int]) -> None:
        """Check all indices against the number of points of each sequence.

        Raises:
            UserError: naming list and row of an index outside its range.
        """
        if len(counts) != len(self.names):
            raise UserError(
                f"the tasks have {len(self.names)} sequences, but the descriptors {len(counts)}"
            )
        for name, columns, rows in self.lists():
            if rows.ndim != 2 or rows.shape[1] != len(columns):
                raise UserError(f"{name} must have the columns {','.join(columns)}")
            problem = first_outside(rows, columns, names=self.names, counts=counts)
            if problem:
                raise UserError(f"{name}, row {problem[0]} (0-based): {problem[1]}")
        if not len(self.inter) == len(self.intra) == len(self.positives) >= MIN_PAIR_COUNT:
            raise UserError(
                "positives, inter and intra must be equally long, at least "
                f"{MIN_PAIR_COUNT} rows, got {len(self.positives)}, {len(self.inter)}, "
                f"{len(self.intra)}"
            )
        if not len(self.queries) or not len(self.distractors):
            raise UserError("queries and distractors must have at least one row each")


def first_outside(
    rows: Int[np.ndarray, "n c"],
    columns: Sequence[str],
    *,
    names: Sequence[str],
    counts: Sequence[int],
) -> tuple[int, str] | None:
    """Index of the first row with an index out of range and the reason, or None."""
    sizes = np.asarray(counts)
    limits = np.empty_like(rows)
    for column, name in enumerate(columns):
        if name.startswith("s"):
            limits[:, column] = len(names)
        elif name.startswith("t"):
            limits[:, column] = IMAGES_PER_LEVEL + 1
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
    return row, f"{columns[column]} is {rows[row, column]}, but must be {allowed}{of}"


MIN_PATCH_STD = 10.0
"""Standard deviation in gray levels at or below which patches are excluded from retrieval."""


@dataclass(frozen=True, kw_only=True)
class TaskSizes:
    """Numbers of pairs, queries and distractors of the task lists."""

    pairs: int
    """Number of rows of each of the three pair lists."""
    queries: int
    distractors: int
    shrinks: bool = False
    """True to shorten queries and distractors if points are too few, instead of an error."""

    def clamped(self, points: int) -> "TaskSizes":
        """Sizes for a set of ``points``: at most a quarter as queries, half as distractors.

        Flat patches, which are known only while sampling, may shrink them further.
        """
        return replace(
            self,
            queries=min(self.queries, max(points // 4, 1)),
            distractors=min(self.distractors, max(points // 2, 1)),
            shrinks=True,
        )

    def scaled(self, eligible: int) -> "TaskSizes":
        """Sizes for the number of eligible points, with the same proportions.

        Raises:
            UserError: if there are too few points, or fewer than requested without ``shrinks``.
        """
        requested = self.queries + self.distractors
        if eligible >= requested:
            return self
        if not self.shrinks:
            raise UserError(
                f"{requested} queries and distractors requested, but only {eligible} points are "
                "eligible; request fewer"
            )
        if eligible < 2:
            raise UserError(
                f"retrieval needs two points with some texture, but only {eligible} have a "
                f"standard deviation above {MIN_PATCH_STD:g} gray levels; add sequences or points"
            )
        queries = max(eligible * self.queries // requested, 1)
        return replace(self, queries=queries, distractors=eligible - queries)


OFFICIAL_SIZES = TaskSizes(pairs=1_000_000, queries=10_000, distractors=20_000)
VALIDATION_SIZES = TaskSizes(pairs=5_000, queries=250, distractors=2_000)
"""Sizes of the fixed subset for reports during a trial."""


def sample_tasks(
    names: Sequence[str],
    counts: Sequence[int],
    *,
    sizes: TaskSizes,
    seed: int,
    std: Sequence[Float[np.ndarray, " n"]] | None = None,
) -> Tasks:
    """Sample task lists from a seed, as in the official generator.

    Sequences are uniform, not weighted by their points; a pair is two different images out of 0..5;
    row r of the three pair lists has the same first patch, and the intra negative also the same
    images. Queries and distractors are distinct points. Two differences from the official lists:
    all six images are used (official: 0..4), and inter negatives never come from the same sequence.

    Args:
        names: names of the sequences.
        counts: number of points of each sequence.
        sizes: lengths of the lists.
        seed: seed of the sampling.
        std: standard deviation of every reference patch in gray levels, by sequence; points at or
            below 10 are excluded from retrieval. None includes all.

    Raises:
        UserError: if the set is too small: fewer than two sequences, no sequence with two points,
            or fewer eligible points than queries and distractors, unless ``sizes.shrinks``.
    """
    sizes_of = np.asarray(counts)
    if len(names) != len(sizes_of) or len(names) < 2 or min(counts) < 1 or max(counts) < 2:
        raise UserError(
            "tasks need at least two sequences, none empty, one of them with at least two points"
        )
    pairs = _sample_pairs(np.random.default_rng([seed, 0]), sizes_of, n=sizes.pairs)
    eligible = [
        np.arange(n) if std is None else np.flatnonzero(np.asarray(std[s])[:n] > MIN_PATCH_STD)
        for s, n in enumerate(sizes_of)
    ]
    sizes = sizes.scaled(sum(map(len, eligible)))
    points = _sample_points(
        np.random.default_rng([seed, 1]), eligible, n=sizes.queries + sizes.distractors
    )
    tasks = Tasks(
        names=tuple(names),
        **pairs,
        queries=points[: sizes.queries],
        distractors=points[sizes.queries :],
    )
    tasks.check(counts)
    return tasks


def _sample_pairs(
    rng: np.random.Generator, counts: Int[np.ndarray, " s"], *, n: int
) -> dict[str, Int[np.ndarray, "n 6"]]:
    several = np.flatnonzero(counts > 1)  # an intra negative requires a second point
    sequence = rng.choice(several, n)
    point = rng.integers(counts[sequence])
    image = rng.integers(IMAGES_PER_LEVEL + 1, size=n)
    image2 = _random_other(rng, image, of=np.full(n, IMAGES_PER_LEVEL + 1))
    intra_point = _random_other(rng, point, of=counts[sequence])
    other = _random_other(rng, sequence, of=np.full(n, len(counts)))
    other_point = rng.integers(counts[other])
    first = [sequence, image, point]
    second = {
        "positives": [sequence, image2, point],
        "intra": [sequence, image2, intra_point],
        "inter": [other, image2, other_point],
    }
    return {k: np.stack(first + rest, axis=1).astype(np.int32) for k, rest in second.items()}


def _random_other(
    rng: np.random.Generator, value: Int[np.ndarray, " n"], *, of: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Uniform draw from 0..of-1 without ``value``."""
    drawn = rng.integers(of - 1)
    return drawn + (drawn >= value)


def _sample_points(
    rng: np.random.Generator, eligible: Sequence[Int[np.ndarray, " e"]], *, n: int
) -> Int[np.ndarray, "n 2"]:
    remaining = [list(rng.permutation(points)) for points in eligible]
    rows = []
    while len(rows) < n:
        sequence = int(rng.integers(len(remaining)))
        if remaining[sequence]:
            rows.append((sequence, remaining[sequence].pop()))
    return np.array(rows, np.int32).reshape(n, 2)
