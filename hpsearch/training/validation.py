"""Evaluation sets: validation during training, and the test set."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError, list_names
from hpsearch.evaluation import (
    OFFICIAL_SIZES,
    VALIDATION_SIZES,
    Scores,
    Tasks,
    TaskSizes,
    evaluate,
    sample_tasks,
)
from hpsearch.evaluation.patch_pairs import PatchPairScores, score_patch_pairs
from hpsearch.models import describe
from hpsearch.patch_views import VIEWS
from hpsearch.rng import rng_for
from hpsearch.shapes import Float, Int, UInt8


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Points of some sequences with task lists for their evaluation.

    Rows are point-major, as in the store: the 16 views of a point are adjacent.
    """

    patches: Patches
    points: Int[np.ndarray, " points"]
    tasks: Tasks

    def __repr__(self) -> str:
        """Number of points and task lists, without the rows."""
        return f"EvaluationSet(points={len(self.points)}, tasks={self.tasks!r})"

    @property
    def rows(self) -> Int[np.ndarray, " rows"]:
        """Local rows of every view of the points."""
        return (VIEWS * self.points[:, None] + np.arange(VIEWS)).ravel()

    def pixels(self, *, noisy: bool) -> UInt8[np.ndarray, "rows 32 32"]:
        """Patches (rows, 32, 32) to be described."""
        return self.patches.gather(self.rows, noisy=noisy)

    def score(self, descriptors: Float[np.ndarray, "rows d"]) -> Scores:
        """Scores of descriptors, one per row: verification, matching and retrieval."""
        views = descriptors.reshape(len(self.points), VIEWS, -1)
        sequence = self.patches.sequence_of[self.points]
        return evaluate(
            {name: views[sequence == i] for i, name in enumerate(self.patches.names)}, self.tasks
        )


@dataclass(frozen=True, eq=False)
class PatchPairSet:
    """Pairs of a data set for patch verification, with the patches that they use."""

    patches: Patches
    rows: Int[np.ndarray, " rows"]
    """Local rows of the patches, each once."""
    pairs: Int[np.ndarray, "n 2"]
    """Indices into ``rows``."""

    @classmethod
    def sample(cls, patches: Patches, *, size: int | None = None, seed: int = 0) -> "PatchPairSet":
        """All pairs of the patches, or ``size`` of each sequence, drawn from a seed.

        A store without pairs of its own, such as one of detected views, has those of
        ``draw_pairs``.

        Raises:
            UserError: if there are none.
        """
        every = patches.pairs if len(patches.pairs) else draw_pairs(patches)
        if not len(every):
            names = list_names(patches.names, limit=8)
            raise UserError(
                f"{patches.store.path} has no pairs of patches for {names}: no sequence has two "
                "points and two views of a point; add points or views",
                code="no-pairs",
            )
        sequence = patches.sequence_of[patches.points_of(every[:, 0])]
        chosen = []
        for i, name in enumerate(patches.names):
            own = np.flatnonzero(sequence == i)
            if size is not None and size < len(own):
                own = np.sort(rng_for(seed, f"pairs {name}", 0).choice(own, size, replace=False))
            chosen.append(own)
        rows, pairs = np.unique(every[np.concatenate(chosen)], return_inverse=True)
        return cls(patches, rows, pairs.reshape(-1, 2))

    def pixels(self, *, noisy: bool) -> UInt8[np.ndarray, "rows 32 32"]:
        """Patches (rows, 32, 32) to be described."""
        return self.patches.gather(self.rows, noisy=noisy)

    def score(self, descriptors: Float[np.ndarray, "rows d"]) -> PatchPairScores:
        """Scores of descriptors, one per row: false positive rate at 95 % recall."""
        points = self.patches.points_of(self.rows)[self.pairs]
        return score_patch_pairs(
            descriptors,
            self.pairs,
            points[:, 0] == points[:, 1],
            self.patches.sequence_of[points[:, 0]],
            self.patches.names,
        )


def draw_pairs(patches: Patches) -> Int[np.ndarray, "n 2"]:
    """Pairs for patch verification, as local rows: as many of one point as of two.

    Each patch whose point has another view is paired with one of these, and with a patch of
    another point of its sequence. The draws depend on the names and sizes of the sequences alone.
    """
    first = patches.first_rows
    if first is None:
        first = VIEWS * np.arange(len(patches) + 1)
    ends = np.cumsum(patches.counts)
    found = [np.empty((0, 2), np.int64)]
    for name, count, end in zip(patches.names, patches.counts, ends, strict=True):
        if count > 1:
            rng = rng_for(0, f"drawn pairs {name}", 0)
            found.append(_pairs_of_sequence(first[end - count : end + 1], rng))
    return np.concatenate(found)


def _pairs_of_sequence(
    first: Int[np.ndarray, " points+1"], rng: np.random.Generator
) -> Int[np.ndarray, "n 2"]:
    """Pairs of one sequence, whose points begin at these rows."""
    views = np.diff(first)
    point = np.repeat(np.arange(len(views)), views)
    rows = np.arange(first[0], first[-1])
    several = views[point] > 1
    rows, point = rows[several], point[several]
    shift = 1 + (rng.random(len(rows)) * (views[point] - 1)).astype(np.int64)
    same = first[point] + (rows - first[point] + shift) % views[point]
    total = first[-1] - first[0]
    step = (rng.random(len(rows)) * (total - views[point])).astype(np.int64)
    other = first[0] + (first[point + 1] - first[0] + step) % total  # past its own point, in turn
    return np.concatenate([np.stack([rows, same], axis=1), np.stack([rows, other], axis=1)])


VALIDATION_PAIRS = 5_000
"""Pairs of each sequence that a report during a trial is evaluated on."""


def validation_set(patches: Patches, *, points: int) -> EvaluationSet | PatchPairSet:
    """Validation set of reports: the three tasks, or pairs if points have no levels.

    Args:
        patches: validation patches.
        points: points of each sequence for the three tasks.

    Raises:
        UserError: if the patches are too few, or have neither levels nor pairs.
    """
    if patches.store.has_levels:
        return sample_evaluation_set(patches, points=points, sizes=VALIDATION_SIZES)
    return PatchPairSet.sample(patches, size=VALIDATION_PAIRS)


def sample_evaluation_set(
    patches: Patches, *, points: int | None, sizes: TaskSizes, seed: int = 0
) -> EvaluationSet:
    """Sample at most ``points`` of each sequence (None: all) and task lists for them.

    Raises:
        UserError: if the points do not have 16 views each, or are too few.
    """
    patches.store.check_levels("evaluation by verification, matching and retrieval")
    chosen = []
    for i, name in enumerate(patches.names):
        own = np.flatnonzero(patches.sequence_of == i)
        if points is not None and points < len(own):
            own = np.sort(rng_for(seed, f"scored {name}", 0).choice(own, points, replace=False))
        chosen.append(own)
    every = np.concatenate(chosen)
    ref = patches.gather(VIEWS * every, noisy=False)
    std = np.split(
        ref.reshape(len(every), -1).std(axis=1), np.cumsum([len(c) for c in chosen])[:-1]
    )
    counts = [len(c) for c in chosen]
    tasks = sample_tasks(patches.names, counts, sizes=sizes.clamped(len(every)), seed=seed, std=std)
    return EvaluationSet(patches, every, tasks)


TEST_SIZES = TaskSizes(
    pairs=100_000, queries=OFFICIAL_SIZES.queries, distractors=OFFICIAL_SIZES.distractors
)
"""Sizes of task lists for a set without official ones; retrieval shrinks for small sets."""


def build_test_set(store: PatchStore, split: TrialSplit) -> EvaluationSet:
    """Evaluation set of all test points, with task lists that depend on the store only."""
    return sample_evaluation_set(store.part(split, "test"), points=None, sizes=TEST_SIZES)


def evaluate_on_test_set(
    pipeline: nn.Module, test: EvaluationSet, *, noisy: bool, device: torch.device
) -> Scores:
    """Scores of a pipeline, from raw patches to descriptors, on test patches."""
    return test.score(describe(pipeline.to(device), test.pixels(noisy=noisy), device=device))


def evaluate_function(
    function: Callable[[np.ndarray], np.ndarray], test: EvaluationSet, *, noisy: bool
) -> Scores:
    """Scores of a descriptor function from uint8 (n, 32, 32) to (n, d) on test patches."""
    return test.score(function(test.pixels(noisy=noisy)))
