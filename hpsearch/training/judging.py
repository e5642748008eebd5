"""The final examination: test sequences, which no search has read."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from hpsearch.data.splits import Split
from hpsearch.data.store import PatchStore
from hpsearch.evaluation import OFFICIAL, Scores, Sizes
from hpsearch.models import describe
from hpsearch.training.validation import Scored, scored

JUDGED = Sizes(pairs=100_000, queries=OFFICIAL.queries, distractors=OFFICIAL.distractors)
"""Task lists for a set without official ones; retrieval is cut to what the set has."""


def judged_part(store: PatchStore, split: Split) -> Scored:
    """Every test point, with task lists that depend on the store alone."""
    return scored(store.part(split, "test"), points=None, sizes=JUDGED)


def judge(pipeline: nn.Module, test: Scored, *, noisy: bool, device: torch.device) -> Scores:
    """Scores of a pipeline (raw patches in, descriptors out) on test patches."""
    return test.score(describe(pipeline.to(device), test.pixels(noisy=noisy), device=device))


def judge_function(
    function: Callable[[np.ndarray], np.ndarray], test: Scored, *, noisy: bool
) -> Scores:
    """Scores of a classical descriptor: uint8 (n, 32, 32) in, (n, d) out."""
    return test.score(function(test.pixels(noisy=noisy)))
