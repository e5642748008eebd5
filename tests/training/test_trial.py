"""Whole trials on the tiny set: every input, resume to the last bit, and what is refused."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch.config import (
    SGD,
    Adam,
    BatchHard,
    Clean,
    Compression,
    ConvNet,
    Denoised,
    DenoiserTraining,
    Input,
    L2Net,
    Noisy,
    PKSampler,
    RandomTriplets,
    ShallowUNet,
    SoftMargin,
    TrialConfig,
)
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT_FILE, TrialEnvironment, build_trial

DENOISED = Denoised(
    denoiser=DenoiserTraining(network=ShallowUNet(width=0.25), patches=256, batch=64)
)
SMALL = L2Net(width=0.125, dropout=0.3)


def batch_hard(patches: int = 192, given: Input | None = None) -> TrialConfig:
    return TrialConfig(
        input=given or Noisy(),
        descriptor=SMALL,
        loss=BatchHard(margin=SoftMargin()),
        sampler=PKSampler(groups=8, views=4),
        optimizer=Adam(lr=1e-3),
        patches=patches,
    )


@pytest.mark.parametrize("given", [Clean(), Noisy(), DENOISED], ids=lambda i: i.kind)
def test_a_trial_reports_at_its_grid_and_completes(given: Input, job: TrialEnvironment) -> None:
    reports = list(build_trial(batch_hard(given=given), job).reports())
    assert [r.seen for r in reports] == [64, 128, 192]
    assert reports[-1].status == "completed"
    for report in reports:
        assert all(np.isfinite(value) for value in report.metrics.values())
        assert {"train/loss", "val/mAP", "val/matching/hard", "val/MAE"} <= report.metrics.keys()


def test_the_baseline_is_the_default_configuration(job: TrialEnvironment) -> None:
    config = TrialConfig(descriptor=SMALL, sampler=RandomTriplets(batch=10), patches=60)
    assert list(build_trial(config, job).reports())[-1].status == "completed"


def run_to(config: TrialConfig, job: TrialEnvironment, folder: Path, reports: int) -> list[Report]:
    """Train to a report, save, and stop there as if the machine had died."""
    trial, found = build_trial(config, job), []
    for report in trial.reports():
        found.append(report)
        trial.save(folder)
        if len(found) == reports:
            break
    return found


@pytest.mark.parametrize("given", [Noisy(), DENOISED], ids=lambda i: i.kind)
def test_a_resumed_trial_is_the_undisturbed_one_to_the_last_bit(
    given: Input, job: TrialEnvironment, tmp_path: Path
) -> None:
    config = batch_hard(patches=320, given=given)
    whole = build_trial(config, job)
    undisturbed = list(whole.reports())
    before = run_to(config, job, tmp_path / "checkpoint", reports=2)
    resumed = build_trial(config, job)
    resumed.load(tmp_path / "checkpoint")
    after = list(resumed.reports())
    assert before + after == undisturbed
    one, other = whole.task.network.state_dict(), resumed.task.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_seed_decides(job: TrialEnvironment) -> None:
    one = list(build_trial(batch_hard(64), job).reports())
    other = list(build_trial(batch_hard(64), job).reports())
    assert one == other
    moved = batch_hard(64).model_copy(update={"seed": 1})
    assert list(build_trial(moved, job).reports()) != one


def test_a_denoiser_is_trained_once_and_shared(job: TrialEnvironment, tmp_path: Path) -> None:
    build_trial(batch_hard(given=DENOISED), job)
    made = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "artifacts").iterdir()}
    assert len(made) == 4, "weights, denoised training patches, and the time of each"
    other = batch_hard(given=DENOISED).model_copy(update={"seed": 5})
    build_trial(other, job)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "artifacts").iterdir()} == made


def test_a_damaged_artifact_is_made_again(job: TrialEnvironment, tmp_path: Path) -> None:
    first = build_trial(batch_hard(given=DENOISED), job)
    for path in (tmp_path / "artifacts").iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    again = build_trial(batch_hard(given=DENOISED), job)
    assert first.denoiser is not None
    assert again.denoiser is not None
    for one, other in zip(first.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_a_bad_checkpoint_is_one_sentence(
    job: TrialEnvironment, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "checkpoint" / CHECKPOINT_FILE
    if damage != "missing":
        run_to(batch_hard(64), job, path.parent, reports=1)
        content = bytearray(path.read_bytes())
        if damage == "truncated":
            content = content[:100]
        else:
            content[len(content) // 2] ^= 1  # a weight, which torch alone would load
        path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        build_trial(batch_hard(64), job).load(path.parent)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_held_out_sequence_cannot_be_trained_on(job: TrialEnvironment, part: str) -> None:
    held_out = job.split.part(part)[0]  # type: ignore[arg-type]
    greedy = TrialEnvironment(**{**vars(job), "sequences": (held_out,)})
    with pytest.raises(UserError, match=f"{held_out}.*{part} sequence"):
        build_trial(batch_hard(64), greedy)


def test_a_trial_never_reads_a_test_patch(
    tiny: PatchStore, job: TrialEnvironment, tmp_path: Path
) -> None:
    """Change every test pixel: nothing that a search sees may change."""
    before = list(build_trial(batch_hard(128, DENOISED), job).reports())
    blank = [i for i, name in enumerate(tiny.names) if name in job.split.test]
    clean, noisy = tiny.clean.copy(), tiny.noisy.copy()
    clean[np.isin(tiny.sequence_of, blank)] = 77
    noisy[np.isin(tiny.sequence_of, blank)] = 99
    flat = {
        name: pixels.reshape(-1, 32, 32)
        for name, pixels in (("clean_rows", clean), ("noisy_rows", noisy))
    }
    other = dataclasses.replace(tiny, **flat)
    altered = TrialEnvironment(
        **{**vars(job), "store": other, "artifacts": ArtifactCache(str(tmp_path / "x"))}
    )
    assert list(build_trial(batch_hard(128, DENOISED), altered).reports()) == before


@pytest.mark.parametrize("lr", [50, 100])
def test_a_rate_that_ruins_the_weights_in_the_last_step_before_a_report_is_a_divergence(
    lr: float, job: TrialEnvironment
) -> None:
    """The loss of that step is finite, and the next one does not come."""
    config = TrialConfig(
        descriptor=SMALL, sampler=RandomTriplets(batch=20), optimizer=SGD(lr=lr), patches=120
    )
    last = list(build_trial(config, replace(job, report_every=120)).reports())[-1]
    assert (last.status, last.metrics["val/mAP"]) == ("diverged", 0.0)
    assert "not finite" in last.reason


@pytest.mark.slow
def test_a_collapsing_trial_is_stopped_early(job: TrialEnvironment) -> None:
    """A large step throws the descriptors so far that the only way back is one point."""
    config = TrialConfig(
        descriptor=L2Net(width=0.125),
        loss=BatchHard(),
        sampler=PKSampler(groups=16, views=8),
        optimizer=SGD(lr=0.3, momentum=0.9),
        patches=16_000,
    )
    patient = TrialEnvironment(**{**vars(job), "report_every": 2_000})
    last = list(build_trial(config, patient).reports())[-1]
    assert last.status == "collapsed", last
    assert last.seen < 0.8 * config.patches
    assert last.metrics["val/mAP"] == 0.0


def test_a_compression_is_fitted_to_training_patches_and_equal_each_time(
    job: TrialEnvironment,
) -> None:
    config = TrialConfig(
        descriptor=ConvNet(width=0.125, descriptor_dim=24),
        compression=Compression(descriptor_dim=8, patches=100),
        sampler=RandomTriplets(batch=10),
        patches=60,
    )
    trial = build_trial(config, job)
    assert list(trial.reports())[-1].status == "completed"
    one, other = trial.pipeline(), trial.pipeline()
    patches = torch.from_numpy(job.training_patches().gather(np.arange(5), noisy=True))
    assert one(patches).shape == (5, 8)
    assert torch.equal(one(patches), other(patches))
