"""Fronts and patience, against definitions written out."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import TrialConfig
from hpsearch.search.objective import MATCHING, MEAN_MAP, TRAINING_SECONDS, VERIFICATION
from hpsearch.search.outcome import hypervolume, pareto_front, weakly_dominates
from hpsearch.search.stopping import trials_without_improvement
from hpsearch.tracking.run_state import Run

BOTH = (MEAN_MAP, TRAINING_SECONDS)
VALUES = st.tuples(st.integers(0, 4).map(lambda n: n / 4), st.integers(1, 4).map(float))


def run(number: int, values: tuple[float, float], status: str = "completed") -> Run:
    score, seconds = values
    report = {"seen": 9, "objective": score, "metrics": {"train/seconds": seconds}}
    return Run(
        id=f"{number:03d}",
        number=number,
        config=TrialConfig(),
        started=0.0,
        status=status,  # type: ignore[arg-type]
        reports=(report,),
    )


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] >= other[0] and one[1] <= other[1] and one != other


@given(st.lists(VALUES, max_size=12))
def test_the_front_is_what_nobody_beats(values: list[tuple[float, float]]) -> None:
    runs = [run(i, pair) for i, pair in enumerate(values)]
    front = {found.number for found in pareto_front(runs, BOTH)}
    assert front == {
        i for i, pair in enumerate(values) if not any(beats(other, pair) for other in values)
    }


def test_the_front_begins_with_the_best_in_the_first_objective() -> None:
    runs = [run(0, (0.5, 1.0)), run(1, (0.8, 9.0)), run(2, (0.6, 4.0)), run(3, (0.4, 5.0))]
    assert [found.number for found in pareto_front(runs, BOTH)] == [1, 2, 0]


@pytest.mark.parametrize("status", ["pruned", "collapsed", "diverged", "failed", "running"])
def test_only_completed_runs_stand_on_the_front(status: str) -> None:
    runs = [run(0, (0.9, 0.1), status), run(1, (0.5, 5.0))]
    assert [found.number for found in pareto_front(runs, BOTH)] == [1]


@given(st.lists(st.none() | VALUES, max_size=12))
def test_a_trial_is_fruitless_if_one_before_it_is_as_good_in_all(
    values: list[tuple[float, float] | None],
) -> None:
    improved = [
        pair is not None
        and not any(
            before is not None and (before == pair or beats(before, pair)) for before in values[:i]
        )
        for i, pair in enumerate(values)
    ]
    since = list(itertools.takewhile(lambda better: not better, reversed(improved)))
    assert trials_without_improvement(values, BOTH) == len(since)


@pytest.mark.parametrize(
    ("patience_offset", "fruitless_after"), [(0, 3), (1, 3), (3, 2), (5, 0), (9, 0)]
)
def test_what_is_before_the_offset_is_not_counted_but_must_still_be_beaten(
    patience_offset: int, fruitless_after: int
) -> None:
    endings = [(0.5, 1.0), (0.8, 1.0), (0.7, 1.0), None, (0.8, 1.0)]
    assert (
        trials_without_improvement(endings, BOTH, patience_offset=patience_offset)
        == fruitless_after
    )


@given(VALUES, VALUES)
def test_one_covers_the_other_or_is_better_somewhere(
    one: tuple[float, float], other: tuple[float, float]
) -> None:
    assert weakly_dominates(one, other, BOTH) == (one == other or beats(one, other))


POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=2, max_size=6)
THREE = (MEAN_MAP, MATCHING, VERIFICATION)


@given(POINTS)
def test_the_hypervolume_is_the_share_of_cells_that_some_trial_dominates(
    points: list[tuple[float, float, float]],
) -> None:
    runs = [run3(i, point) for i, point in enumerate(points)]
    low, high = ([pick(column) for column in zip(*points, strict=True)] for pick in (min, max))
    found = hypervolume(runs, THREE)
    if any(a == b for a, b in zip(low, high, strict=True)):
        assert found is None
        return
    edges = [range(int(a), int(b)) for a, b in zip(low, high, strict=True)]
    cells = list(itertools.product(*edges))
    dominated = [
        c for c in cells if any(all(v > x for v, x in zip(p, c, strict=True)) for p in points)
    ]
    assert found == pytest.approx(len(dominated) / len(cells))


def run3(number: int, values: tuple[float, float, float]) -> Run:
    metrics = {"val/matching": values[1], "val/verification": values[2]}
    report = {"seen": 9, "objective": values[0], "metrics": metrics}
    return replace(run(number, (0.0, 1.0)), reports=(report,))


def test_a_minimized_objective_counts_downwards_and_one_objective_has_no_volume() -> None:
    runs = [run(0, (0.5, 1.0)), run(1, (1.0, 3.0)), run(2, (0.0, 2.0))]
    assert hypervolume(runs, BOTH) == pytest.approx(0.5), "(0.5, 1) alone; (1, 3) is on the edge"
    assert hypervolume(runs, (MEAN_MAP,)) is None
    assert hypervolume([run(0, (0.5, 1.0), "infeasible"), *runs[1:]], BOTH) == pytest.approx(0.0)
