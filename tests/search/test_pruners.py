"""Rules that stop trials: against Ray's own, against literals, and after an interruption."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import AsyncHyperBandScheduler

from hpsearch.search.halving import TRAINS_ON_ATTR, SuccessiveHalving
from hpsearch.search.pruners import (
    ASHA,
    MIN_PEERS,
    PASHA,
    Hyperband,
    Median,
    MedianStoppingRule,
    NoPruner,
    Pruner,
    PrunerWithHistory,
    build_pruner,
    rung_steps,
)

GRACE, BUDGET = 100, 1000
SETTINGS: tuple[Pruner, ...] = (
    ASHA(reduction_factor=2),
    PASHA(reduction_factor=2),
    Hyperband(reduction_factor=2),
    Median(),
    NoPruner(),
)
Report = tuple[int, int, float]


def history(settings: Pruner, *, maximize: bool = True, events: Any = ()) -> PrunerWithHistory:
    pruner = build_pruner(settings, grace_period=GRACE, budget=BUDGET)
    direction = "maximize" if maximize else "minimize"
    return PrunerWithHistory(pruner, direction=direction, name="s", events=events)


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


def decisions(pruner: PrunerWithHistory, reports: list[Report]) -> list[bool]:
    return [pruner.should_prune(number, seen=seen, value=value) for number, seen, value in reports]


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
    ours, ended = history(ASHA(reduction_factor=reduction)), set()
    for number, seen, value in reports:
        if number in ended:
            continue
        result = {"seen": seen, "value": value}
        message = theirs.on_trial_result(None, trials[number], result)  # type: ignore[arg-type]
        stop = ours.should_prune(number, seen=seen, value=value)
        assert stop == (message == "STOP")
        if stop:
            ended.add(number)


@given(searches(), st.sampled_from(SETTINGS), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_search_in_two_sessions_decides_as_one(
    reports: list[Report], rule: Pruner, cut: int
) -> None:
    """The last report before the interruption is told again, as a worker does."""
    whole = decisions(history(rule, maximize=False), reports)
    starts = [{"event": "start", "trial": f"{n:03d}", "number": n} for n in range(9)]
    heard = [
        {"event": "report", "trial": f"{number:03d}", "seen": seen, "objective": value}
        for number, seen, value in reports[:cut]
    ]
    second = history(
        rule, maximize=False, events=[*starts, *heard, {"event": "search_finished", "trial": "000"}]
    )
    again = max(0, cut - 1)
    assert decisions(second, reports[again:])[1:] == whole[again + 1 :]


def test_rungs_are_below_the_budget() -> None:
    assert rung_steps(12_000, budget=48_000, reduction_factor=3) == (12_000, 36_000)
    assert rung_steps(12_000, budget=36_000, reduction_factor=3) == (12_000,)
    assert rung_steps(12_000, budget=12_000, reduction_factor=3) == ()


def test_a_direction_to_minimize_keeps_the_small() -> None:
    pruner = history(ASHA(reduction_factor=2), maximize=False)
    assert decisions(pruner, [(0, 100, 0.3), (1, 100, 0.2), (2, 100, 0.9)]) == [False, False, True]


def test_a_median_stops_the_worst_once_enough_others_have_come_as_far() -> None:
    pruner = history(Median())
    for number, value in enumerate([0.5, 0.6, 0.1]):
        assert not pruner.should_prune(number, seen=100, value=value)
    assert not pruner.should_prune(3, seen=100, value=0.5)
    assert pruner.should_prune(4, seen=100, value=0.4)
    assert not pruner.should_prune(5, seen=50, value=0.0), "not before its grace period"


def slow_median(reports: list[Report]) -> list[bool]:
    """Every report against the means of all others that have come as far."""
    message: dict[int, list[tuple[int, float]]] = {}
    found = []
    for number, seen, value in reports:
        own = message.setdefault(number, [])
        own.append((seen, value))
        before = [
            [v for at, v in other if at <= seen]
            for trial, other in message.items()
            if trial != number and other[-1][0] >= seen
        ]
        means = [np.mean(values) for values in before if values]
        enough = seen >= GRACE and len(means) >= MIN_PEERS
        found.append(enough and bool(max(v for _, v in own) < np.median(means)))
    return found


@st.composite
def overshooting(draw: st.DrawFn) -> list[Report]:
    """Reports of trials that overshoot by their batch, in any order among each other.

    Values are sixteenths, so that means do not depend on the order of a sum.
    """
    batches = draw(st.lists(st.sampled_from([30, 50, 70, 130]), min_size=4, max_size=12))
    latest = [0] * len(batches)
    reports = []
    for number in draw(st.lists(st.integers(0, len(batches) - 1), max_size=60)):
        latest[number] += (50 // batches[number] + 1) * batches[number]
        reports.append((number, latest[number], draw(st.integers(0, 16)) / 16))
    return reports


@given(overshooting())
@settings(max_examples=100, deadline=None)
def test_the_median_decides_as_its_definition(reports: list[Report]) -> None:
    pruner = PrunerWithHistory(MedianStoppingRule(GRACE), direction="maximize", name="s")
    stopped, found = set(), []
    for report, expected in zip(reports, slow_median(reports), strict=True):
        stopped |= {report[0]} if expected else set()
        found.append(report[0] in stopped)
    assert decisions(pruner, reports) == found


@pytest.mark.parametrize(
    "settings", [ASHA(), PASHA(), Median()], ids=lambda settings: settings.kind
)
def test_a_trial_that_trains_on_is_judged_on_what_is_new_alone(settings: Pruner) -> None:
    """Its parent passed the rungs before, and stands no longer beside it."""
    events: list[dict] = []
    for number in range(6):
        name = f"{number:03d}"
        events.append({"event": "start", "trial": name, "number": number, "drawn": {}})
        for seen in range(100, 400, 100):
            fields = {"trial": name, "seen": seen, "objective": number / 10}
            events.append({"event": "report", **fields})
        events.append({"event": "trial_finished", "trial": name, "status": "completed"})
    pruner = history(settings, events=events)
    for number, parent in ((6, "003"), (7, "005")):
        pruner.train_on(number, parent)
        value = int(parent) / 10
        assert not pruner.should_prune(number, seen=300, value=value), "the parent's last report"
        assert not pruner.should_prune(number, seen=350, value=value), "no new rung"
    again = history(settings, events=[
        *events,
        {"event": "start", "trial": "006", "number": 6, "drawn": {"parent": "003"}},
        {"event": "report", "trial": "006", "seen": 300, "objective": 0.3},
    ])  # fmt: skip
    assert not again.should_prune(6, seen=350, value=0.3), "also when it is resumed"


def test_of_a_trial_and_the_one_that_it_trains_on_a_rung_knows_one() -> None:
    pruner = SuccessiveHalving((100, 300), reduction_factor=2)
    study = optuna.create_study(pruner=pruner, direction="maximize")
    for value, parent in ((0.1, None), (0.5, None), (0.5, 1)):
        trial = study.ask()
        trial.report(value, 100)
        if parent is not None:
            trial.set_user_attr(TRAINS_ON_ATTR, parent)
    assert pruner.values_at(study, 0) == {0: 0.1, 2: 0.5}


def test_hyperband_is_optunas_and_begins_to_stop_later_in_some_brackets() -> None:
    pruner, first = history(Hyperband(reduction_factor=2)), []
    for number in range(60):  # each worse than all before
        for seen in range(100, BUDGET, 100):
            if pruner.should_prune(number, seen=seen, value=-number):
                first.append(seen)
                break
    assert {100, 200, 400} <= set(first)


def test_optunas_pruners_see_which_trials_have_ended() -> None:
    """Its median looks at completed trials alone."""
    optunas = optuna.pruners.MedianPruner(n_startup_trials=2)
    pruner = PrunerWithHistory(optunas, direction="maximize", name="s")
    for number in range(2):
        pruner.should_prune(number, seen=100, value=0.5)
    assert not pruner.should_prune(2, seen=100, value=0.1)
    for number in range(2):
        pruner.finish(number, completed=True)
    assert pruner.should_prune(3, seen=100, value=0.1)


@pytest.mark.parametrize("settings", SETTINGS[:3], ids=lambda settings: settings.kind)
def test_a_pruner_spends_less_where_trials_differ(settings: Pruner) -> None:
    pruner, spent = history(settings), 0
    for number, quality in enumerate(np.random.default_rng(0).permutation(40) / 40):
        for seen in range(100, BUDGET, 100):
            spent += 100
            if pruner.should_prune(number, seen=seen, value=float(quality)):
                break
    assert spent < 0.75 * 40 * (BUDGET - 100)
