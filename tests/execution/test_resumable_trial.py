"""What a trial shares with others is counted once, also when it goes on from a checkpoint."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from hpsearch.config import (
    SGD,
    Constant,
    Cosine,
    Denoised,
    DenoiserTraining,
    DnCNN,
    L2Net,
    RandomTriplets,
    ShallowUNet,
    TrialConfig,
)
from hpsearch.execution.checkpoint_store import inherit_checkpoint
from hpsearch.execution.resumable_trial import SECONDS_METRIC, CheckpointHooks, run_with_checkpoints
from hpsearch.search.objective import MEAN_MAP
from hpsearch.search.outcome import to_result
from hpsearch.training.artifact_cache import COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC
from hpsearch.training.loop import Report
from hpsearch.training.trial import CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE, TrialEnvironment

CONFIG = TrialConfig(
    input=Denoised(denoiser=DenoiserTraining(network=ShallowUNet(width=0.25), patches=50)),
    descriptor=L2Net(width=0.125),
    sampler=RandomTriplets(batch=10),
    patches=120,
)


def test_making_a_shared_denoiser_costs_one_and_spares_the_other(
    tmp_path: Path, job: TrialEnvironment
) -> None:
    (first,) = islice(run_with_checkpoints(CONFIG, job, CheckpointHooks(tmp_path / "first")), 1)
    (second,) = islice(run_with_checkpoints(CONFIG, job, CheckpointHooks(tmp_path / "second")), 1)
    assert first.metrics[COMPUTED_SECONDS_METRIC] > 0 == first.metrics[SAVED_SECONDS_METRIC]
    assert second.metrics[SAVED_SECONDS_METRIC] == pytest.approx(
        first.metrics[COMPUTED_SECONDS_METRIC], abs=0.01
    )
    assert second.metrics[COMPUTED_SECONDS_METRIC] == 0.0
    *_, last = run_with_checkpoints(CONFIG, job, CheckpointHooks(tmp_path / "first"))
    assert last.status == "completed"
    assert [last.metrics[name] for name in (COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC)] == [
        first.metrics[COMPUTED_SECONDS_METRIC],
        0.0,
    ]


def test_a_trial_whose_denoiser_diverges_has_diverged(
    tmp_path: Path, job: TrialEnvironment
) -> None:
    sgd = SGD(lr=100, momentum=0.9)
    wild = DenoiserTraining(network=DnCNN(depth=3), loss="mse", optimizer=sgd, batch=8, patches=160)
    config = CONFIG.model_copy(update={"input": Denoised(denoiser=wild)})
    (only,) = run_with_checkpoints(config, job, CheckpointHooks(tmp_path / "wild"))
    assert (only.seen, only.status) == (0, "diverged")
    assert only.reason.startswith("the denoiser diverged")
    assert to_result(only, MEAN_MAP)["objective"] == MEAN_MAP.worst


def test_a_damaged_checkpoint_costs_one_interval_and_both_damaged_the_trial(
    tmp_path: Path, job: TrialEnvironment
) -> None:
    config, messages = (
        TrialConfig(**{**dict(CONFIG), "input": TrialConfig().input, "patches": 180}),
        list[str](),
    )
    post = CheckpointHooks(tmp_path, on_restart=messages.append)
    latest, previous = tmp_path / CHECKPOINT_FILE, tmp_path / PREVIOUS_CHECKPOINT_FILE
    first = list(run_with_checkpoints(config, job, post))
    assert len(first) > 2
    for damaged, repeated, reason in (
        ([latest], first[-2:], []),
        ([latest, previous], first, ["its checkpoint was damaged"]),
    ):
        for path in damaged:
            path.write_bytes(path.read_bytes()[:-1])
        again = list(run_with_checkpoints(config, job, post))
        assert messages == reason
        assert [without_seconds(report) for report in again] == [
            without_seconds(report) for report in repeated
        ]


def without_seconds(report: Report) -> Report:
    metrics = {k: v for k, v in report.metrics.items() if k != SECONDS_METRIC}
    return replace(report, metrics=metrics)


@pytest.mark.parametrize("schedule", [Constant(), Cosine()])
def test_a_trial_that_trains_on_ends_as_one_with_the_larger_budget(
    tmp_path: Path, job: TrialEnvironment, schedule: Constant | Cosine
) -> None:
    config = TrialConfig(
        **{**dict(CONFIG), "input": TrialConfig().input, "patches": 240, "schedule": schedule}
    )
    env = replace(job, report_every=60)
    whole = [without_seconds(r) for r in run_with_checkpoints(config, env, at(tmp_path / "whole"))]
    half = config.model_copy(update={"patches": 120})
    *_, parent = run_with_checkpoints(half, env, at(tmp_path / "parent"))
    assert parent.status == "completed"
    inherit_checkpoint(tmp_path / "parent", tmp_path / "child")
    first, *rest = run_with_checkpoints(config, env, at(tmp_path / "child"))
    assert (first.seen, first.status) == (parent.seen, "running")
    assert [r.seen for r in rest] == [r.seen for r in whole if r.seen > parent.seen]
    assert rest[-1].status == "completed"
    if schedule == Constant():
        assert [without_seconds(r) for r in rest] == whole[-len(rest) :]
        return
    rates = {r.seen: r.metrics["train/lr"] for r in whole}
    assert {r.seen: r.metrics["train/lr"] for r in rest}.items() <= rates.items()
    before = (tmp_path / "child" / CHECKPOINT_FILE).read_bytes()
    inherit_checkpoint(tmp_path / "parent", tmp_path / "child")
    assert (tmp_path / "child" / CHECKPOINT_FILE).read_bytes() == before, "a resume keeps its own"


def at(folder: Path) -> CheckpointHooks:
    return CheckpointHooks(folder)


def test_a_collapsed_trial_stays_collapsed_when_its_end_is_repeated(
    tmp_path: Path, job: TrialEnvironment
) -> None:
    config = TrialConfig(
        **{**dict(CONFIG), "input": TrialConfig().input, "optimizer": SGD(lr=0.9, weight_decay=1.0)}
    ).model_copy(update={"patches": 4_000})
    *_, end = run_with_checkpoints(config, job, at(tmp_path))
    assert end.status in ("collapsed", "diverged")
    assert next(run_with_checkpoints(config, job, at(tmp_path))).status == end.status
