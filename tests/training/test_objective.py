"""Loss, its stages and states, norms, and the teacher, as training puts them together."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.config import (
    EMA,
    GOR,
    SOSR,
    Adam,
    BatchHard,
    BatchTriplet,
    Clean,
    ComputeConfig,
    Distillation,
    FixedLossSteps,
    HardNet,
    HybridSimilarity,
    InBatchHard,
    InfoNCE,
    L2Net,
    NormDifference,
    Pairs,
    Percentile,
    PercentileMiner,
    PKSampler,
    SteppedLoss,
    TrialConfig,
)
from hpsearch.config.base import dump_former_names
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.models.serialization import PipelineSpec, save_pipeline
from hpsearch.training.loop import Progress
from hpsearch.training.objective import load_teacher
from hpsearch.training.trial import TrialEnvironment, build_trial


def trial(**settings: object) -> TrialConfig:
    given = {
        "descriptor": L2Net(width=0.125, unit_norm=True, dropout=0),
        "loss": HardNet(),
        "sampler": Pairs(batch=8),
        "optimizer": Adam(lr=1e-3),
        "patches": 160,
        **settings,
    }
    return TrialConfig.model_validate(given)


def steps(config: TrialConfig, job: TrialEnvironment, number: int = 2) -> list[float]:
    """Reported losses of the first steps."""
    trainer = build_trial(config, job).task.trainer
    return [float(trainer.step(Progress(16 * n, n))[0]) for n in range(number)]


def test_regularizers_are_added_to_the_loss_and_trained_on(job: TrialEnvironment) -> None:
    plain, more = trial(), trial(regularizers=(SOSR(), GOR(weight=0.5)))
    first, second = steps(plain, job), steps(more, job)
    assert second[0] > first[0]
    assert abs((second[1] - second[0]) - (first[1] - first[0])) > 0
    assert more.collapse_value == pytest.approx(1 + 0.5 * (2 - 1 / 128))


def test_norms_are_those_before_the_division(job: TrialEnvironment) -> None:
    """With the weight so high that the rest is small, the loss is the norms' term."""
    plain = steps(trial(loss=HybridSimilarity()), job, 1)[0]
    config = trial(loss=HybridSimilarity(), regularizers=(NormDifference(weight=100),))
    run = build_trial(config, job)
    raw = build_descriptor(
        config.descriptor.model_copy(update={"unit_norm": False}), seed=config.seed
    ).train()
    batch = run.task.trainer._sample_batch(Pairs(batch=8), Progress(), 0.0)
    norms = [raw(run.task.trainer.input_fn(rows, 0.0)).norm(dim=1) for rows in batch.rows]
    expected = plain + 100 * float((norms[0] - norms[1]).square().mean().detach())
    assert float(run.task.trainer.step(Progress())[0]) == pytest.approx(expected, rel=1e-4)


def test_a_loss_changes_at_its_shares_of_the_budget(job: TrialEnvironment) -> None:
    config = trial(loss=FixedLossSteps(stages=(InfoNCE(), InBatchHard()), milestones=(0.5,)))
    trainer = build_trial(config, job).task.trainer
    values = []
    for number in range(10):
        loss, _ = trainer.step(Progress(16 * number, number))
        values.append((float(loss) > 0.5, round(trainer.collapse_value, 3)))
    assert values == [(True, 2.079)] * 5 + [(False, 0.01)] * 5


def test_a_loss_gets_harder_while_it_is_low(job: TrialEnvironment) -> None:
    """Also for P×K batches, by the collapse value of the stage that it is in."""
    stages = tuple(BatchTriplet(miner=PercentileMiner(quantile=q)) for q in (100, 50, 0))
    config = trial(
        loss=SteppedLoss(stages=(*stages, BatchHard()), window=16, below=0.01),
        sampler=PKSampler(groups=4, views=2),
    )
    trainer = build_trial(config, job).task.trainer
    controller = trainer.stage_controller
    assert controller is not None
    controller.collapse_values = [1e9] * 4
    for number in range(4):
        trainer.step(Progress(8 * number, number))
    assert controller.stage == 2
    assert trainer.evaluate()["train/stage"] == 2
    controller.collapse_values = [1e-9] * 4
    for number in range(4, 6):
        trainer.step(Progress(8 * number, number))
    assert controller.stage == 1, "the loss of the new stage was too high"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    folder = tmp_path / "downloaded" / "data"
    settings = L2Net(width=0.125, descriptor_dim=16)
    network = build_descriptor(settings, seed=7)
    save_pipeline(
        Pipeline(denoiser=None, descriptor=network),
        PipelineSpec(denoiser=None, descriptor=settings),
        folder,
    )
    return folder.parent


def test_a_student_comes_nearer_to_its_teacher_than_without(
    job: TrialEnvironment, teacher: Path
) -> None:
    """The teacher has another dimension; what is reported is the loss alone."""
    config = trial(distillation=Distillation(model=str(teacher), weight=1000), input=Clean())
    assert steps(config, job, 1) == steps(config.model_copy(update={"distillation": None}), job, 1)
    loaded, gaps = load_teacher(config.distillation), []  # type: ignore[arg-type]
    for one in (config, config.model_copy(update={"distillation": None})):
        run = build_trial(one, job)
        for number in range(15):
            run.task.trainer.step(Progress(16 * number, number))
        patches = run.task.trainer.input_fn(np.arange(64) * 16, 0.0)
        with torch.no_grad():
            mine = run.task.network.train()(patches)
            theirs = torch.nn.functional.normalize(loaded(patches.squeeze(1)), dim=1)
        gaps.append(float((mine @ mine.T - theirs @ theirs.T).square().mean()))
    assert gaps[0] < gaps[1]


def test_a_teacher_that_cannot_be_had_is_told(
    job: TrialEnvironment, teacher: Path, tmp_path: Path
) -> None:
    weights = (teacher / "data" / "weights.pt").read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    load_teacher(Distillation(model=str(teacher), sha256=digest))
    load_teacher(Distillation(model=str(teacher / "data")))
    with pytest.raises(UserError, match=f"have SHA-256 {digest}, not 0000"):
        load_teacher(Distillation(model=str(teacher), sha256="0" * 64))
    with pytest.raises(UserError, match=r"no model to learn from in '.*nowhere'"):
        build_trial(trial(distillation=Distillation(model=str(tmp_path / "nowhere"))), job)


def test_averaged_weights_are_scored_and_registered(job: TrialEnvironment) -> None:
    config = trial(ema=EMA(decay=0.5))
    run = build_trial(config, job)
    trainer = run.task.trainer
    expected = {name: x.clone() for name, x in trainer.network.state_dict().items()}
    for number in range(4):
        trainer.step(Progress(16 * number, number))
        keep = min(0.5, number / (number + 9))
        for name, x in trainer.network.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * x if x.is_floating_point() else x
    found = run.pipeline().descriptor.state_dict()
    for name, x in expected.items():
        torch.testing.assert_close(found[name], x)
    assert run.task.network is not trainer.network
    changed = [
        name for name, x in trainer.network.state_dict().items() if not torch.equal(x, found[name])
    ]
    assert changed


def test_a_long_gradient_is_scaled_down(job: TrialEnvironment) -> None:
    norms = []
    for limit in (None, 1e-3):
        trainer = build_trial(trial(gradient_clip=limit), job).task.trainer
        trainer.step(Progress())
        parts = [p.grad.square().sum() for p in trainer.network.parameters() if p.grad is not None]
        norms.append(float(torch.stack(parts).sum().sqrt()))
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_graphs_that_were_asked_for_are_refused_for_the_librarys_losses() -> None:
    from hpsearch.training.devices import Compute

    compute = Compute(device=torch.device("cpu"), graphed=True)
    with pytest.raises(UserError, match="loss 'library' cannot run in a CUDA graph"):
        compute.without_graphs("loss 'library'")
    assert replace(compute, graphed="auto").without_graphs("x").graphed is False
    assert ComputeConfig().graphed == "auto"


def test_new_settings_at_their_defaults_leave_digests_alone() -> None:
    stored = dump_former_names(
        TrialConfig(loss=Percentile(), sampler=Pairs(), descriptor=L2Net(unit_norm=True))
    )
    assert not {"regularizers", "distillation", "gradient_clip", "ema"} & stored.keys()
    assert "dampening" not in stored["optimiser"]
    assert "shear" not in stored["augmentation"]
    assert "negatives" not in dump_former_names(HardNet())
    assert dump_former_names(HardNet(negatives="all"))["negatives"] == "all"
