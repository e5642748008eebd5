"""One trial without Ray: as its search trained it, or from a JSON."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hpsearch.cli import app
from hpsearch.config import Adam, ComputeConfig, CustomLoss, L2Net, RandomTriplets, TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.execution.cross_validation import run_cross_validation
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.models.serialization import load_pipeline
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.training.devices import torch_threads
from hpsearch.training.loop import Report
from hpsearch.training.trial import TrialEnvironment
from hpsearch.workflows import describe_patches
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.recorded_trial import recorded_trial
from hpsearch.workflows.train_trial import environment_of, train_trial

from ..search_factory import plan

SPACE = """
from hpsearch.config import TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(patches=240, seed=trial.suggest_int("seed", 0, 9))

SEARCH = Search(suggest=suggest, budget=240, report_every=120, trials=1, validation_points=5,
                baseline=TrialConfig(patches=240){more})
"""
CONFIG = TrialConfig(
    descriptor=L2Net(width=0.125, dropout=0.2), sampler=RandomTriplets(batch=20),
    optimizer=Adam(lr=1e-3), patches=240, seed=3,
)  # fmt: skip


class Recorder(Observer):
    """Keeps messages and warnings."""

    def __init__(self) -> None:
        self.messages, self.warnings = list[str](), list[str]()

    def message(self, text: str) -> None:
        self.messages.append(text)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


def begin(home: Path, store: PatchStore, *, more: str = "") -> SearchContext:
    return plan(home, store, SPACE.format(more=more), trials=1)


def record(context: SearchContext, *, cpus: float = 1, changed: float = 0.0) -> list[Report]:
    """Train a trial as a worker does and log it; ``changed`` is added to each mAP in the log."""
    hooks, env = CheckpointHooks(context.home / "worker"), context.environment
    env = replace(env, computing=ComputeConfig(device="cpu"))
    place = {"kind": "cpu", "cpus": cpus}
    config = CONFIG.model_dump(mode="json")
    context.event_log.append("start", trial="000", number=0, config=config, allocation=place)
    with torch_threads(int(cpus)):
        k = context.search.num_folds
        reports = list(
            run_cross_validation(CONFIG, env, hooks, k=k)
            if k
            else run_with_checkpoints(CONFIG, env, hooks)
        )
    for report in reports:
        score = report.metrics["val/mAP"] + changed
        metrics = {**report.metrics, "val/mAP": score}
        context.event_log.append(
            "report", trial="000", seen=report.seen, objective=score, metrics=metrics
        )
    context.event_log.append("trial_finished", trial="000", status="completed")
    return reports


@pytest.fixture(autouse=True)
def two_threads() -> object:
    """What torch takes where nobody sets OMP_NUM_THREADS."""
    with torch_threads(2):
        yield


@pytest.mark.parametrize("more", ["", ", num_folds=2"], ids=["split", "folds"])
def test_a_trial_of_a_search_repeats_to_the_last_bit(
    more: str, tiny: PatchStore, tmp_path: Path
) -> None:
    context = begin(tmp_path / "home", tiny, more=more)
    reports, observer = record(context), Recorder()
    found = recorded_trial("far/0", Workspace(context.home))
    assert (found.threads, found.env.validation_points, found.env.report_every) == (1, 5, 120)
    assert found.num_folds == (2 if more else None)
    train_trial(
        found.run.config, found.env, tmp_path / "out", threads=found.threads, recorded=found,
        observer=observer,
    )  # fmt: skip
    score = f"val/mAP {reports[-1].metrics['val/mAP']:.4f} at {reports[-1].seen} patches"
    assert f"trial 000 of search 'far' again, to the last bit: {score}" in observer.messages
    assert not observer.warnings
    assert load_pipeline(tmp_path / "out")
    assert torch.get_num_threads() == 2, "only inside"


def test_a_trial_that_does_not_repeat_is_said_to_be_another(
    tiny: PatchStore, tmp_path: Path
) -> None:
    context = begin(tmp_path / "home", tiny)
    record(context, changed=1e-7)
    found, observer = recorded_trial("far/000", Workspace(context.home)), Recorder()
    train_trial(CONFIG, found.env, tmp_path / "out", recorded=found, observer=observer)
    (warning,) = observer.warnings
    assert warning.startswith("This is not trial 000 of search 'far' again: val/mAP is 0.")
    assert "at 120 patches" in warning
    assert not any("last bit" in text for text in observer.messages)


def test_an_option_that_would_make_it_another_trial_is_refused(
    tiny: PatchStore, tmp_path: Path
) -> None:
    context = begin(tmp_path / "home", tiny)
    words = ["train", "far/0", "--home", str(context.home)]
    for option in (["--validation-points", "9"], ["--data", "mini"], ["--compile"]):
        with pytest.raises(UserError, match=f"{option[0]} of far/0 is that of its search"):
            app([*words, *option], standalone_mode=False)
    with pytest.raises(UserError, match="there is no trial at nowhere/0"):
        app(["train", "nowhere/0", "--home", str(context.home)], standalone_mode=False)


def test_threads_and_device_are_those_of_the_worker(tiny: PatchStore, tmp_path: Path) -> None:
    context = begin(tmp_path / "home", tiny)
    place = {"kind": "gpu", "cpus": 3.5, "gpus": 1}
    config = CONFIG.model_dump(mode="json")
    context.event_log.append("start", trial="000", number=0, config=config, allocation=place)
    record = context.record.model_copy(update={"resources": context.record.resources.model_copy(
        update={"device": "auto"})})  # fmt: skip
    record.write(context.paths.folder)
    found = recorded_trial("far/0", Workspace(context.home))
    assert (found.threads, found.env.computing.device) == (3, "cuda")
    assert found.environment("cpu").computing == ComputeConfig(device="cpu")
    with pytest.raises(UserError) as missing:
        recorded_trial("far/7", Workspace(context.home))
    assert missing.value.code == "no-such-trial"


def test_an_output_is_checked_before_any_training(job: TrialEnvironment, tmp_path: Path) -> None:
    job = replace(job, computing=ComputeConfig(device="cpu"))
    out = tmp_path / "out"
    train_trial(CONFIG, job, out)
    assert train_trial(CONFIG, job, out) is None, "it had ended"
    for config, env in (
        (CONFIG.model_copy(update={"seed": 4}), job),
        (CONFIG, replace(job, validation_points=9)),
    ):
        with pytest.raises(UserError) as refused:
            train_trial(config, env, out)
        assert refused.value.code == "output-in-use"
    (tmp_path / "file").touch()
    for occupied in ("file", "file/inside"):
        with pytest.raises(UserError) as refused:
            train_trial(CONFIG, job, tmp_path / occupied)
        assert refused.value.code == "output-not-writable"
        assert str(tmp_path / occupied) in str(refused.value)


def test_a_program_trains_with_own_objects_of_its_modules(
    job: TrialEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_nearness.py").write_text("def near(x):\n    return (x[0] - x[1]).norm()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = CONFIG.model_copy(update={"loss": CustomLoss(object="own_nearness:near")})

    report = train_trial(config, job, tmp_path / "out")

    assert report is not None
    assert report.seen == 240
    inside = config.model_copy(update={"loss": CustomLoss(object="near")})
    with pytest.raises(UserError) as caught:
        train_trial(inside, job, tmp_path / "other")
    assert caught.value.code == "custom-without-module"
    assert not (tmp_path / "other").exists()


def test_descriptors_are_computed_with_one_thread_unless_more_are_given(
    job: TrialEnvironment, tiny: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_trial(CONFIG, replace(job, computing=ComputeConfig(device="cpu")), tmp_path / "out")
    used = list[int]()
    monkeypatch.setattr(
        describe_patches, "describe_source", lambda *_, **__: used.append(torch.get_num_threads())
    )
    for threads in ({}, {"threads": 3}):
        describe_patches.describe_patches(
            str(tmp_path / "out"), str(tiny.path), tmp_path / "found.npy", home=tmp_path, **threads
        )
    assert used == [1, 3]


def test_a_json_is_trained_with_what_the_options_say(tiny: PatchStore, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    plain = environment_of(CONFIG, workspace, {"data": str(tiny.path)})
    assert plain.validation_points == 64, "as a search, unless it says otherwise"
    assert plain.computing == ComputeConfig()
    options = {"data": str(tiny.path), "validation_points": 7, "compile": True, "device": "cpu"}
    given = environment_of(CONFIG, workspace, options)
    assert given.validation_points == 7
    assert given.computing == ComputeConfig(device="cpu", compiled=True)


def test_other_patches_are_validated_on_and_the_rest_trained_on(
    tiny: PatchStore, tmp_path: Path
) -> None:
    workspace, observer = Workspace(tmp_path), Recorder()
    options = {"data": str(tiny.path)}
    alone = environment_of(CONFIG, workspace, options)
    given = environment_of(CONFIG, workspace, {**options, "validation_data": "mini"}, observer)
    assert set(given.split.train) == {*alone.split.train, *alone.split.validation}
    assert given.validation_patches().store.path == workspace.store("mini").path
    assert "i_astronaut" not in given.validation_patches().names, "a test sequence of mini"
    assert "names of training sequences" in observer.messages[0], "both sets show these pictures"
