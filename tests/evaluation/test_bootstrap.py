import dataclasses

import numpy as np
import pytest

from hpsearch.errors import UserError
from hpsearch.evaluation import evaluate
from hpsearch.evaluation.bootstrap import compare, headline_scores, intervals, weighted_ap
from hpsearch.evaluation.scores import MatchingScores, RetrievalScores, VerificationScores
from hpsearch.evaluation.verification import _sorted_ap, level_scores


def test_intervals_hold_the_headlines(golden_scores):
    found = intervals(golden_scores, seed=1)
    flat = golden_scores.flat()
    for name, interval in found.items():
        assert interval.value == flat[name]
        assert interval.low < interval.value < interval.high
        assert 0.005 < interval.high - interval.low < 0.3
    narrow = intervals(golden_scores, seed=1, confidence=0.5)
    for name in found:
        assert found[name].low < narrow[name].low < narrow[name].high < found[name].high


def many_sequences(golden_scores, by_sequence):
    """Scores whose matching and retrieval of each sequence are the numbers given."""
    n = len(by_sequence)
    ap = np.broadcast_to(by_sequence[:, None, None], (n, 3, 5)).copy()
    queries = np.broadcast_to(by_sequence, (3, 7, n)).copy()
    histogram = np.resize(golden_scores.verified.histogram, (3, 3, n, 256))
    sequence_ap = np.broadcast_to(by_sequence, (3, 2, n)).copy()
    return dataclasses.replace(
        golden_scores,
        names=tuple(f"v_{i}" for i in range(n)),
        points=(9,) * n,
        matched=MatchingScores(ap=ap, success_rate=ap),
        retrieved=RetrievalScores(ap=queries, tie_neutral_ap=queries[:, 0], sequence=np.arange(n)),
        verified=dataclasses.replace(
            golden_scores.verified, histogram=histogram, sequence_ap=sequence_ap
        ),
    )


def test_the_interval_of_a_mean_is_the_textbook_one(golden_scores):
    values = np.random.default_rng(0).normal(0.5, 0.1, 100)
    found = intervals(many_sequences(golden_scores, values), samples=4000)
    half = 1.96 * values.std() / 10
    for name in ("matching", "retrieval"):
        assert found[name].low == pytest.approx(values.mean() - half, abs=0.002)
        assert found[name].high == pytest.approx(values.mean() + half, abs=0.002)


def test_the_interval_covers_the_truth_as_often_as_it_says(golden_scores):
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        scores = many_sequences(golden_scores, rng.normal(0.5, 0.1, 40))
        interval = intervals(scores, seed=trial, samples=300, confidence=0.9)["matching"]
        covered += interval.low < 0.5 < interval.high
    assert 80 <= covered <= 98


def test_weighted_verification_equals_repeating_the_pairs():
    rng = np.random.default_rng(0)
    sequences, weights = 8, rng.integers(0, 4, 8)
    hard = rng.normal(1, 0.2, sequences)  # some sequences are harder, so the weights matter
    few, rest = ([np.sort(rng.normal(h, 0.3, n)) for h in hard] for n in (200, 800))
    kinds = [[np.sort(rng.normal(gap, 0.3, 1000)) for _ in hard] for gap in (2.0, 1.5)]
    level = level_scores(few, rest, *kinds, groups=np.ones((2, sequences), bool))
    verified = VerificationScores(**{name: np.stack([part] * 3) for name, part in level.items()})

    def exact(weights):
        repeated = [
            np.sort(np.concatenate(np.repeat(np.array(own), weights, axis=0)))
            for own in (few, *kinds)
        ]
        return np.mean([_sorted_ap(repeated[0], negatives) for negatives in repeated[1:]])

    ones = np.ones(sequences, int)
    found = weighted_ap(verified, np.stack([weights, ones]).astype(float))
    assert found == pytest.approx([exact(weights), exact(ones)], abs=2e-3)
    assert abs(exact(weights) - exact(ones)) > 0.01


def test_binning_alone_changes_verification_little(golden_scores):
    whole = weighted_ap(golden_scores.verified, np.ones((1, 6)))[0]
    assert whole == pytest.approx(golden_scores.verification, abs=5e-3)


def test_a_better_descriptor_wins_and_the_comparison_is_antisymmetric(golden, golden_scores):
    descriptors, tasks, _ = golden
    rng = np.random.default_rng(0)
    worse = {
        name: array + 0.3 * rng.standard_normal(array.shape) for name, array in descriptors.items()
    }
    other = evaluate(worse, tasks)
    there, back = compare(golden_scores, other), compare(other, golden_scores)
    for name, found in there.items():
        assert found.better
        assert found.difference == pytest.approx(golden_scores.flat()[name] - other.flat()[name])
        assert found.low < found.difference < found.high
        assert found.share_won == 1.0
        assert (back[name].low, back[name].high) == pytest.approx((-found.high, -found.low))
        assert back[name].share_won == 0.0


def test_a_comparison_is_narrower_than_the_intervals(golden_scores):
    values = np.random.default_rng(0).normal(0.5, 0.1, 50)
    one = many_sequences(golden_scores, values)
    two = many_sequences(golden_scores, values + np.random.default_rng(1).normal(0.01, 0.005, 50))
    found = compare(two, one)["matching"]
    alone = intervals(one)["matching"]
    assert found.better
    assert found.high - found.low < 0.2 * (alone.high - alone.low)
    assert found.share_won == pytest.approx((two.matched.ap > one.matched.ap)[:, 0, 0].mean())


def test_scores_against_themselves_tie(golden_scores):
    for found in compare(golden_scores, golden_scores).values():
        assert (found.difference, found.low, found.high) == (0, 0, 0)
        assert found.share_won == 0.5
        assert not found.better


def test_scores_of_other_sets_are_not_compared(golden_scores):
    with pytest.raises(UserError, match="different sequences"):
        compare(golden_scores, many_sequences(golden_scores, np.ones(6)))
    with pytest.raises(UserError, match="at least two sequences"):
        intervals(many_sequences(golden_scores, np.ones(1)))
    with pytest.raises(UserError, match="confidence"):
        intervals(golden_scores, confidence=95)


def test_headlines_of_some_sequences(golden_scores):
    """All of them: the headlines; some: their own matching and the mean over their queries."""
    names = golden_scores.names
    whole = headline_scores(golden_scores, [True] * len(names))
    assert whole == pytest.approx({name: golden_scores.flat()[name] for name in whole})
    kind = np.array([name.startswith("i_") for name in names])
    found = headline_scores(golden_scores, kind)
    assert found["matching"] == pytest.approx(golden_scores.matched.ap[kind].mean())
    own = kind[golden_scores.retrieved.sequence]
    assert found["retrieval"] == pytest.approx(golden_scores.retrieved.ap[:, -1, own].mean())
    assert found["verification"] != pytest.approx(whole["verification"], abs=1e-4)
    with pytest.raises(UserError, match="empty set"):
        headline_scores(golden_scores, [False] * len(names))
