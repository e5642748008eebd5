"""A trial in folds: what it reports, and that it goes on inside a fold."""

import io
from itertools import islice
from pathlib import Path

import pytest
import torch

from hpsearch.atomic_files import write_with_checksum
from hpsearch.config import SGD, BatchHard, L2Net, PKSampler, RandomTriplets, TrialConfig
from hpsearch.data.splits import folds
from hpsearch.execution.cross_validation import FOLDS_FILE, run_cross_validation
from hpsearch.execution.resumable_trial import SECONDS_METRIC, CheckpointHooks, run_with_checkpoints
from hpsearch.training.trial import TrialEnvironment

SMALL = L2Net(width=0.125)
CONFIG = TrialConfig(descriptor=SMALL, sampler=RandomTriplets(batch=20), patches=480)
K = 2


def test_each_fold_is_a_trial_of_its_own_and_the_mean_is_reported(
    job: TrialEnvironment, tmp_path: Path
) -> None:
    reports = list(run_cross_validation(CONFIG, job, CheckpointHooks(tmp_path / "trial"), k=K))
    assert [report.seen for report in reports] == [240, 480]
    assert [report.status for report in reports] == ["running", "completed"]
    alone = []
    for index, split in enumerate(folds(job.split, K)):
        assert not set(split.validation) & set(job.split.test)
        part = TrialEnvironment(**{**vars(job), "split": split})
        config = CONFIG.model_copy(update={"patches": 240})
        *_, last = run_with_checkpoints(config, part, CheckpointHooks(tmp_path / f"alone {index}"))
        alone.append(last.metrics["val/mAP"])
    assert reports[0].metrics["val/mAP"] == alone[0]
    assert reports[1].metrics["val/mAP"] == pytest.approx(sum(alone) / K)
    assert reports[1].metrics["folds/spread"] == pytest.approx(max(alone) - min(alone))
    assert reports[1].metrics[SECONDS_METRIC] > reports[0].metrics[SECONDS_METRIC] > 0


def test_a_trial_goes_on_inside_a_fold(job: TrialEnvironment, tmp_path: Path) -> None:
    whole = list(run_cross_validation(CONFIG, job, CheckpointHooks(tmp_path / "whole"), k=K))
    folder = tmp_path / "cut"
    first = next(run_cross_validation(CONFIG, job, CheckpointHooks(folder), k=K))
    inside = folds(job.split, K)[1]
    part = TrialEnvironment(**{**vars(job), "split": inside})
    begun = run_with_checkpoints(
        CONFIG.model_copy(update={"patches": 240}), part, CheckpointHooks(folder / "fold-1")
    )
    list(islice(begun, 1))
    path = folder / "fold-1" / "trial.pt"
    checkpoint = torch.load(path)
    # so that one can see that it is gone on from
    checkpoint["report"]["metrics"][SECONDS_METRIC] = 1_000.0
    changed = io.BytesIO()
    torch.save(checkpoint, changed)
    write_with_checksum(path, changed.getvalue())
    again = list(run_cross_validation(CONFIG, job, CheckpointHooks(folder), k=K))
    assert again[1].metrics[SECONDS_METRIC] > 1_000
    assert [report.seen for report in again] == [240, 480], "the last is told again"
    assert again[0] == first
    for name in ("val/mAP", "train/loss", "val/verification"):
        assert again[1].metrics[name] == whole[1].metrics[name]
    assert [path.name for path in folder.iterdir()] == [FOLDS_FILE], "no fold's network is kept"


def test_a_flipped_bit_in_the_folds_that_are_done_begins_the_trial_again(
    job: TrialEnvironment, tmp_path: Path
) -> None:
    first = next(run_cross_validation(CONFIG, job, CheckpointHooks(tmp_path), k=K))
    content = bytearray((tmp_path / FOLDS_FILE).read_bytes())
    content[content.index(b"0.") + 2] ^= 1  # another digit, and JSON all the same
    (tmp_path / FOLDS_FILE).write_bytes(content)
    messages: list[str] = []
    again = next(
        run_cross_validation(
            CONFIG, job, CheckpointHooks(tmp_path, on_restart=messages.append), k=K
        )
    )
    assert messages == ["the scores of its folds were damaged"]
    assert again.metrics.pop(SECONDS_METRIC) != first.metrics.pop(SECONDS_METRIC), "trained again"
    assert again == first


def test_a_collapse_ends_the_trial_in_its_fold(job: TrialEnvironment, tmp_path: Path) -> None:
    config = TrialConfig(
        descriptor=SMALL, loss=BatchHard(), sampler=PKSampler(groups=8, views=4),
        optimizer=SGD(lr=0.9, weight_decay=1.0), patches=1_920,
    )  # fmt: skip
    (report,) = run_cross_validation(config, job, CheckpointHooks(tmp_path / "trial"), k=K)
    assert report.status in ("collapsed", "diverged")
    assert report.reason.startswith("fold 1: ")
    assert report.seen < 960
