import dataclasses

import numpy as np
import pytest
from scipy import stats

from hpsearch.errors import UserError
from hpsearch.evaluation import evaluate
from hpsearch.evaluation.bootstrap import (
    compare,
    format_bounds,
    intervals,
    student_quantile,
)
from hpsearch.evaluation.scores import MatchingScores, RetrievalScores


def test_intervals_hold_the_headlines(golden_scores):
    found = intervals(golden_scores)
    flat = golden_scores.flat()
    for name, interval in found.items():
        assert interval.value == flat[name]
        assert interval.low < interval.value < interval.high
        assert 0.005 < interval.high - interval.low < 0.5
    narrow = intervals(golden_scores, confidence=0.5)
    for name in found:
        assert found[name].low < narrow[name].low < narrow[name].high < found[name].high


def many_sequences(golden_scores, by_sequence, *, bins=256):
    """Scores whose matching and retrieval of each sequence are the numbers given."""
    n = len(by_sequence)
    ap = np.broadcast_to(by_sequence[:, None, None], (n, 3, 5)).copy()
    queries = np.broadcast_to(by_sequence, (3, 7, n)).copy()
    histogram = np.resize(golden_scores.verified.histogram, (3, 3, n, bins))
    sequence_ap = np.broadcast_to(by_sequence, (3, 2, n)).copy()
    return dataclasses.replace(
        golden_scores,
        names=tuple(f"v_{i}" for i in range(n)),
        points=(9,) * n,
        matched=MatchingScores(ap=ap, success_rate=ap),
        retrieved=RetrievalScores(ap=queries, tie_neutral_ap=queries[:, 0], sequence=np.arange(n)),
        verified=dataclasses.replace(
            golden_scores.verified,
            histogram=histogram,
            sequence_ap=sequence_ap,
            ap_without=np.resize(golden_scores.verified.ap_without, (3, 2, n)),
        ),
    )


@pytest.mark.parametrize("n", [2, 3, 4, 20])
@pytest.mark.parametrize("confidence", [0.95, 0.9995])
def test_the_interval_of_a_mean_is_students(golden_scores, n, confidence):
    values = np.random.default_rng(n).normal(0.5, 0.001, n)
    found = intervals(many_sequences(golden_scores, values), confidence=confidence)
    bounds = stats.t.interval(confidence, n - 1, loc=values.mean(), scale=stats.sem(values))
    for name in ("matching", "retrieval"):
        expected = np.clip(bounds, 0, 1)
        assert (found[name].low, found[name].high) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 10, 115])
def test_students_quantile_is_scipys(freedom):
    for confidence in (0.5, 0.95, 0.975, 0.9995):
        expected = stats.t.ppf((1 + confidence) / 2, freedom)
        assert student_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-9)


DISTRIBUTIONS = {
    "normal": (lambda rng, size: rng.normal(0.5, 0.1, size), 0.5),
    "skewed": (lambda rng, size: 0.1 * rng.lognormal(0, 0.5, size), 0.1 * np.exp(0.125)),
}


@pytest.mark.parametrize(
    ("kind", "n", "least"),
    [("normal", 4, 0.935), ("normal", 20, 0.935), ("skewed", 4, 0.90), ("skewed", 20, 0.92)],
)
def test_the_interval_covers_the_truth_as_often_as_it_says(golden_scores, kind, n, least):
    """A percentile bootstrap covers 0.79 and 0.92 (normal), 0.75 and 0.90 (skewed)."""
    draw, truth = DISTRIBUTIONS[kind]
    every = draw(np.random.default_rng(n), (600, n))
    found = [intervals(many_sequences(golden_scores, own, bins=2))["matching"] for own in every]
    covered = np.mean([one.low < truth < one.high for one in found])
    assert least <= covered <= 0.97


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("n", [4, 20])
def test_an_equal_descriptor_is_better_as_seldom_as_it_should(golden_scores, kind, n):
    """One in forty; a percentile bootstrap finds 0.10 and 0.035."""
    rng, (draw, _) = np.random.default_rng(n), DISTRIBUTIONS[kind]
    hard = draw(rng, (800, 1, n))  # the same sequences for both
    both = 0.5 * hard + 0.5 * draw(rng, (800, 2, n))
    found = [
        compare(*(many_sequences(golden_scores, own, bins=2) for own in pair))["matching"]
        for pair in both
    ]
    assert 0.01 <= np.mean([one.better for one in found]) <= 0.032


def test_one_sequence_has_scores_and_no_interval(golden_scores):
    alone = many_sequences(golden_scores, np.array([0.6]))
    for name, found in intervals(alone).items():
        assert (found.value, found.low, found.high) == (alone.flat()[name], None, None)
    other = many_sequences(golden_scores, np.array([0.5]))
    found = compare(alone, other)["matching"]
    assert (found.difference, found.low, found.share_won) == (pytest.approx(0.1), None, 1.0)
    assert not found.better
    assert not found.worse
    assert format_bounds(found, ".3f", between=" to ") == ""


def test_two_sequences_give_an_interval_within_what_is_possible(golden_scores):
    found = intervals(many_sequences(golden_scores, np.array([0.2, 0.8])))["matching"]
    assert (found.low, found.high) == (0.0, 1.0)


def test_equal_values_show_nothing_about_other_sequences(golden_scores):
    """A spread of zero over a few sequences is no certainty, and decides nothing."""
    perfect = many_sequences(golden_scores, np.ones(4))
    worse = many_sequences(golden_scores, np.full(4, 0.99))
    assert intervals(perfect)["matching"].low is None
    assert not compare(perfect, worse)["matching"].better


def test_where_one_sequence_has_all_queries_retrieval_has_no_interval(golden_scores):
    values = np.array([0.5, 0.6, 0.8])
    scores = many_sequences(golden_scores, values)
    one = dataclasses.replace(
        scores, retrieved=dataclasses.replace(scores.retrieved, sequence=np.zeros(3, int))
    )
    found = intervals(one)
    assert found["retrieval"].low is None
    assert found["mAP"].low is None
    assert found["matching"].low is not None


def test_a_sequence_without_queries_does_not_count_for_retrieval(golden_scores):
    values = np.array([0.5, 0.6, 0.8])
    scores = many_sequences(golden_scores, values)
    queries = dataclasses.replace(scores.retrieved, sequence=np.array([0, 2, 2]))
    found = intervals(dataclasses.replace(scores, retrieved=queries), confidence=0.5)["retrieval"]
    # (0.5 and the two of 0.6 and 0.8) without each: 0.7 and 0.5, with one degree of freedom
    half = stats.t.ppf(0.75, 1) * np.std([0.7, 0.5])
    assert found.high - found.value == pytest.approx(half)


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
        assert (found.difference, found.low, found.high) == (0, None, None)
        assert found.share_won == 0.5
        assert not found.better


def test_scores_of_other_sets_are_not_compared(golden_scores):
    with pytest.raises(UserError, match="different sequences"):
        compare(golden_scores, many_sequences(golden_scores, np.ones(6)))
    with pytest.raises(UserError, match="confidence"):
        intervals(golden_scores, confidence=95)
