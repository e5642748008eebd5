"""Importance of settings, on studies whose truth is known."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hpsearch.config import Clean
from hpsearch.reporting.importance import Importance, divide, importance
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]
EVERY = 500


def study(
    make_run: MakeRun, count: int, *, truth: bool, seed: int = 0, num_pruned: int = 0
) -> list[Run]:
    """Trials with a random learning rate, α and batch; only the learning rate may matter.

    The last ``num_pruned`` were pruned after the first report.
    """
    rng = np.random.default_rng(seed)
    runs = []
    for number in range(count):
        lr, alpha = 10 ** rng.uniform(-4, -1), rng.uniform(0.2, 1.0)
        value = 0.6 + 0.02 * rng.standard_normal() + (0.1 * np.log10(lr) if truth else 0.0)
        late = {EVERY: value, 2 * EVERY + 12: value + 0.1}
        is_pruned = number >= count - num_pruned
        runs.append(
            make_run(
                number, "pruned" if is_pruned else "completed",
                {EVERY: value} if is_pruned else late,
                rate=lr, alpha=alpha, groups=int(rng.choice([16, 32])),
            )
        )  # fmt: skip
    return runs


def named(found: Importance) -> list[str]:
    return [effect.setting for effect in found.shown]


def test_the_setting_that_matters_is_shown_with_its_interval(make_run: MakeRun) -> None:
    found = importance(study(make_run, 40, truth=True), report_every=EVERY)
    assert named(found) == ["optimizer.lr"]
    assert sorted(found.uncertain) == ["loss.margin.alpha", "sampler.groups"]
    (effect,) = found.shown
    assert 0.6 < effect.low < effect.share < effect.high < 1.0
    assert found.missing == ""


@pytest.mark.parametrize("count", [12, 40])
def test_nothing_is_said_where_nothing_matters(make_run: MakeRun, count: int) -> None:
    shown = [
        named(importance(study(make_run, count, truth=False, seed=seed), report_every=EVERY))
        for seed in range(40)
    ]
    # at 5 % a search, six or more of 40 have a chance of 1.4 %
    assert sum(map(bool, shown)) < 6


def test_pruned_trials_count_at_the_number_of_patches_that_all_have_seen(
    make_run: MakeRun,
) -> None:
    runs = study(make_run, 24, truth=True, num_pruned=20)
    found = importance(runs, report_every=EVERY)
    assert (found.configurations, found.seen) == (24, EVERY)
    assert named(found) == ["optimizer.lr"]
    assert named(importance(runs[:4], report_every=EVERY)) == []
    # the later values of the four that went on do not count
    later = [replace(run, reports=(run.reports[0], *run.reports[2:])) for run in runs]
    assert importance(later, report_every=EVERY) == found


def test_four_good_trials_say_nothing(make_run: MakeRun) -> None:
    found = importance(study(make_run, 4, truth=True), report_every=EVERY)
    assert found.shown == []
    assert "too few" in found.missing
    assert "4 of at least 10" in found.missing
    assert "0 of at least" in importance([], report_every=EVERY).missing


def test_a_trial_that_has_not_come_so_far_is_not_compared(make_run: MakeRun) -> None:
    runs = study(make_run, 12, truth=True)
    short = [make_run(20, "interrupted", {EVERY: 0.1}), make_run(21, "running"), make_run(22)]
    assert importance([*runs, *short], report_every=EVERY).configurations == 12
    collapsed = make_run(23, "collapsed", {EVERY: 0.3, EVERY + 20: None}, rate=0.5)
    assert importance([*runs, collapsed], report_every=EVERY).configurations == 13


def test_seeds_of_one_configuration_count_once(make_run: MakeRun) -> None:
    runs = study(make_run, 12, truth=True)
    again = [
        replace(run, id=f"again{n}", config=run.config.model_copy(update={"seed": 1}))
        for n, run in enumerate(runs)
    ]
    found = importance([*runs, *again], report_every=EVERY)
    assert found == importance(runs, report_every=EVERY)


@pytest.mark.parametrize("factor", [1.0, -3.0])
def test_only_the_order_of_the_objective_counts(make_run: MakeRun, factor: float) -> None:
    def scaled(runs: Sequence[Run]) -> list[Run]:
        return [
            replace(
                run,
                reports=tuple(
                    {**r, "objective": factor * r["objective"] ** 3} for r in run.reports
                ),
            )
            for run in runs
        ]

    runs = study(make_run, 30, truth=True)
    found, other = (importance(some, report_every=EVERY) for some in (runs, scaled(runs)))
    assert named(found) == named(other)
    assert found.shown[0].share == pytest.approx(other.shown[0].share)


def test_an_effect_worked_out_by_hand(make_run: MakeRun) -> None:
    """Ranks 1 to 6 and 7 to 12: between groups 108 of 143, within 35 over 10, so F = 30.86."""
    runs = [
        make_run(
            n, "completed", {EVERY: 0.1 * n}, groups=16 if n < 6 else 32,
            alpha=0.2 + n * 5 % 12 / 20,
        )
        for n in range(12)
    ]  # fmt: skip
    found = importance(runs, report_every=EVERY)
    assert named(found) == ["sampler.groups"]
    (effect,) = found.shown
    assert effect.share == pytest.approx(1 - 3.5 / 13)
    # two of the 924 halves are as far apart; of two settings the stronger counts twice
    assert effect.p_value == pytest.approx(2 * 2 / 924, abs=4e-3)
    for bound, probability in ((effect.low, 0.975), (effect.high, 0.025)):
        noncentrality = 12 * bound / (1 - bound)
        cdf = stats.ncf.cdf(108 / 3.5, 1, 10, noncentrality)
        assert cdf == pytest.approx(probability, abs=1e-3)


def test_settings_that_always_change_together_are_one(make_run: MakeRun) -> None:
    runs = study(make_run, 12, truth=True)
    runs = [
        replace(run, config=run.config.model_copy(update={"input": Clean()}))
        if run.config.sampler.patches == 64
        else run
        for run in runs
    ]
    settings = [effect.setting for effect in importance(runs, report_every=EVERY).effects]
    assert "input and sampler.groups" in settings


def test_numbers_are_divided_into_equal_ranges_and_words_are_not() -> None:
    assert divide([0.1, 0.2, 0.3, 0.4, 10, 20, 30, 40]) == (0, 0, 0, 0, 1, 1, 1, 1)
    assert divide([*range(16)]) == tuple(np.repeat(range(4), 4))
    assert divide(["a", "b", "a", "b", "c", "d"]) == (0, 1, 0, 1, 2, 2)
    assert divide([None, None, 1.0, 2.0, 3.0, 4.0]) == (0, 0, 1, 1, 2, 2)
    assert divide([True, False, True, False]) == (0, 1, 0, 1)
