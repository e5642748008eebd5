"""The step as one launch, rehearsed on the CPU: a capture that runs the same Python again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from hpsearch.config import (
    SGD,
    Adam,
    AdamW,
    Augmentation,
    BatchHard,
    ComputeConfig,
    FixedSteps,
    L2Net,
    PKSampler,
    TrialConfig,
)
from hpsearch.errors import UserError
from hpsearch.training.cuda_graphs import WARM_UP_STEPS, Body, StepLauncher
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import Compute
from hpsearch.training.loop import Report
from hpsearch.training.optimization import build_optimizer
from hpsearch.training.trial import TrainingRun, TrialEnvironment, build_trial

CPU = torch.device("cpu")
STAGES = (PKSampler(groups=4, views=2), PKSampler(groups=8, views=4))


@dataclass
class Rehearsed:
    """As a CUDA graph: inputs and results keep their places, and a capture runs nothing."""

    results: int = 2
    captures: int = 0
    warm: int = 0
    replays: list[int] = field(default_factory=list)

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        self.warm += 1
        return body(inputs)

    def capture(
        self, body: Body, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        self.captures += 1
        number, results = self.captures, [torch.zeros(()) for _ in range(self.results)]

        def replay() -> None:
            self.replays.append(number)
            for place, result in zip(results, body(inputs), strict=True):
                place.resize_(result.shape).copy_(result)

        return replay, tuple(results)


def doubled(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (2 * inputs[0],)


def test_results_are_those_of_each_call_and_survive_the_next() -> None:
    runner = Rehearsed(results=1)
    launcher = StepLauncher(CPU, runner)
    given = [torch.full((3,), float(n)) for n in range(8)]
    found = [launcher("one kind", doubled, [x])[0] for x in given]
    assert torch.stack(found).equal(2 * torch.stack(given))
    assert (runner.warm, runner.captures) == (WARM_UP_STEPS, 1)
    assert runner.replays == [1] * (8 - WARM_UP_STEPS)


def test_another_kind_and_what_was_forgotten_are_captured_afresh() -> None:
    runner = Rehearsed(results=1)
    launcher = StepLauncher(CPU, runner)
    for kind, size in (("a", 3), ("b", 5), ("a", 3)):
        for _ in range(WARM_UP_STEPS + 2):
            (found,) = launcher(kind, doubled, [torch.ones(size)])
            assert found.equal(torch.full((size,), 2.0))
    launcher.forget()
    launcher("a", doubled, [torch.ones(3)])
    assert (runner.captures, runner.warm) == (3, 3 * WARM_UP_STEPS + 1)


def trained(
    config: TrialConfig, job: TrialEnvironment, runner: Rehearsed | None
) -> tuple[TrainingRun, list[Report]]:
    trial = build_trial(config, job)
    trial.task.trainer.launcher.runner = runner
    return trial, list(trial.reports())


@pytest.mark.parametrize(
    "settings",
    [
        {"sampler": STAGES[1]},
        {"sampler": FixedSteps(stages=STAGES, milestones=(0.5,))},
        {
            "sampler": STAGES[1],
            "augmentation": Augmentation(turns="point", crop=0.2, contrast=0.1),
        },
    ],
    ids=["plain", "stages", "augmented"],
)
def test_a_trial_is_the_same_to_the_last_bit(settings: dict, job: TrialEnvironment) -> None:
    config = TrialConfig(
        descriptor=L2Net(width=0.125),
        loss=BatchHard(),
        optimizer=Adam(lr=1e-3),
        patches=384,
        **settings,
    )
    runner = Rehearsed()
    (one, plain), (other, replayed) = (trained(config, job, r) for r in (None, runner))
    assert replayed == plain
    assert runner.captures == (2 if isinstance(config.sampler, FixedSteps) else 1)
    for weight, again in zip(
        one.task.network.state_dict().values(),
        other.task.network.state_dict().values(),
        strict=True,
    ):
        assert weight.equal(again)


def test_new_weights_of_the_optimizer_are_captured_afresh(job: TrialEnvironment) -> None:
    config = TrialConfig(
        descriptor=L2Net(width=0.125), loss=BatchHard(), sampler=STAGES[1], patches=384
    )
    trial = build_trial(config, job)
    trainer: DescriptorTrainer = trial.task.trainer
    trainer.launcher.runner = runner = Rehearsed()
    for _ in range(WARM_UP_STEPS + 1):
        trainer.step(trial.progress)
    trainer.restore(trainer.state())
    for _ in range(WARM_UP_STEPS + 1):
        trainer.step(trial.progress)
    assert runner.captures == 2


@pytest.mark.parametrize("settings", [SGD(lr=0.5, momentum=0.9), Adam(lr=0.5), AdamW(lr=0.5)])
def test_a_captured_optimizer_holds_its_rate_in_a_tensor(settings: SGD | Adam | AdamW) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    (group,) = build_optimizer(settings, [weight], captured=True).param_groups
    assert group["lr"].equal(torch.tensor(0.5))
    assert group.get("capturable", True)


@pytest.mark.parametrize(
    ("device", "graphed", "expected"),
    [("cuda", "auto", True), ("cuda", False, False), ("cpu", "auto", False)],
)
def test_graphs_are_for_cuda(device: str, graphed: bool | str, expected: bool) -> None:
    compute = Compute(device=torch.device(device), graphed=graphed)  # type: ignore[arg-type]
    assert compute.uses_graphs == expected


def test_graphs_without_cuda_are_refused() -> None:
    with pytest.raises(UserError, match="graphed=True"):
        Compute.resolve(ComputeConfig(device="cpu", graphed=True))


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_seeding_one_generator_is_seeding_torch(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(4)
    torch.rand(3)
    Compute(device=CPU).seed(seed)
    assert torch.rand(4).equal(expected)
