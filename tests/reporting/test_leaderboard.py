from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.reporting.leaderboard import (
    STATUS_ORDER,
    TaskScores,
    last_objective,
    leaderboard,
    shown_status,
    summarize,
    task_scores,
    trial_seconds,
)
from hpsearch.reporting.text_tables import summary_lines
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]
ENDINGS = st.tuples(
    st.sampled_from(STATUS_ORDER),
    st.dictionaries(
        st.integers(1, 1000), st.none() | st.floats(0.01, 1, allow_subnormal=False), max_size=3
    ),
)


@st.composite
def endings(draw: st.DrawFn) -> list[tuple[str, dict[int, float | None]]]:
    several = draw(st.lists(ENDINGS, max_size=8))
    return [(status, dict(sorted(curve.items()))) for status, curve in several]


@given(endings(), st.sampled_from(["maximize", "minimize"]))
def test_groups_stand_in_order_and_the_objective_decides_within(
    make_run: MakeRun, several: list, direction: Any
):
    runs = [make_run(number, *ending) for number, ending in enumerate(several)]
    rows = leaderboard(runs, direction=direction)
    assert sorted(row.run.number for row in rows) == list(range(len(runs)))
    assert [row.rank for row in rows] == list(range(1, len(runs) + 1))
    failed = ("failed", "diverged", "collapsed")
    scored = [r for r in rows if r.objective is not None and r.status not in failed]
    silent = [r for r in rows if r.objective is None and r.status not in failed]
    assert rows[: len(scored) + len(silent)] == scored + silent
    groups = [STATUS_ORDER.index(row.status) for row in scored]
    assert groups == sorted(groups)
    groups = [STATUS_ORDER.index(row.status) for row in rows if row.status in failed]
    assert groups == sorted(groups)
    for status in STATUS_ORDER:
        values = [row.objective for row in rows if row.status == status]
        known = [value for value in values if value is not None]
        assert known == sorted(known, reverse=direction == "maximize")
        assert values == known + [None] * (len(values) - len(known))


@given(endings())
def test_the_order_of_the_runs_does_not_matter(make_run: MakeRun, several: list):
    runs = [make_run(number, *ending) for number, ending in enumerate(several)]
    there = leaderboard(runs, direction="maximize")
    back = leaderboard(runs[::-1], direction="maximize")
    assert [row.run for row in there] == [row.run for row in back]


@pytest.mark.parametrize("status", ["completed", "pruned", "collapsed"])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_constant_encoder_ends_last_whatever_its_retrieval_says(
    make_run: MakeRun, status: str, direction: Any
):
    runs = [
        make_run(0, status, {1000: None}),  # retrieval mAP 1.0
        make_run(1, "completed", {1000: 0.2}),
        make_run(2, "failed"),
        make_run(3, "diverged", {1: 0.0}),
        make_run(4, "pruned", {100: 0.01}),
    ]
    assert runs[0].last["val/retrieval"] == 1.0
    last = leaderboard(runs, direction=direction)[-1]
    assert (last.run.number, last.status) == (0, "collapsed")


def test_the_board_of_a_mixed_search(mixed: list[Run]):
    rows = leaderboard(mixed, direction="maximize")
    assert [row.run.number for row in rows] == [0, 1, 6, 2, 7, 5, 4, 3]
    assert [row.objective for row in rows[:5]] == [0.7, 0.6, 0.3, 0.45, None]
    assert rows[0].diff == "batch hard · S×K 32×4 · adam 1e-3"
    assert [row.run.number for row in leaderboard(mixed, direction="minimize", limit=2)] == [1, 0]


def test_an_interrupted_trial_without_a_score_ranks_below_a_pruned_one(make_run: MakeRun):
    runs = [
        make_run(0, "interrupted"),
        make_run(1, "pruned", {500: 0.1}),
        make_run(2, "failed", {500: 0.9}),
        make_run(3, "interrupted", {500: 0.2}),
    ]
    rows = leaderboard(runs, direction="maximize")
    assert [row.run.number for row in rows] == [3, 1, 0, 2]


def test_what_differs_is_compared_over_all_trials(mixed: list[Run]):
    short = leaderboard(mixed, direction="maximize", limit=1)
    assert short == leaderboard(mixed, direction="maximize")[:1]


def test_the_sums_of_a_mixed_search(mixed: list[Run]):
    totals = summarize(mixed, budget=1000)
    counts = {status: getattr(totals, status) for status in STATUS_ORDER}
    assert counts == {
        "completed": 2,
        "running": 1,
        "interrupted": 1,
        "paused": 0,
        "infeasible": 0,
        "pruned": 1,
        "failed": 1,
        "diverged": 1,
        "collapsed": 1,
    }
    assert totals.trials == 8
    assert (totals.budget, totals.overshoot) == (8010, 10)
    assert totals.trained == 1010 + 1000 + 500 + 600 + 250 + 500 + 500
    assert totals.saved_by_pruning == 500
    assert totals.saved_by_detection == 400 + 750
    assert totals.lost_to_failures == 500
    assert totals.share_saved == 500 / 8010
    assert totals.share_detected == 1150 / 8010
    assert totals.share_trained == 4360 / 8010
    assert totals.seconds == 20.0
    assert totals.trial_seconds == pytest.approx(43.6)
    assert (totals.restarts, totals.retrained_patches) == (0, 0)
    assert (totals.cache_seconds_computed, totals.cache_seconds_saved) == (0.0, 0.0)


def test_what_is_shared_and_what_is_trained_again_is_added_up(make_run: MakeRun):
    made = {"shared/made_seconds": 30.0, "shared/spared_seconds": 2.0}
    found = {"shared/made_seconds": 0.0, "shared/spared_seconds": 30.0}
    crashed = replace(
        make_run(1, curve={500: 0.5}, metrics=found),
        retries=2,
        retrained_patches=250,
        restarted_attempts=(1,),
    )
    runs = [
        make_run(0, curve={500: 0.5, 1000: 0.6}, metrics=made),
        crashed,
        make_run(2, curve={500: 0.5}, metrics=found),
        make_run(3, curve={500: 0.5}, metrics=found, kind="baseline"),
    ]
    totals = summarize(runs, budget=1000)
    assert (totals.cache_seconds_computed, totals.cache_seconds_saved) == (30.0, 62.0)
    assert (totals.restarts, totals.restarts_from_scratch, totals.retrained_patches) == (2, 1, 250)
    assert summary_lines(totals)[3:6] == [
        "Trials were resumed after a failure or stop twice, which trained 250 patches again",
        "Trials were restarted from scratch once, because a checkpoint was damaged",
        "Shared denoisers and warm starts took 30 s to compute and saved 1 min 2 s",
    ]


@given(endings(), st.integers(1, 1000))
def test_nothing_is_saved_twice(make_run: MakeRun, several: list, budget: int):
    runs = [make_run(n, *ending) for n, ending in enumerate(several)]
    totals = summarize(runs, budget=budget)
    trained = sum(min(run.seen, budget) for run in runs)
    assert totals.saved_by_pruning + totals.saved_by_detection + trained <= totals.budget
    assert 0 <= totals.share_saved + totals.share_detected <= 1


def test_no_trials_at_all(make_run: MakeRun):
    totals = summarize([], budget=1000)
    assert (totals.trials, totals.share_saved, totals.seconds) == (0, 0.0, 0.0)
    assert leaderboard([], direction="maximize") == []
    silent = make_run(0, "running")
    assert summarize([silent], budget=10).seconds == 0.0
    assert (last_objective(silent), trial_seconds(silent), shown_status(silent)) == (
        None,
        0.0,
        "running",
    )


def test_task_scores_need_all_four():
    metrics = {"val/verification": 0.8, "val/matching": 0.4, "val/retrieval": 0.6, "val/mAP": 0.6}
    assert task_scores(metrics) == TaskScores(0.8, 0.4, 0.6, 0.6)
    assert task_scores({"val/mAP": 0.6}) is None
    assert (
        task_scores({k.removeprefix("val/"): v for k, v in metrics.items()}, prefix="") is not None
    )


def test_a_last_batch_beyond_the_budget_is_no_more_than_the_whole(make_run: MakeRun):
    """Two trials of 320 whose batches have 120 patches, and one that was pruned."""
    runs = [
        make_run(0, "completed", {360: 0.5}),
        make_run(1, "completed", {360: 0.4}),
        make_run(2, "pruned", {120: 0.1}),
    ]
    totals = summarize(runs, budget=320)
    assert (totals.trained, totals.budget, totals.overshoot) == (840, 1040, 80)
    assert totals.trained + totals.saved_by_pruning == totals.budget
    assert (
        "840 of 1,040 patches trained: 81 % of the budget of all trials, last batches included"
        in summary_lines(totals)
    )
    assert summarize(runs[:2], budget=320).share_trained == 1.0
