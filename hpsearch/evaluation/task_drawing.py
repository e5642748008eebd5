"""Drawing task lists for sets that have no official ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation.tasks import Tasks
from hpsearch.evaluation.views import IMAGES
from hpsearch.shapes import Float, Int

MIN_STD = 10.0
"""Reference patches of at most this standard deviation (grey levels) stay out of retrieval."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Lengths of the task lists."""

    pairs: int
    """Rows of each of the three pair lists."""
    queries: int
    distractors: int
    shrinks: bool = False
    """Whether fewer eligible points shorten queries and distractors alike, instead of a refusal."""

    def within(self, points: int) -> "Sizes":
        """Shrunk for a set of ``points``: at most a quarter as queries, half as distractors.

        Flat patches, which only the drawing sees, may shrink them further.
        """
        return replace(
            self,
            queries=min(self.queries, max(points // 4, 1)),
            distractors=min(self.distractors, max(points // 2, 1)),
            shrinks=True,
        )

    def cut(self, eligible: int) -> "Sizes":
        """Queries and distractors for so many eligible points, in the same proportion.

        Raises:
            UserError: if there are too few, or fewer than asked for and ``shrinks`` is not set.
        """
        asked = self.queries + self.distractors
        if eligible >= asked:
            return self
        if not self.shrinks:
            raise UserError(
                f"{asked} queries and distractors asked for, but only {eligible} points are "
                "eligible: ask for fewer"
            )
        if eligible < 2:
            raise UserError(
                f"retrieval needs two points with some texture, but only {eligible} have a "
                f"standard deviation above {MIN_STD:g} grey levels: add sequences or points"
            )
        queries = max(eligible * self.queries // asked, 1)
        return replace(self, queries=queries, distractors=eligible - queries)


OFFICIAL = Sizes(pairs=1_000_000, queries=10_000, distractors=20_000)
VALIDATION = Sizes(pairs=5_000, queries=250, distractors=2_000)
"""A cheap fixed subset for reports inside trials."""


def make_tasks(
    names: Sequence[str],
    counts: Sequence[int],
    *,
    sizes: Sizes,
    seed: int,
    std: Sequence[Float[np.ndarray, " n"]] | None = None,
) -> Tasks:
    """Draw tasks as the official generator does, from a seed.

    Sequences are uniform, not weighted by their points; a pair is two different images out of 0..5;
    row r of the three pair lists shares its first patch, and the intra negative its images as well.
    Queries and distractors are distinct points. Two differences from the official lists: all six
    images are used (official: 0..4), and inter negatives never come from the same sequence.

    Args:
        counts: points of each sequence.
        std: standard deviation of every reference patch, grey levels, by sequence; points at or
            below 10 are kept out of retrieval. None keeps all.

    Raises:
        UserError: if the set is too small: fewer than two sequences, no sequence with two points,
            or fewer eligible points than queries and distractors, unless ``sizes.shrinks``.
    """
    sizes_of = np.asarray(counts)
    if len(names) != len(sizes_of) or len(names) < 2 or min(counts) < 1 or max(counts) < 2:
        raise UserError(
            "tasks need at least two sequences, none empty, one of them with at least two points"
        )
    pairs = _draw_pairs(np.random.default_rng([seed, 0]), sizes_of, n=sizes.pairs)
    eligible = [
        np.arange(n) if std is None else np.flatnonzero(np.asarray(std[s])[:n] > MIN_STD)
        for s, n in enumerate(sizes_of)
    ]
    sizes = sizes.cut(sum(map(len, eligible)))
    points = _draw_points(
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


def _draw_pairs(
    rng: np.random.Generator, counts: Int[np.ndarray, " s"], *, n: int
) -> dict[str, Int[np.ndarray, "n 6"]]:
    several = np.flatnonzero(counts > 1)  # an intra negative needs a second point
    sequence = rng.choice(several, n)
    point = rng.integers(counts[sequence])
    image = rng.integers(IMAGES + 1, size=n)
    image2 = _another(rng, image, of=np.full(n, IMAGES + 1))
    intra_point = _another(rng, point, of=counts[sequence])
    other = _another(rng, sequence, of=np.full(n, len(counts)))
    other_point = rng.integers(counts[other])
    first = [sequence, image, point]
    second = {
        "positives": [sequence, image2, point],
        "intra": [sequence, image2, intra_point],
        "inter": [other, image2, other_point],
    }
    return {k: np.stack(first + rest, axis=1).astype(np.int32) for k, rest in second.items()}


def _another(
    rng: np.random.Generator, value: Int[np.ndarray, " n"], *, of: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Uniform in 0..of-1 without ``value``."""
    drawn = rng.integers(of - 1)
    return drawn + (drawn >= value)


def _draw_points(
    rng: np.random.Generator, eligible: Sequence[Int[np.ndarray, " e"]], *, n: int
) -> Int[np.ndarray, "n 2"]:
    waiting = [list(rng.permutation(points)) for points in eligible]
    rows = []
    while len(rows) < n:
        sequence = int(rng.integers(len(waiting)))
        if waiting[sequence]:
            rows.append((sequence, waiting[sequence].pop()))
    return np.array(rows, np.int32).reshape(n, 2)
