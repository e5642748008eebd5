"""What a trial shares with others is counted once, also when it goes on from a checkpoint."""

from itertools import islice
from pathlib import Path

import pytest

from hpsearch.config import (
    SGD,
    Denoised,
    DenoiserTrial,
    DnCNN,
    L2Net,
    RandomTriplets,
    ShallowUNet,
    TrialConfig,
)
from hpsearch.execution.resumable_trial import SECONDS, Post, checkpointed
from hpsearch.search.objective import MEAN_MAP
from hpsearch.search.outcome import guarded
from hpsearch.training.artifact_cache import MADE, SPARED
from hpsearch.training.trial import CHECKPOINT, Job

CONFIG = TrialConfig(
    input=Denoised(denoiser=DenoiserTrial(network=ShallowUNet(width=0.25), patches=50)),
    descriptor=L2Net(width=0.125),
    sampler=RandomTriplets(batch=10),
    patches=120,
)


def test_making_a_shared_denoiser_costs_one_and_spares_the_other(tmp_path: Path, job: Job) -> None:
    (first,) = islice(checkpointed(CONFIG, job, Post(tmp_path / "first")), 1)
    (second,) = islice(checkpointed(CONFIG, job, Post(tmp_path / "second")), 1)
    assert first.metrics[MADE] > 0 == first.metrics[SPARED]
    assert second.metrics[SPARED] == pytest.approx(first.metrics[MADE], abs=0.01)
    assert second.metrics[MADE] == 0.0
    *_, last = checkpointed(CONFIG, job, Post(tmp_path / "first"))
    assert last.status == "completed"
    assert [last.metrics[name] for name in (MADE, SPARED)] == [first.metrics[MADE], 0.0]


def test_a_trial_whose_denoiser_diverges_has_diverged(tmp_path: Path, job: Job) -> None:
    sgd = SGD(lr=100, momentum=0.9)
    wild = DenoiserTrial(network=DnCNN(depth=3), loss="mse", optimiser=sgd, batch=8, patches=160)
    config = CONFIG.model_copy(update={"input": Denoised(denoiser=wild)})
    (only,) = checkpointed(config, job, Post(tmp_path / "wild"))
    assert (only.seen, only.status) == (0, "diverged")
    assert only.reason.startswith("the denoiser diverged")
    assert guarded(only, MEAN_MAP)["objective"] == MEAN_MAP.worst


def test_a_damaged_checkpoint_is_told_and_training_begins_anew(tmp_path: Path, job: Job) -> None:
    config, told = CONFIG.model_copy(update={"input": TrialConfig().input}), list[str]()
    post = Post(tmp_path, anew=told.append)
    first = list(checkpointed(config, job, post))
    assert told == []
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1])
    again = list(checkpointed(config, job, post))
    assert told == ["its checkpoint was damaged"]
    for report in (*first, *again):
        del report.metrics[SECONDS]
    assert again == first
