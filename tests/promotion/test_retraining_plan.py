"""Which configurations are trained again, and which network is taken."""

from dataclasses import replace
from pathlib import Path

import pytest

from hpsearch.config import SGD, TrialConfig
from hpsearch.errors import UserError
from hpsearch.promotion.retraining_plan import (
    RetrainingPlan,
    RetrainingScale,
    SelectedConfig,
    make_plan,
)
from hpsearch.promotion.retraining_results import (
    RetrainingResult,
    explain_selection,
    median_run,
    rank,
    rank_correlation,
    retraining_table,
)
from hpsearch.search.objective import MEAN_MAP, Objective
from hpsearch.tracking.run_state import Run, RunStatus

SECONDS = Objective(metric="train/seconds", direction="minimize", worst=1e7)


def run(
    number: int, value: float, *, lr: float = 0.1, seed: int = 0, status: RunStatus = "completed"
) -> Run:
    config = TrialConfig(optimizer=SGD(lr=lr), seed=seed)
    report = {"seen": 100, "objective": value, "metrics": {}}
    return Run(
        f"{number:03d}", number, config, started=0.0, status=status, reason="why", reports=(report,)
    )


def again(found: RetrainingPlan, values: dict[float, list[float | RunStatus]]) -> list[Run]:
    """Runs of a promotion, by learning rate and seed."""
    runs = []
    for number, config in enumerate(found.configs):
        assert isinstance(config.optimizer, SGD)
        value = values[config.optimizer.lr][config.seed - 1]
        shown, status = (0.9, value) if isinstance(value, str) else (value, "completed")
        found_run = run(number, shown, lr=config.optimizer.lr, seed=config.seed, status=status)
        runs.append(found_run)
    return runs


def test_the_best_completed_configurations_are_chosen_with_seeds_of_their_own() -> None:
    runs = [
        run(0, 0.5, lr=0.1),
        run(1, 0.9, lr=0.2, status="pruned"),
        run(2, 0.7, lr=0.3, seed=4),
        run(3, 0.6, lr=0.4),
    ]
    found = make_plan("s", runs, MEAN_MAP, top=2, seeds=2)
    assert [one.trial for one in found.selected] == ["002", "003"]
    assert [config.seed for config in found.configs] == [5, 1, 6, 2]
    assert [one.trial for one in make_plan("s", runs, SECONDS, top=1, seeds=1).selected] == ["000"]


def test_trials_that_differ_in_their_seed_alone_are_one_configuration() -> None:
    runs = [run(0, 0.9, seed=0), run(1, 0.1, seed=3), run(2, 0.6, lr=0.2)]
    found = make_plan("s", runs, MEAN_MAP, top=3, seeds=1)
    assert [(one.trial, one.objective) for one in found.selected] == [("002", 0.6), ("000", 0.5)]
    assert [config.seed for config in found.configs] == [1, 4]


def test_the_same_seed_again_counts_once() -> None:
    runs = [run(0, 0.9, seed=1), run(1, 0.9, seed=1), run(2, 0.9, seed=1), run(3, 0.1, seed=2)]
    found = make_plan("s", runs, MEAN_MAP, top=1, seeds=1)
    assert found.selected[0].objective == pytest.approx(0.5)
    assert found.selected[0].config.seed == 2


def test_a_search_without_a_completed_trial_is_one_sentence() -> None:
    with pytest.raises(UserError, match="'empty'") as caught:
        make_plan("empty", [run(0, 0.5, status="pruned")], MEAN_MAP, top=3, seeds=3)
    assert caught.value.code == "no-completed-trial"


def test_more_trainings_than_anybody_wants_are_refused() -> None:
    with pytest.raises(UserError, match="99999999999") as caught:
        make_plan("s", [run(0, 0.5)], MEAN_MAP, top=1, seeds=99_999_999_999)
    assert caught.value.code == "too-many-seeds"


def test_the_mean_over_seeds_decides_and_not_the_luckiest_seed() -> None:
    found = make_plan("s", [run(0, 0.9, lr=0.1), run(1, 0.8, lr=0.2)], MEAN_MAP, top=2, seeds=3)
    ranked = rank(found, again(found, {0.1: [0.95, 0.2, 0.2], 0.2: [0.6, 0.5, 0.55]}), MEAN_MAP)
    assert [result.selected.trial for result in ranked] == ["001", "000"]
    taken = median_run(ranked[0], MEAN_MAP)
    assert taken.config.seed == 3, "0.55 is the median of 0.6, 0.5, 0.55"
    assert "trial 001" in explain_selection(ranked, taken, MEAN_MAP)
    assert retraining_table(ranked).rows[0][:6] == (
        "001",
        "0.8000",
        "0.6000",
        "0.5000",
        "0.5500",
        "0.5500",
    )


@pytest.mark.parametrize("status", ["collapsed", "diverged", "failed"])
def test_a_training_that_does_not_complete_counts_with_the_worst(status: RunStatus) -> None:
    found = make_plan("s", [run(0, 0.9, lr=0.1), run(1, 0.5, lr=0.2)], MEAN_MAP, top=2, seeds=3)
    ranked = rank(found, again(found, {0.1: [0.9, 0.9, status], 0.2: [0.7] * 3}), MEAN_MAP)
    assert [result.selected.trial for result in ranked] == ["001", "000"]
    assert ranked[1].values == (0.9, 0.9, 0.0)
    assert status in retraining_table(ranked).rows[1]


def test_configurations_that_tie_stand_as_in_the_search() -> None:
    found = make_plan("s", [run(0, 0.5, lr=0.1), run(1, 0.9, lr=0.2)], MEAN_MAP, top=2, seeds=1)
    ranked = rank(found, again(found, {0.1: [0.7], 0.2: [0.7]}), MEAN_MAP)
    assert [result.selected.trial for result in ranked] == ["001", "000"]
    assert ranked[0].standard_deviation == 0.0


def test_nothing_is_taken_where_most_trainings_collapse() -> None:
    found = make_plan("s", [run(0, 0.9)], MEAN_MAP, top=1, seeds=3)
    (only,) = rank(found, again(found, {0.1: [0.9, "collapsed", "collapsed"]}), MEAN_MAP)
    with pytest.raises(UserError, match="collapsed") as caught:
        median_run(only, MEAN_MAP)
    assert caught.value.code == "unreliable-configuration"


@pytest.mark.parametrize(
    ("objective", "values", "seed"),
    [
        (MEAN_MAP, [0.4, 0.3, 0.2, 0.1], 3),
        (SECONDS, [4.0, 3.0, 2.0, 1.0], 2),
        (MEAN_MAP, [0.4], 1),
    ],
)
def test_of_an_even_number_the_worse_of_the_middle_two(
    objective: Objective, values: list[float], seed: int
) -> None:
    found = make_plan("s", [run(0, 1.0)], objective, top=1, seeds=len(values))
    (only,) = rank(found, again(found, {0.1: [*values]}), objective)
    assert isinstance(only, RetrainingResult)
    assert median_run(only, objective).config.seed == seed


def test_a_plan_round_trips(tmp_path: Path) -> None:
    found = make_plan("s", [run(0, 0.9)], MEAN_MAP, top=1, seeds=2)
    assert RetrainingPlan.model_validate_json(found.model_dump_json()) == found


def test_a_plan_at_another_scale_trains_the_same_configurations_larger() -> None:
    runs = [run(0, 0.5, lr=0.1), run(1, 0.7, lr=0.2, seed=4)]
    scale = RetrainingScale(budget=5_000, width=0.5)
    found = make_plan("s", runs, MEAN_MAP, top=2, seeds=1, scale=scale)
    assert [one.config.patches for one in found.selected] == [TrialConfig().patches] * 2, (
        "as in the search"
    )
    assert [(c.patches, c.descriptor.width, c.seed) for c in found.configs] == [
        (5_000, 0.5, 5),
        (5_000, 0.5, 1),
    ]
    ended = [
        replace(run(number, number), config=config) for number, config in enumerate(found.configs)
    ]
    assert [result.selected.trial for result in rank(found, ended, MEAN_MAP)] == ["000", "001"]
    assert scale.suffix == "-5000-w0.5"


@pytest.mark.parametrize(
    ("in_search", "retrained", "expected"),
    [
        ([3, 2, 1], [0.9, 0.8, 0.7], 1.0),
        ([3, 2, 1], [0.7, 0.8, 0.9], -1.0),
        ([4, 3, 2, 1], [0.8, 0.9, 0.7, 0.6], 0.8),
        ([3, 3, 1], [0.9, 0.8, 0.7], 0.8660254),
        ([2, 1], [0.9, 0.8], None),
        ([1, 1, 1], [0.9, 0.8, 0.7], None),
    ],
)
def test_ranks_of_search_and_retrainings_are_correlated(
    in_search: list[float], retrained: list[float], expected: float | None
) -> None:
    """Spearman's coefficient, worked out by hand."""
    config = TrialConfig()
    results = [
        RetrainingResult(SelectedConfig(trial=str(n), objective=one, config=config), (), (mean,))
        for n, (one, mean) in enumerate(zip(in_search, retrained, strict=True))
    ]
    found = rank_correlation(results)
    assert found == (expected if expected is None else pytest.approx(expected))
