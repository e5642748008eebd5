"""Training on XLA; ``make test-xla`` runs it in an environment that has torch-xla."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hpsearch import config
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.trial import TrialEnvironment, build_trial

pytest.importorskip("torch_xla")
pytestmark = pytest.mark.filterwarnings("ignore:Please use the new API settings")  # of torch 2.9
os.environ.setdefault("PJRT_DEVICE", "CPU")

NETWORK = config.L2Net(width=0.125, dropout=0.0, bn_momentum=0.1)


def trial_config(**changes):
    settings = {
        "descriptor": NETWORK,
        "loss": config.BatchHard(),
        "sampler": config.PKSampler(groups=8, views=4),
        "optimizer": config.Adam(lr=1e-3),
        "patches": 640,
    }
    return config.TrialConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> TrialEnvironment:
    folder = tmp_path_factory.mktemp("xla")
    store = PatchStore.open(open_builtin("tiny", folder))
    return TrialEnvironment(
        store=store,
        split=store.split(),
        artifacts=ArtifactCache(str(folder / "artifacts")),
        report_every=320,
        validation_points=8,
        computing=config.ComputeConfig(device="xla", precision="float32"),
    )


@pytest.fixture
def on_cpu(job: TrialEnvironment) -> TrialEnvironment:
    return replace(job, computing=config.ComputeConfig(device="cpu"))


def compilations() -> int:
    from torch_xla.debug import metrics  # type: ignore[import-not-found]

    found = metrics.metric_data("CompileTime")
    return found[0] if found else 0


def steps(trial, count: int) -> list[int]:
    """Programs that each of some training steps had to compile."""
    compiled = []
    for _ in range(count):
        before = compilations()
        _, used = trial.task.step(trial.progress)
        trial.progress.seen += used
        trial.progress.step += 1
        compiled.append(compilations() - before)
    return compiled


def test_xla_learns_what_the_cpu_learns(job, on_cpu):
    here, there = (list(build_trial(trial_config(), j).reports()) for j in (job, on_cpu))
    assert [r.seen for r in here] == [r.seen for r in there] == [320, 640]
    for ours, theirs in zip(here, there, strict=True):
        assert ours.metrics["train/loss"] == pytest.approx(theirs.metrics["train/loss"], rel=0.02)
        assert ours.metrics["val/mAP"] == pytest.approx(theirs.metrics["val/mAP"], abs=0.03)


@pytest.mark.parametrize("schedule", [config.Constant(), config.Cosine()])
def test_a_step_is_compiled_once(job, schedule):
    trial = build_trial(trial_config(schedule=schedule), job)
    first, second, *others = steps(trial, 8)
    assert first + second <= 2  # the optimiser's state begins in the first
    assert others == [0] * 6


def test_each_stage_of_a_schedule_is_compiled_once(job):
    small, large = config.PKSampler(groups=6, views=4), config.PKSampler(groups=12, views=4)
    sampler = config.FixedSteps(stages=(small, large), milestones=(0.5,))
    trial = build_trial(trial_config(sampler=sampler, patches=240), job)
    compiled = steps(trial, 8)
    before, after = compiled[:5], compiled[5:]
    assert sum(before[2:]) == 0
    assert after == [1, 0, 0]


def test_a_checkpoint_moves_between_xla_and_the_cpu(job, on_cpu, tmp_path: Path):
    ours = build_trial(trial_config(), job)
    report = next(ours.reports())
    ours.save(tmp_path, report)
    theirs = build_trial(trial_config(), on_cpu)
    assert theirs.load(tmp_path) == report
    for name, weights in ours.task.network.state_dict().items():
        assert torch.equal(weights.cpu(), theirs.task.network.state_dict()[name]), name
    theirs.save(tmp_path, next(theirs.reports()))
    back = build_trial(trial_config(), job)
    saved_report = back.load(tmp_path)
    assert saved_report is not None
    assert back.progress.seen == saved_report.seen == 640
    assert steps(back, 6)[2:] == [0, 0, 0, 0]  # the optimiser computes on the device again


def test_patches_lie_on_the_device_and_are_gathered_there(job):
    from hpsearch.training.devices import choose_device, device_resident

    pixels = np.random.default_rng(0).integers(0, 256, (50, 32, 32), dtype=np.uint8)
    rows = np.array([3, 3, 49, 0])
    gathered = device_resident(pixels, choose_device("xla"))(rows)
    assert gathered.device.type == "xla"
    assert np.array_equal(gathered.cpu().numpy()[:, 0], pixels[rows].astype(np.float32))


def test_bfloat16_is_what_an_accelerator_computes_in(job):
    fast = replace(job, computing=config.ComputeConfig(device="xla"))
    trial = build_trial(trial_config(), fast)
    reports = list(trial.reports())
    assert reports[-1].status == "completed"
    assert {p.dtype for p in trial.task.network.parameters()} == {torch.float32}
