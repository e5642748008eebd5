"""Every way of training: it resumes to the last bit, and does what its setting says."""

import contextlib
import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.config import (
    EMA,
    SGD,
    Adam,
    AdamW,
    AngularModulation,
    Augmentation,
    BatchAll,
    BatchHard,
    BatchTriplet,
    Clean,
    ComputeConfig,
    Cosine,
    Denoised,
    DenoiserTraining,
    DistanceWeightedMiner,
    DynamicSoftMargin,
    FixedSteps,
    HardMargin,
    L2Net,
    MinedTriplets,
    Mixed,
    Noisy,
    Pairs,
    PercentileMiner,
    PKSampler,
    RandomTriplets,
    SemiHardMiner,
    ShallowUNet,
    SoftMargin,
    Stepped,
    SteppedLoss,
    TrialConfig,
    Triplet,
    WarmStart,
)
from hpsearch.errors import UserError
from hpsearch.training.inputs import training_input
from hpsearch.training.loop import Progress, Report
from hpsearch.training.trial import CHECKPOINT_FILE, TrainingRun, TrialEnvironment, build_trial

DENOISER = DenoiserTraining(network=ShallowUNet(width=0.25), patches=128, batch=64, loss="mse")
STAGES = (PKSampler(groups=4, views=2), PKSampler(groups=4, views=4), PKSampler(groups=8, views=4))


def trial(**settings: object) -> TrialConfig:
    given = {
        "descriptor": L2Net(width=0.125),
        "loss": BatchHard(margin=SoftMargin()),
        "sampler": PKSampler(groups=8, views=4),
        "optimizer": Adam(lr=1e-3),
        "patches": 256,
        **settings,
    }
    return TrialConfig.model_validate(given)


PAIRS = {"sampler": Pairs(batch=8), "descriptor": L2Net(width=0.125, unit_norm=True)}
TRIPLETS = {"loss": Triplet(distance="euclidean"), "optimizer": AdamW(lr=1e-3)}
VARIANTS = {
    "stepped": trial(
        # A margin so wide that every triplet pays: the mean is below it from the first steps on.
        loss=BatchAll(margin=HardMargin(alpha=10)),
        sampler=Stepped(stages=STAGES, below=1e-3, window=100),
    ),
    "stepped ahead": trial(
        loss=BatchAll(margin=HardMargin(alpha=10)),
        sampler=Stepped(stages=STAGES, below=1e-3, window=100, advance_on="next_batch"),
    ),
    "fixed steps": trial(sampler=FixedSteps(stages=STAGES, milestones=(0.3, 0.6))),
    "cosine": trial(schedule=Cosine(warmup=0.2)),
    "augmented": trial(augmentation=Augmentation(turns="point", crop=0.2, contrast=0.1)),
    "disturbed": trial(
        input=Mixed(), augmentation=Augmentation(rotation=8, scale=0.1, anisotropy=0.05, shift=0.1)
    ),
    "warm": trial(warm_start=WarmStart(patches=90, sampler=RandomTriplets(batch=10))),
    "fine-tuned": trial(input=Denoised(denoiser=DENOISER, clean_warmup=0.5)),
    "mined": trial(sampler=MinedTriplets(batch=8, candidates=40, start=0.3, every=100), **TRIPLETS),
    "dynamic margin": trial(loss=DynamicSoftMargin(bins=32), ema=EMA(), **PAIRS),
    "angles": trial(loss=AngularModulation(momentum=0.1), gradient_clip=0.1, **PAIRS),
    "stepped loss": trial(
        loss=SteppedLoss(
            stages=tuple(
                BatchTriplet(miner=miner, margin=HardMargin(alpha=10))
                for miner in (
                    PercentileMiner(quantile=50),
                    SemiHardMiner(),
                    DistanceWeightedMiner(),
                )
            ),
            below=1e-3,
            window=100,
        ),
        descriptor=L2Net(width=0.125, unit_norm=True),
    ),
    "curriculum": trial(sampler=RandomTriplets(batch=8, tough_until=0.3, far_from=0.8), **TRIPLETS),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_resumed_trial_is_the_undisturbed_one_to_the_last_bit(
    config: TrialConfig, job: TrialEnvironment, tmp_path: Path
) -> None:
    whole = build_trial(config, job)
    undisturbed = list(whole.reports())
    stopped, before = build_trial(config, job), []
    for report in stopped.reports():
        before.append(report)
        if len(before) == 2:
            stopped.save(tmp_path)
            break
    resumed = build_trial(config, job)
    resumed.load(tmp_path)
    assert before + list(resumed.reports()) == undisturbed
    assert undisturbed[-1].status == "completed"
    one, other = whole.task.network.state_dict(), resumed.task.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


class Taken(Exception):
    """The machine goes away."""


def hop(
    config: TrialConfig, job: TrialEnvironment, folder: Path, *, after: int
) -> tuple[TrainingRun, list[Report]]:
    """Go on from a checkpoint if there is one, and save after so many steps between two reports."""
    prepared, found = build_trial(config, job), []
    last_report = prepared.load(folder) if (folder / CHECKPOINT_FILE).exists() else None
    first = prepared.progress.step

    def between() -> None:
        if prepared.progress.step - first >= after:
            prepared.save(folder, found[-1] if found else last_report)
            raise Taken

    with contextlib.suppress(Taken):
        for report in prepared.reports(on_step=between):
            found.append(report)
    return prepared, found


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_trial_can_be_saved_between_two_reports_and_hops_to_the_last_bit(
    config: TrialConfig, job: TrialEnvironment, tmp_path: Path
) -> None:
    """Also in the middle of a window of losses: looks come every 40 patches, each of 2 steps."""
    config, job = config.model_copy(update={"patches": 700}), replace(job, report_every=640)
    whole = build_trial(config, job)
    undisturbed, found = list(whole.reports()), []
    while not found or found[-1].status == "running":
        prepared, messages = hop(config, job, tmp_path, after=9)
        found += messages
    assert found == undisturbed
    assert prepared.progress == whole.progress
    one, other = whole.task.network.state_dict(), prepared.task.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def weights(prepared: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in prepared.task.network.state_dict().items()}


def test_a_stage_that_lifts_the_loss_is_undone(job: TrialEnvironment) -> None:
    """The collapse value is moved by hand, so that each window decides as wanted."""
    trainer = build_trial(trial(sampler=Stepped(stages=STAGES, window=16)), job).task.trainer
    assert trainer.stage_controller is not None
    trainer.stage_controller.collapse_values = [1e9] * 3
    for number in range(2):
        trainer.step(Progress(8 * number, number))
    assert trainer.stage_controller.stage == 1
    entered = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.stage_controller.collapse_values = [1e-9] * 3
    _, used = trainer.step(Progress(16, 2))
    assert used == 16, "one batch of the second stage"
    assert trainer.stage_controller.stage == 0
    found = trainer.network.state_dict()
    assert all(torch.equal(entered[name], found[name]) for name in entered)


def test_measuring_the_next_stage_trains_nothing(job: TrialEnvironment) -> None:
    """A schedule whose next stage is never low trains as its first stage alone, to the last bit."""
    small, large = PKSampler(groups=2, views=2), PKSampler(groups=8, views=8)
    shared = {"augmentation": Augmentation(turns="point"), "optimizer": Adam(lr=1e-5)}
    ahead = Stepped(stages=(small, large), below=1e-6, window=4, advance_on="next_batch")
    alone, stepped = (
        build_trial(trial(sampler=sampler, **shared), job).task.trainer
        for sampler in (small, ahead)
    )
    present, following = list[float](), list[float]()
    for number in range(4):
        progress = Progress(4 * number, number)
        present.append(float(alone.step(progress)[0]))
        following.append(alone._untrained_loss(large, progress, 0.1))
    assert max(present) < min(following), "or the schedule below has nothing to decide"
    assert stepped.stage_controller is not None
    between = (max(present) + min(following)) / 2
    stepped.stage_controller.collapse_values = [between] * 2
    for number in range(4):
        stepped.step(Progress(4 * number, number))
    assert stepped.stage_controller.stage == 0
    one, other = (trainer.network.state_dict() for trainer in (alone, stepped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_stepped_trial_tells_its_stage(job: TrialEnvironment) -> None:
    prepared, stages = build_trial(VARIANTS["stepped"], job), []
    stepper = prepared.task.trainer.stage_controller
    assert stepper is not None
    for report in prepared.reports():
        assert report.metrics["train/stage"] == stepper.stage
        stages.append(stepper.stage)
    assert len(set(stages)) > 1, "a stage was entered"


def test_a_warm_start_is_trained_once_and_shared(job: TrialEnvironment, tmp_path: Path) -> None:
    config = VARIANTS["warm"]
    first = weights(build_trial(config, job))
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "artifacts").iterdir()}
    assert len(made) == 2, "weights, and the time that they took"
    other = config.model_copy(update={"seed": 4, "loss": BatchHard(), "optimizer": AdamW()})
    second = weights(build_trial(other, job))
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "artifacts").iterdir()} == made
    assert all(torch.equal(first[name], second[name]) for name in first)
    cold = weights(build_trial(config.model_copy(update={"warm_start": None}), job))
    assert not all(torch.equal(first[name], cold[name]) for name in first)


def test_a_warm_start_that_fails_says_so(job: TrialEnvironment) -> None:
    wild = WarmStart(
        patches=3000, optimizer=SGD(lr=100), sampler=RandomTriplets(batch=10), loss=Triplet()
    )
    with pytest.raises(UserError, match=r"the warm start (collapsed|diverged)"):
        build_trial(trial(warm_start=wild), job)


def test_fine_tuning_goes_from_clean_to_denoised(job: TrialEnvironment) -> None:
    train = job.training_patches()
    device = torch.device("cpu")
    given = Denoised(denoiser=DENOISER, clean_warmup=0.5)
    rows = np.arange(5)
    _, feed = training_input(given, train, job.artifacts, device)
    _, clean = training_input(Clean(), train, job.artifacts, device)
    _, denoised = training_input(Denoised(denoiser=DENOISER), train, job.artifacts, device)
    assert torch.equal(feed(rows, 0.49), clean(rows, 0.0))
    assert torch.equal(feed(rows, 0.5), denoised(rows, 0.0))
    assert not torch.equal(clean(rows, 0.0), denoised(rows, 0.0))


def test_a_share_of_the_patches_is_noisy(job: TrialEnvironment) -> None:
    train, device = job.training_patches(), torch.device("cpu")
    rows = np.arange(16 * len(train))

    def read(settings: Clean | Noisy | Mixed) -> np.ndarray:
        return training_input(settings, train, job.artifacts, device)[1](rows, 0.0).numpy()

    clean, noisy, mixed = read(Clean()), read(Noisy()), read(Mixed(noisy_share=0.25))
    is_clean, is_noisy = ((mixed == x).all((1, 2, 3)) for x in (clean, noisy))
    assert (is_clean | is_noisy).all()
    assert 0.2 < is_noisy.mean() < 0.3
    assert np.array_equal(read(Mixed(noisy_share=0)), clean)
    assert np.array_equal(read(Mixed(noisy_share=1)), noisy)
    assert not np.array_equal(read(Mixed(noisy_share=0.25, seed=1)), mixed)


def test_the_denoisers_loss_matters(job: TrialEnvironment) -> None:
    absolute = DENOISER.model_copy(update={"loss": "mae"})
    found = [
        build_trial(trial(input=Denoised(denoiser=d)), job).task.constant_metrics["val/MAE"]
        for d in (DENOISER, absolute)
    ]
    assert found[0] != found[1]


def test_likeness_of_the_input_is_reported_by_level(job: TrialEnvironment) -> None:
    noisy = build_trial(trial(input=Noisy()), job).task.constant_metrics
    for name in ("PSNR", "PSNR_per_patch", "SSIM"):
        levels = [noisy[f"val/{name}/{level}"] for level in ("easy", "hard", "tough")]
        assert sorted(levels, reverse=True) == levels, "noise grows"
        assert levels[2] < noisy[f"val/{name}"] < levels[0]
    assert noisy["val/PSNR_per_patch"] > noisy["val/PSNR"]
    clean = build_trial(trial(evaluate_on="clean"), job).task.constant_metrics
    assert clean["val/SSIM"] == pytest.approx(1)
    assert "val/PSNR" not in clean, "infinite"


def test_bfloat16_trains_about_as_float32_does(job: TrialEnvironment) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        computing = ComputeConfig(device="cpu", precision=precision)
        prepared = build_trial(trial(), dataclasses.replace(job, computing=computing))
        found = [prepared.task.step(Progress(32 * n, n))[0] for n in range(2)]
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found)
        floats = [x for x in weights(prepared).values() if x.is_floating_point()]
        assert {x.dtype for x in floats} == {torch.float32}, "what is kept stays exact"
        assert all(bool(x.isfinite().all()) for x in floats)
        losses.append([float(loss.detach()) for loss in found])
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert losses[0] != losses[1]


def test_deterministic_mode_is_left_as_it_was(job: TrialEnvironment) -> None:
    computing = ComputeConfig(device="cpu", deterministic=True)
    prepared = build_trial(trial(), dataclasses.replace(job, computing=computing))
    assert list(prepared.reports()) == list(build_trial(trial(), job).reports())
    assert not torch.are_deterministic_algorithms_enabled()
