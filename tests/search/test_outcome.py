"""Fronts and patience, against definitions written out."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import TrialConfig
from hpsearch.search.objective import MEAN_MAP, TRAINING_SECONDS
from hpsearch.search.outcome import pareto_front, weakly_dominates
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
