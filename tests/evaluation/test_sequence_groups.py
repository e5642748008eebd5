"""Scores of some of the sequences: exact, with ties as in the headlines."""

import dataclasses

import numpy as np
import pytest

from hpsearch.evaluation import Scores, evaluate
from hpsearch.evaluation.scores import MatchingScores


@pytest.fixture(scope="module", params=["plain", "tenths", "half constant"])
def tied_scores(request, golden):
    """Scores of descriptors with few and with many equal distances."""
    descriptors, tasks, _ = golden
    arrays = {name: descriptors[name][:, :, :6].copy() for name in tasks.names}
    if request.param == "tenths":
        arrays = {name: np.round(array, 1) for name, array in arrays.items()}
    if request.param == "half constant":
        for array in arrays.values():
            array[::2] = 0.25
    pairs = {name: getattr(tasks, name)[:1500] for name in ("positives", "inter", "intra")}
    tasks = dataclasses.replace(tasks, **pairs)
    return list(arrays.values()), tasks, evaluate(arrays, tasks)


def test_columns_of_sequence_kinds_are_exact(tied_scores, oracle):
    """Verification, matching and retrieval over illumination and over viewpoint sequences."""
    arrays, tasks, scores = tied_scores
    for kind, found in scores.by_kind().items():
        chosen = np.array([name.startswith(kind) for name in tasks.names])
        expected = oracle.verification_of(arrays, tasks, set(np.flatnonzero(chosen)))
        assert found["verification"] == pytest.approx(expected, abs=1e-12)
        assert found["matching"] == scores.matched.ap[chosen].mean()
        own = chosen[scores.retrieved.sequence]
        assert found["retrieval"] == pytest.approx(scores.retrieved.ap[:, -1, own].mean())
        assert found["mAP"] == pytest.approx(sum(list(found.values())[:3]) / 3)


def test_headlines_without_each_sequence_are_exact(tied_scores, oracle):
    arrays, tasks, scores = tied_scores
    found = scores.without_each()
    for sequence in range(len(tasks.names)):
        others = np.arange(len(tasks.names)) != sequence
        expected = {
            "verification": oracle.verification_of(arrays, tasks, set(np.flatnonzero(others))),
            "matching": scores.matched.ap[others].mean(),
            "retrieval": scores.retrieved.ap[:, -1, others[scores.retrieved.sequence]].mean(),
        }
        expected["mAP"] = np.mean(list(expected.values()))
        for name, value in expected.items():
            assert found[name][sequence] == pytest.approx(value, abs=1e-12)


def test_nothing_remains_without_the_only_sequence(golden_scores):
    """One sequence that has all pairs and queries."""
    scores = dataclasses.replace(
        golden_scores,
        names=("i_a",),
        verified=dataclasses.replace(golden_scores.verified, ap_without=np.full((3, 2, 1), np.nan)),
        matched=MatchingScores(
            ap=golden_scores.matched.ap[:1], success_rate=golden_scores.matched.ap[:1]
        ),
        retrieved=dataclasses.replace(
            golden_scores.retrieved, sequence=np.zeros_like(golden_scores.retrieved.sequence)
        ),
    )
    assert all(np.isnan(values).all() for values in scores.without_each().values())


def test_scores_recorded_by_0_1_are_read_with_estimates(golden_scores):
    """They lack verification without each sequence, and have binned distances."""
    record = golden_scores.to_dict()
    for name in ("ap_without", "group_ap"):
        del record["verified"][name]
    scores = Scores.from_dict(record)
    for name in ("ap_without", "group_ap"):
        expected = getattr(golden_scores.verified, name)
        assert getattr(scores.verified, name) == pytest.approx(expected, abs=0.01)
