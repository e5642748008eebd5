"""The rule that pauses trials: against a sorted list, and on curves whose ends are known."""

from itertools import pairwise

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from hpsearch.errors import UserError
from hpsearch.search.freeze_thaw import (
    HOPE,
    MARGIN,
    NEW,
    SLICES,
    Prediction,
    choose_trial,
    is_due,
)
from hpsearch.search.gp_sampler import GPSampler
from hpsearch.search.pruners import ASHA, FreezeThaw, check_may_ask, check_sampler
from hpsearch.search.samplers import GP, TPE

numbers = st.floats(-3, 3)
predictions = st.dictionaries(
    st.integers(0, 9), st.builds(Prediction, numbers, st.floats(0, 2)), max_size=6
)


@given(ends=predictions, new=st.none() | numbers, best=numbers, current=st.integers(0, 9))
def test_the_choice_is_the_first_of_a_sorted_list(
    ends: dict[int, Prediction], new: float | None, best: float, current: int
) -> None:
    hopeful = {
        t for t, end in ends.items() if new is not None or end.mean + HOPE * end.deviation > best
    }
    bounds = [(ends[t].bound + (MARGIN if t == current else 0), t) for t in hopeful]
    bounds += [] if new is None else [(new, NEW)]
    chosen = choose_trial(ends, new=new, best=best, current=current)
    if not bounds:
        assert chosen is None
        return
    highest = max(bound for bound, _ in bounds)
    assert (highest, chosen) in bounds


def test_near_equal_trials_do_not_take_turns() -> None:
    """Whichever of two runs is kept, as long as neither is better by the margin."""
    near = {0: Prediction(1.0, 0.1), 1: Prediction(1.0 + 0.9 * MARGIN, 0.1)}
    for current in near:
        assert choose_trial(near, new=0.0, best=0.0, current=current) == current
    assert choose_trial(near, new=0.0, best=0.0) == 1, "a free worker has nothing to keep"
    apart = {0: Prediction(1.0, 0.1), 1: Prediction(1.0 + 1.1 * MARGIN, 0.1)}
    assert choose_trial(apart, new=0.0, best=0.0, current=0) == 1


@given(
    steps=st.lists(st.integers(1, 400), min_size=1, max_size=150, unique=True).map(sorted),
    first=st.integers(1, 100),
)
def test_a_trial_may_pause_at_its_first_report_and_a_bounded_number_of_others(
    steps: list[int], first: int
) -> None:
    due = [
        seen
        for before, seen in pairwise([0, *steps])
        if is_due(seen, before, first=first, budget=400)
    ]
    assert due[:1] == [step for step in steps if step >= first][:1]
    assert len(due) <= SLICES + 2
    assert len({SLICES * seen // 400 for seen in due[1:]}) == len(due[1:])


def test_a_trial_that_began_well_is_resumed_before_one_that_began_badly() -> None:
    """Curves of two kinds: what the better half of the space gives is far above the other."""

    def suggest(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1)

    study = optuna.create_study(direction="maximize", sampler=GPSampler(suggest, seed=0, budget=10))
    for x in np.linspace(0.05, 0.95, 10):
        study.enqueue_trial({"x": float(x)})
        trial = study.ask()
        for step in range(1, 11 if trial.number % 3 == 0 else 2):
            trial.report(suggest(trial) * (0.5 + 0.05 * step), step)
        if trial.number % 3 == 0:
            study.tell(trial, suggest(trial))
    outlook = GPSampler(suggest, seed=0, budget=10).outlook(study)
    paused = [t.number for t in study.trials if t.state == TrialState.RUNNING]
    ends = {number: outlook.trials[number] for number in paused}
    assert sorted(paused, key=lambda n: ends[n].mean) == paused, "in the order of their ends"
    assert choose_trial(ends, new=None, best=-np.inf) == paused[-1]
    assert choose_trial(ends, new=None, best=np.inf) is None, "none may become better than that"
    done = [outlook.trials[number].deviation for number in (0, 3, 6, 9)]
    assert max(done) < min(end.deviation for end in ends.values())


def test_what_cannot_pause_is_refused_with_what_to_write_instead() -> None:
    check_sampler(GP(), 1, FreezeThaw())
    for sampler, objectives, code, instead in (
        (TPE(), 1, "pruner-with-sampler", r"sampler=GP\(\), or pruner=ASHA"),
        (GP(), 2, "pruner-with-objectives", r"pruner=NoPruner\(\)"),
    ):
        with pytest.raises(UserError, match=instead) as caught:
            check_sampler(sampler, objectives, FreezeThaw())
        assert caught.value.code == code
    check_may_ask(ASHA(), "one")
    with pytest.raises(UserError, match="hpsearch resume one") as caught:
        check_may_ask(FreezeThaw(), "one")
    assert caught.value.code == "pruner-pauses"
