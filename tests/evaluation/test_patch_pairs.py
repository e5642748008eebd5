"""False positive rate at 95 % recall, against its definition and against the literature's code."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.data.arrow_header import PointViews, StoreMeta
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.data.splits import TrialSplit
from hpsearch.errors import UserError
from hpsearch.evaluation.patch_pairs import false_positive_rate, pair_distances
from hpsearch.training.validation import (
    PatchPairSet,
    draw_pairs,
    sample_evaluation_set,
    validation_set,
)
from hpsearch.workflows.evaluate_models import EvaluationRequest, evaluate_models, save_evaluation

DISTANCES = st.lists(st.integers(0, 30).map(float), min_size=1, max_size=60)


def by_definition(matches: list[float], others: list[float]) -> float:
    """Smallest share of accepted others over all thresholds that accept 95 % of the matches."""
    reached = [
        t
        for t in {*matches, *others}
        if Fraction(sum(m <= t for m in matches), len(matches)) >= Fraction(95, 100)
    ]
    return min(sum(o <= t for o in others) / len(others) for t in reached)


def as_hardnet(matches: list[float], others: list[float]) -> float:
    """``ErrorRateAt95Recall`` of HardNet, for distances without ties."""
    distances = np.array(matches + others)
    labels = np.array([1] * len(matches) + [0] * len(others))[np.argsort(distances)]
    index = np.argmax(np.cumsum(labels) >= 0.95 * labels.sum())
    return float((labels[:index] == 0).sum() / (labels == 0).sum())


def measured(matches: list[float], others: list[float]) -> float:
    matching = np.array([True] * len(matches) + [False] * len(others))
    order = np.random.default_rng(0).permutation(len(matching))
    return false_positive_rate(np.array(matches + others)[order], matching[order])


@given(DISTANCES, DISTANCES)
def test_it_is_exact_with_and_without_ties(matches, others):
    assert measured(matches, others) == by_definition(matches, others)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 999))
def test_without_ties_it_is_that_of_the_literature(matches, others, seed):
    found = np.random.default_rng(seed).permutation(matches + others).astype(float).tolist()
    assert measured(found[:matches], found[matches:]) == as_hardnet(
        found[:matches], found[matches:]
    )


def test_equal_descriptors_are_as_wrong_as_can_be():
    assert measured([0.0] * 20, [0.0] * 30) == 1.0
    assert measured([1.0] * 20, [2.0] * 30) == 0.0
    for missing in ([], [1.0]), ([1.0], []):
        with pytest.raises(UserError, match="matching and other pairs"):
            measured(*missing)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes: points are gray levels of their own, with a little noise on each view."""
    rng = np.random.default_rng(0)

    def scene(name: str, pairs: list[tuple[int, int]]) -> SequencePatches:
        texture = rng.integers(0, 256, (20, 1, 32, 32))
        views = np.clip(texture + rng.integers(-9, 10, (20, 3, 32, 32)), 0, 255).astype(np.uint8)
        rows = views.reshape(-1, 32, 32)
        return SequencePatches(name, rows, rows, PointViews(np.full(20, 3), np.array(pairs)))

    matching = [(3 * p, 3 * p + 1 + p % 2) for p in range(20)]
    other = [(3 * p, 3 * (p + 1) + 2) for p in range(19)]
    scenes = [scene("liberty", matching + other), scene("trevi", other[:5] + matching[:5])]
    path = tmp_path_factory.mktemp("pairs") / "tour.arrow"
    write_store(path, scenes, meta=StoreMeta(source="x", license="x"))
    return path


def every(path: Path) -> PatchPairSet:
    store = PatchStore.open(path)
    names = tuple(reversed(store.names))
    return PatchPairSet.sample(store.select(names, TrialSplit("all", names, (), ())))


def test_a_set_scores_each_scene_on_its_own_pairs(path):
    pairs = every(path)
    pixels = pairs.pixels(noisy=False)
    scores = pairs.score(pixels.reshape(len(pixels), -1).astype(np.float32))
    assert scores.num_pairs == {"trevi": (5, 5), "liberty": (20, 19)}
    assert scores.false_positive_rate == {"trevi": 0.0, "liberty": 0.0}
    assert not scores.collapsed
    constant = pairs.score(np.ones((len(pixels), 8), np.float32))
    assert (constant.fpr95, constant.collapsed) == (1.0, True)
    distances = pair_distances(pixels.reshape(len(pixels), -1), pairs.pairs)
    first, second = pixels[pairs.pairs[7]].astype(float)
    assert distances[7] == pytest.approx(np.linalg.norm(first - second), rel=1e-12)


def test_a_sample_for_reports_is_of_each_scene_and_repeatable(path):
    store = PatchStore.open(path)
    patches = store.select(store.names, TrialSplit("all", store.names, (), ()))
    small, again = (PatchPairSet.sample(patches, size=7) for _ in range(2))
    np.testing.assert_array_equal(small.rows[small.pairs], again.rows[again.pairs])
    sequence = patches.sequence_of[patches.points_of(small.rows[small.pairs[:, 0]])]
    assert np.bincount(sequence).tolist() == [7, 7]
    assert isinstance(validation_set(patches, points=3), PatchPairSet)
    with pytest.raises(UserError, match="16 views"):
        sample_evaluation_set(patches, points=3, sizes=None)  # pyright: ignore  not reached


@pytest.mark.parametrize("counts", [[2, 2], [1, 5, 3, 1, 2], [15, 2, 1, 9, 4], [1, 1, 2]], ids=str)
def test_a_store_without_pairs_has_drawn_ones_of_one_and_of_two_points(counts, tmp_path):
    rng = np.random.default_rng(1)

    def scene(name: str) -> SequencePatches:
        rows = rng.integers(0, 256, (sum(counts), 32, 32)).astype(np.uint8)
        return SequencePatches(name, rows, rows, PointViews(np.array(counts)))

    scenes = [scene("one"), scene("two")]
    path = tmp_path / "s.arrow"
    write_store(path, scenes, meta=StoreMeta(source="x", license="x"))
    store = PatchStore.open(path)
    patches = store.select(store.names, TrialSplit("all", store.names, (), ()))
    pairs = draw_pairs(patches)
    point, sequence = patches.points_of(pairs), patches.sequence_of[patches.points_of(pairs)]
    assert (sequence[:, 0] == sequence[:, 1]).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    several = [count for count in counts if count > 1]
    same = point[:, 0] == point[:, 1]
    assert same.sum() == (~same).sum() == 2 * sum(several), "a pair of each kind for each patch"
    assert len(PatchPairSet.sample(patches).pairs) == len(pairs)
    alone = store.select(("two",), TrialSplit("all", ("two",), (), ()))
    np.testing.assert_array_equal(draw_pairs(alone), pairs[sequence[:, 0] == 1] - sum(counts))


def test_points_with_one_view_each_have_no_pairs(tmp_path):
    rows = np.zeros((3, 32, 32), np.uint8)
    scene = SequencePatches("one", rows, rows, PointViews(np.ones(3, np.int64)))
    write_store(tmp_path / "s.arrow", [scene], meta=StoreMeta(source="x", license="x"))
    store = PatchStore.open(tmp_path / "s.arrow")
    with pytest.raises(UserError) as caught:
        PatchPairSet.sample(store.select(store.names, TrialSplit("all", store.names, (), ())))
    assert caught.value.code == "no-pairs"


def test_the_evaluation_of_a_model_prints_and_writes_its_rates(path, tmp_path):
    request = EvaluationRequest(models=(), data=str(path), baselines=True, given=("clean",))
    result = evaluate_models(request, home=tmp_path)
    assert set(result.on_pairs) == {"pixels 16×16, clean", "SIFT, clean", "RootSIFT, clean"}
    assert result.on_pairs["pixels 16×16, clean"].fpr95 == 0.0
    page = save_evaluation(result, tmp_path / "out").read_text()
    assert "FPR95" in page
    assert "liberty" in page
