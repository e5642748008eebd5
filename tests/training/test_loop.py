"""The loop, driven by a task small enough to predict."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from hpsearch.config import L2Net
from hpsearch.models import build_descriptor
from hpsearch.training.loop import (
    NotFiniteError,
    Progress,
    StopReason,
    fit,
    require_finite_weights,
)


@dataclass
class Countdown:
    """Loss at step n is 1/(n+1); fails on request."""

    batch: int = 10
    collapse_at: int | None = None
    nan_at: int | None = None
    score: float = 0.5
    steps: list[int] = field(default_factory=list)
    checked: list[float] = field(default_factory=list)

    def step(self, progress: Progress) -> tuple[Tensor, int]:
        number = progress.step
        self.steps.append(number)
        loss = float("nan") if number == self.nan_at else 1 / (number + 1)
        return torch.tensor(loss), self.batch

    def check(self, loss: float) -> StopReason | None:
        self.checked.append(loss)
        if self.collapse_at is not None and self.steps[-1] >= self.collapse_at:
            return StopReason("collapsed", "asked to")
        return None

    def evaluate(self) -> dict[str, float]:
        return {"val/mAP": self.score}

    def failure_metrics(self) -> dict[str, float]:
        return {"val/mAP": 0.0}


def test_reports_come_at_multiples_of_patches_and_at_the_end() -> None:
    reports = list(fit(Countdown(batch=30), patches=100, report_every=50))
    assert [r.seen for r in reports] == [60, 120]
    assert [r.status for r in reports] == ["running", "completed"]


def test_a_report_holds_the_mean_loss_since_the_last() -> None:
    reports = list(fit(Countdown(), patches=40, report_every=20))
    means = [r.metrics["train/loss"] for r in reports]
    assert means == pytest.approx([(1 + 1 / 2) / 2, (1 / 3 + 1 / 4) / 2])


def test_every_step_is_weighed_once_between_checks() -> None:
    task = Countdown()
    list(fit(task, patches=80, report_every=80, num_checks=4))
    losses = [1 / (n + 1) for n in range(8)]
    assert task.checked == pytest.approx([sum(losses[i : i + 2]) / 2 for i in range(0, 8, 2)])


@pytest.mark.parametrize(
    ("task", "status"),
    [(Countdown(collapse_at=3), "collapsed"), (Countdown(nan_at=3), "diverged")],
    ids=["collapse", "nan"],
)
def test_failure_ends_the_task_with_finite_worst_metrics(task: Countdown, status: str) -> None:
    reports = list(fit(task, patches=1000, report_every=100))
    assert reports[-1].status == status
    assert reports[-1].metrics == {"val/mAP": 0.0}
    assert reports[-1].seen < 100, "before the first report was due"
    assert reports[-1].reason


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_a_divergence(score: float) -> None:
    (report,) = fit(Countdown(score=score), patches=100, report_every=50)
    assert (report.seen, report.status) == (50, "diverged")
    assert report.metrics == {"val/mAP": 0.0}
    assert report.reason == "val/mAP is not finite"


@pytest.mark.parametrize("name", ["last.weight", "blocks.0.norm.running_var"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_and_statistics_that_are_not_finite_are_found(name: str, value: float) -> None:
    network = build_descriptor(L2Net(width=0.125), seed=0)
    require_finite_weights(network)
    network.state_dict()[name].flatten()[-1] = value
    with pytest.raises(NotFiniteError):
        require_finite_weights(network)


def test_going_on_continues_the_step_numbers_and_the_report_grid() -> None:
    progress = Progress()
    first = fit(Countdown(), patches=60, report_every=20, progress=progress)
    next(first)
    task = Countdown()
    rest = list(fit(task, patches=60, report_every=20, progress=progress))
    assert task.steps == [2, 3, 4, 5]
    assert [r.seen for r in rest] == [40, 60]


def test_between_two_reports_every_step_can_be_the_last() -> None:
    seen: list[int] = []
    progress = Progress()
    between = lambda: seen.append(progress.seen)  # noqa: E731
    list(fit(Countdown(), patches=60, report_every=30, progress=progress, on_step=between))
    assert seen == [10, 20, 40, 50], "where a report follows, there is nothing to ask"


def test_nothing_is_reported_once_the_budget_is_spent() -> None:
    assert not list(fit(Countdown(), patches=60, report_every=20, progress=Progress(60, 6)))
