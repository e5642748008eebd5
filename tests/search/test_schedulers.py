"""Rules that stop trials: against Ray's own, against literals, and after an interruption."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler

from hpsearch.search.pruners import Hyperband, Judge, Rule, SchedulerName, build_rule, rungs

GRACE, BUDGET = 100, 1000
NAMES: tuple[SchedulerName, ...] = ("asha", "hyperband", "median", "none")
Report = tuple[int, int, float]


def rule(name: SchedulerName, reduction: float = 2) -> Rule:
    found = build_rule(name, grace=GRACE, budget=BUDGET, reduction=reduction)
    assert found is not None
    return found


@st.composite
def searches(draw: st.DrawFn) -> list[Report]:
    """Reports of up to nine trials at every 100 patches, in any order between trials."""
    trials = draw(st.integers(1, 9))
    order = draw(st.lists(st.integers(0, trials - 1), max_size=60))
    seen, reports = Counter(), []
    for number in order:
        seen[number] += 1
        if seen[number] <= 9:
            value = draw(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.5001, 0.9, 1.0]))
            reports.append((number, 100 * seen[number], value))
    return reports


def decisions(judge: Judge, reports: list[Report]) -> list[bool]:
    return [judge.stops(number, seen=seen, value=value) for number, seen, value in reports]


@given(searches(), st.sampled_from([2, 3]))
@settings(max_examples=60, deadline=None)
def test_asha_decides_as_rays(reports: list[Report], reduction: int) -> None:
    theirs = AsyncHyperBandScheduler(
        time_attr="seen", metric="value", mode="max", max_t=BUDGET, grace_period=GRACE,
        reduction_factor=reduction,
    )  # fmt: skip
    trials = {n: SimpleNamespace(trial_id=str(n)) for n in range(9)}
    for trial in trials.values():
        theirs.on_trial_add(None, trial)  # type: ignore[arg-type]
    ours, ended = rule("asha", reduction), set()
    for number, seen, value in reports:
        if number in ended:
            continue
        result = {"seen": seen, "value": value}
        said = theirs.on_trial_result(None, trials[number], result)  # type: ignore[arg-type]
        stop = ours.stops(number, seen, value)
        assert stop == (said == "STOP")
        if stop:
            ended.add(number)


@given(searches(), st.sampled_from(NAMES), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_search_in_two_sessions_decides_as_one(
    reports: list[Report], name: SchedulerName, cut: int
) -> None:
    """The last report before the interruption is told again, as a worker does."""

    def judge(events: list[dict] | None = None) -> Judge:
        made = build_rule(name, grace=GRACE, budget=BUDGET, reduction=2)
        return Judge(made, maximize=False, events=events or [])

    whole = decisions(judge(), reports)
    starts = [{"event": "start", "trial": f"{n:03d}", "number": n} for n in range(9)]
    heard = [
        {"event": "report", "trial": f"{number:03d}", "seen": seen, "objective": value}
        for number, seen, value in reports[:cut]
    ]
    second = judge([*starts, *heard, {"event": "end", "trial": "000"}, {"event": "finish"}])
    again = max(0, cut - 1)
    assert decisions(second, reports[again:])[1:] == whole[again + 1 :]


def test_rungs_are_below_the_budget() -> None:
    assert rungs(grace=12_000, budget=48_000, reduction=3) == (12_000, 36_000)
    assert rungs(grace=12_000, budget=36_000, reduction=3) == (12_000,)
    assert rungs(grace=12_000, budget=12_000, reduction=3) == ()


def test_a_direction_to_minimise_keeps_the_small() -> None:
    judge = Judge(rule("asha"), maximize=False)
    assert decisions(judge, [(0, 100, 0.3), (1, 100, 0.2), (2, 100, 0.9)]) == [False, False, True]


def test_hyperbands_brackets_have_their_shares_and_begin_to_stop_later() -> None:
    found = rule("hyperband")
    assert isinstance(found, Hyperband)
    assert [halving.rungs[0] for halving in found.brackets] == [100, 200, 400]
    counts = Counter(found.bracket(number) for number in range(230))
    sizes = np.array([4 / 3, 2 / 2, 1 / 1])
    np.testing.assert_allclose([counts[k] / 230 for k in range(3)], sizes / sizes.sum(), atol=0.02)
    assert len({found.bracket(number) for number in range(6)}) == 3


def test_median_stops_the_worst_once_three_others_have_come_as_far() -> None:
    median = rule("median")
    for number, value in enumerate([0.5, 0.6, 0.1]):
        assert not median.stops(number, 100, value)
    assert not median.stops(3, 100, 0.5)
    assert median.stops(4, 100, 0.4)
    assert not median.stops(5, 50, 0.0), "not before its grace"


@pytest.mark.parametrize("name", ["asha", "hyperband", "median"])
def test_a_rule_spends_less_where_trials_differ(name: SchedulerName) -> None:
    judge, spent = Judge(rule(name), maximize=True), 0
    for number, quality in enumerate(np.random.default_rng(0).permutation(40) / 40):
        for seen in range(100, BUDGET, 100):
            spent += 100
            if judge.stops(number, seen=seen, value=float(quality)):
                break
    assert spent < 0.75 * 40 * (BUDGET - 100)
    assert build_rule("none", grace=GRACE, budget=BUDGET, reduction=2) is None
