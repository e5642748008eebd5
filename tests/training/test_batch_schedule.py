"""The stepped schedule against sequences of losses written by hand."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch.config import FixedSteps, MinedTriplets, Pairs, PKSampler, RandomTriplets, Stepped
from hpsearch.training.batch_schedule import StageController, current_sampler

STAGES = (
    PKSampler(groups=8, views=2),
    PKSampler(groups=16, views=2),
    PKSampler(groups=16, views=4),
)


def stepper(**settings: object) -> StageController:
    return StageController(Stepped.model_validate({"stages": STAGES, **settings}), [1.0] * 3)


def walk(schedule: StageController, means: list[float]) -> list[str]:
    return [schedule.update(mean, seen=1000 * n) for n, mean in enumerate(means)]


def test_a_stage_is_entered_only_below_the_collapse_value_by_the_margin() -> None:
    schedule = stepper(below=0.1)
    assert walk(schedule, [1.2, 1.0, 0.91, 0.89, 0.95, 0.5, 0.1]) == [
        *["stay", "stay", "stay", "on", "stay", "on", "stay"],
    ]
    assert schedule.stage == 2, "there is no stage after the last"


def test_a_stage_that_lifts_the_loss_at_once_is_undone_and_never_tried_again() -> None:
    schedule = stepper()
    assert walk(schedule, [0.8, 1.01, 0.5, 0.5, 0.5]) == ["on", "undo", "stay", "stay", "stay"]
    assert schedule.stage == 0


def test_a_stage_that_fails_later_keeps_its_weights() -> None:
    schedule = stepper()
    assert walk(schedule, [0.8, 0.95, 1.01]) == ["on", "stay", "back"]


def test_a_failed_stage_is_tried_again_after_its_rest() -> None:
    schedule = stepper(retry_after=3000)
    moves = walk(schedule, [0.8, 1.1, 0.8, 0.8, 0.8, 0.9])
    assert moves == ["on", "undo", "stay", "stay", "on", "stay"]


def test_a_loss_that_is_no_number_falls_back() -> None:
    assert walk(stepper(), [0.8, float("nan")]) == ["on", "undo"]


def test_the_mean_of_a_window_decides() -> None:
    schedule = stepper(window=60)
    losses = [0.9, 0.9, 0.8, 2.0, 2.0, 2.0]  # 16 patches a step: 4 steps fill a window
    moves = [
        schedule.record_loss(torch.tensor(loss), used=16, seen=16 * (n + 1))
        for n, loss in enumerate(losses)
    ]
    assert moves == ["stay"] * 6
    assert schedule.patches == 32
    schedule = stepper(window=48, below=0.1)
    moves = [
        schedule.record_loss(torch.tensor(loss), used=16, seen=16 * (n + 1))
        for n, loss in enumerate(losses)
    ]
    assert moves == ["stay", "stay", "on", "stay", "stay", "undo"]


def test_a_stage_waits_until_its_own_batch_is_low() -> None:
    """Where the present loss is low, that of the next stage's batch is measured each window."""
    schedule = stepper(advance_on="next_batch", below=0.1)
    losses, asked = iter([1.3, 0.95, float("nan"), 0.89, 2.0]), list[int]()

    def next_loss(sampler: PKSampler) -> float:
        asked.append(sampler.patches)
        return next(losses)

    means = [0.5, 0.95, 0.5, 0.5, 0.5, 0.5]
    moves = [schedule.update(m, seen=1000 * n, next_loss=next_loss) for n, m in enumerate(means)]
    assert moves == ["stay", "stay", "stay", "stay", "on", "stay"]
    assert asked == [32, 32, 32, 32, 64]


RECORDED = Path(__file__).parents[2] / "docs" / "results" / "runs.jsonl"


def recorded_runs() -> list[Any]:
    rows = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    known = [
        row
        for row in rows
        if row["config"]["sampler"]["kind"] == "stepped"
        and row["config"]["sampler"].get("advance_on", "this_batch") == "this_batch"
    ]
    return [pytest.param(row, id=f"{row['name']}, seed {row['seed']}") for row in known]


@pytest.mark.parametrize("row", recorded_runs())
def test_recorded_losses_give_the_recorded_stages(row: dict[str, Any]) -> None:
    """Losses of whole trainings on photographs, a mean a window as the schedule takes them."""
    settings = Stepped.model_validate(row["config"]["sampler"])
    schedule = StageController(settings, [row["collapse_value"]] * len(settings.stages))
    trace, found, seen = row["trace"], [0.0], 0
    for loss in trace["loss"]:
        batch = settings.stages[schedule.stage].patches
        seen += math.ceil(settings.window / batch) * batch  # the trace rounds what was seen
        schedule.update(math.nan if loss is None else loss, seen=seen)
        found.append(float(schedule.stage))
    assert found[1:] == trace["stage"]
    assert len(set(found)) > 1, "a schedule that never steps would prove nothing"


@pytest.mark.parametrize("at", range(1, 6))
def test_it_goes_on_from_its_state(at: int) -> None:
    losses = [0.8, 0.7, 0.9, 1.3, 1.4, 0.5, 0.2, 0.1]

    def feed(schedule: StageController, part: range) -> list[str]:
        return [
            schedule.record_loss(torch.tensor(losses[n]), used=30, seen=30 * (n + 1)) for n in part
        ]

    whole, first, second = (stepper(window=50, retry_after=60) for _ in range(3))
    expected = feed(whole, range(8))
    moves = feed(first, range(at))
    second.restore(first.state())
    assert moves + feed(second, range(at, 8)) == expected
    assert set(expected) == {"stay", "on", "undo"}


def test_a_fixed_schedule_follows_the_budget() -> None:
    fixed = FixedSteps(stages=STAGES, milestones=(0.25, 0.5))
    found = [current_sampler(fixed, share=share) for share in (0, 0.24, 0.25, 0.49, 0.5, 0.99)]
    assert found == [STAGES[n] for n in (0, 0, 1, 1, 2, 2)]


def test_plain_samplers_are_themselves() -> None:
    for sampler in (Pairs(), PKSampler(), RandomTriplets(tough_until=0.5)):
        assert current_sampler(sampler, share=0.3) is sampler
    assert current_sampler(MinedTriplets(batch=7), share=0.3) == RandomTriplets(batch=7)
