"""Dispersion against an explicit loop over pairs; the detector against states seen in real runs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.training.collapse_detection import BatchDispersion, CollapseDetector, batch_dispersion


def slow_dispersion(x: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
    apart, same, other = [], [], []
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j:
                square = float(((x[i] - x[j]) ** 2).sum())
                apart.append(square)
                (same if labels[i] == labels[j] else other).append(square)
    norm = math.sqrt(np.mean((x**2).sum(1)))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    ratio = math.sqrt(np.mean(other) / np.mean(same))
    return math.sqrt(np.mean(apart)) / norm, float(np.linalg.norm(unit.mean(0))), ratio


@given(
    groups=st.integers(2, 6),
    views=st.integers(2, 4),
    seed=st.integers(0, 10_000),
    offset=st.sampled_from([0.0, 5.0, 300.0]),
)
def test_dispersion_equals_the_loop_over_pairs(
    groups: int, views: int, seed: int, offset: float
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(groups * views, 7)) + offset
    labels = rng.permutation(np.repeat(np.arange(groups) * 5, views))
    found = batch_dispersion(torch.from_numpy(x), torch.from_numpy(labels))
    assert tuple(found) == pytest.approx(slow_dispersion(x, labels), rel=1e-6)


@given(scale=st.floats(1e-3, 1e3))
def test_dispersion_is_free_of_scale(scale: float) -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 4)))
    labels = torch.arange(12) // 3
    assert tuple(batch_dispersion(scale * x, labels)) == pytest.approx(
        tuple(batch_dispersion(x, labels)), rel=1e-9
    )


@pytest.mark.parametrize("point", [0.0, 1.0, -7.0])
def test_a_constant_encoder_is_one_point_at_chance(point: float) -> None:
    found = batch_dispersion(torch.full((8, 3), point), torch.arange(8) // 2)
    assert found.contrast == pytest.approx(1.0)
    assert found.relative < 1e-6 or point == 0.0


HEALTHY = BatchDispersion(relative=1.29, resultant=0.38, contrast=2.6)
DIP = BatchDispersion(relative=0.41, resultant=0.957, contrast=1.8)
NARROW_BUT_LEARNING = BatchDispersion(relative=0.05, resultant=0.999, contrast=1.6)
COLLAPSED = BatchDispersion(relative=0.09, resultant=0.998, contrast=1.0)


SHRUNK_BUT_RANKING = BatchDispersion(relative=0.018, resultant=0.9998, contrast=1.8)


@pytest.mark.parametrize("loss", [0.97, 1.005])
@pytest.mark.parametrize("seen", [HEALTHY, DIP, NARROW_BUT_LEARNING, SHRUNK_BUT_RANKING])
def test_the_detector_stays_silent_on_runs_that_learn(seen: BatchDispersion, loss: float) -> None:
    detector = CollapseDetector(collapse_value=1.0)
    assert not any(detector.update(seen, loss) for _ in range(50))


def test_the_detector_speaks_after_its_patience() -> None:
    detector = CollapseDetector(collapse_value=1.0, num_checks=3)
    assert [detector.update(COLLAPSED, loss=1.02) for _ in range(4)] == [False, False, True, True]


def test_one_good_look_starts_the_count_again() -> None:
    detector = CollapseDetector(collapse_value=1.0, num_checks=2)
    looks = [COLLAPSED, HEALTHY, COLLAPSED, COLLAPSED]
    assert [detector.update(seen, loss=1.0) for seen in looks] == [False, False, False, True]


@pytest.mark.parametrize(
    ("ratios", "collapsed"),
    [
        ((1.02, 1.04, 1.02), True),
        ((1.0, 1.0, 1.10), False),
        ((1.2, 1.0, 1.0, 1.0), True),
    ],
)
def test_the_mean_of_the_latest_looks_decides(ratios: tuple[float, ...], collapsed: bool) -> None:
    detector = CollapseDetector(collapse_value=1.0, num_checks=3)
    seen = [detector.update(COLLAPSED._replace(contrast=ratio), loss=1.0) for ratio in ratios]
    assert seen == [False] * (len(ratios) - 1) + [collapsed]


def test_a_loss_well_below_its_collapse_value_is_safe() -> None:
    detector = CollapseDetector(collapse_value=1.0, num_checks=1)
    assert not detector.update(COLLAPSED, loss=0.5)


def test_descriptors_too_close_for_the_loss_to_see_have_collapsed() -> None:
    detector = CollapseDetector(collapse_value=1.0, num_checks=1)
    vanished = BatchDispersion(relative=0.0015, resultant=0.9999, contrast=1.2)
    assert detector.update(vanished, loss=1.0003)
    assert not detector.update(vanished, loss=0.9)
