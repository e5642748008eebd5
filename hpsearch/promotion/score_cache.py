"""Cache of test scores, keyed by model weights and test set.

Repeated evaluation on test invites selection on test. So a network's scores are stored under a hash
of its weights and of its input, and looked up from then on. Descriptors without weights are stored
by name.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import nn

from hpsearch.atomic_files import write_atomic
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.splits import TrialSplit
from hpsearch.evaluation import Scores
from hpsearch.schema import from_json, to_json
from hpsearch.search.search_context import SearchContext
from hpsearch.training.devices import choose_device, torch_threads
from hpsearch.training.validation import (
    EvaluationSet,
    build_test_set,
    evaluate_function,
    evaluate_on_test_set,
)
from hpsearch.untrusted import reading

EVALUATION_VERSION = "0.1.0"
"""Version of hpsearch whose evaluation gives the same scores to the last bit; part of every key, so
raise it with the first change that alters a score."""
SCORES_DIR = "judged"
"""Folder in the home: one file per network and set of test patches."""


@dataclass(frozen=True)
class ScoreCache:
    """Cache of the test scores on one split in one home."""

    home: Path
    """Path of the home folder."""
    store: PatchStore
    split: TrialSplit

    @classmethod
    def for_search(cls, context: SearchContext) -> "ScoreCache":
        """Cache for the test patches of a search."""
        return cls(context.home, context.data.test_store, context.data.test_split)

    def scores(self, pipeline: nn.Module, *, noisy: bool, name: str) -> Scores:
        """Test scores of a network, from the cache or by evaluation.

        Args:
            pipeline: the network.
            noisy: whether it is evaluated on noisy or clean test patches.
            name: name of the network in the cache.
        """

        def evaluate() -> Scores:
            device = choose_device("auto")
            return evaluate_on_test_set(pipeline, self.test_set, noisy=noisy, device=device)

        return _load_or_evaluate(self._path(pipeline, noisy=noisy), name, evaluate)

    def function_scores(
        self, function: Callable[[np.ndarray], np.ndarray], *, noisy: bool, name: str
    ) -> Scores:
        """Test scores of a descriptor without weights, from the cache or by evaluation.

        Args:
            function: maps patches (uint8, n×32×32) to descriptors (n×d).
            noisy: whether it is evaluated on noisy or clean test patches.
            name: name of the descriptor, which identifies it in the cache.
        """
        path = self._path_of(f"function {name}", noisy=noisy)
        return _load_or_evaluate(
            path, name, lambda: evaluate_function(function, self.test_set, noisy=noisy)
        )

    def is_cached(self, pipeline: nn.Module, *, noisy: bool) -> bool:
        """Return whether the cache has scores of a network."""
        return self._path(pipeline, noisy=noisy).exists()

    @cached_property
    def test_set(self) -> EvaluationSet:
        """Test sequences with their task lists."""
        return build_test_set(self.store, self.split)

    def _path(self, pipeline: nn.Module, *, noisy: bool) -> Path:
        return self._path_of(model_fingerprint(pipeline), noisy=noisy)

    def _path_of(self, descriptor: str, *, noisy: bool) -> Path:
        split = self.split
        about = [EVALUATION_VERSION, self.store.fingerprint, split.name, *split.test]
        seen = hashlib.sha256(json.dumps([*about, noisy, descriptor]).encode())
        return self.home / SCORES_DIR / f"{seen.hexdigest()[:32]}.json"


def _load_or_evaluate(path: Path, name: str, evaluate: Callable[[], Scores]) -> Scores:
    if path.exists():
        with reading(path, "record of test scores", "remove it to evaluate again"):
            return Scores.from_dict(from_json(path.read_text(), path)["scores"])
    with single_threaded():
        found = evaluate()
    write_atomic(path, to_json({"who": name, "time": time.time(), "scores": found.to_dict()}))
    return found


def model_fingerprint(pipeline: nn.Module) -> str:
    """SHA-256 of the networks' architecture and weights, in hex."""
    digest = hashlib.sha256(str(pipeline).encode())
    for name, values in pipeline.state_dict().items():
        digest.update(name.encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def single_threaded() -> AbstractContextManager[None]:
    """Use one torch thread inside the block, as trials do on one CPU."""
    return torch_threads(1)
