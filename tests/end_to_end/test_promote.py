"""Promotion by the real command: killed in the middle, gone on with, repeated, taken back."""

import json
import os
import signal
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.artifacts import download_artifacts

from hpsearch.cli import app
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.mlflow_tags import default_uri
from hpsearch.tracking.model_registry import Registry

from ..servers import free_port
from .conftest import SPACE, Home

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_800),
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning",
        "ignore::FutureWarning",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, tiny: PatchStore) -> Home:
    """With a search of which only the ledger is there: promotion trains everything itself."""
    home = Home(tmp_path_factory.mktemp("promotion"), tiny.path)
    ended(home, tiny, "known", objectives=[0.3, 0.5])
    ended(home, tiny, "empty", objectives=[])
    return home


def ended(home: Home, store: PatchStore, name: str, *, objectives: list[float]) -> SearchContext:
    """A search whose trials completed with these objectives."""
    record = SearchRecord(
        space=str(SPACE),
        store=str(store.path),
        fingerprint=store.fingerprint,
        split="auto",
        tracking_uri=default_uri(home.path),
        trials=len(objectives),
        cpus=2,
    )
    context = Workspace(home.path).create(name, SPACE, record)
    facts = {"name": "tiny", "fingerprint": store.fingerprint, "path": "p", "profile": "{}"}
    context.event_log.append("search", params={}, dataset=facts, direction="maximize", tags={})
    for number, value in enumerate(objectives):
        config = TrialConfig(
            descriptor=L2Net(width=0.125),
            sampler=RandomTriplets(batch=20),
            optimizer=Adam(lr=1e-3 * (1 + number)),
            patches=1_920,
        )
        output, trial = {"val/mAP": value}, f"{number:03d}"
        settings = config.model_dump(mode="json")
        context.event_log.append("start", trial=trial, number=number, config=settings)
        context.event_log.append(
            "report", trial=trial, seen=1_920, objective=value, metrics=output, seconds=60.0
        )
        context.event_log.append("trial_finished", trial=trial, status="completed", reason="")
    return context


def registry(home: Home) -> Registry:
    return Registry(tracking=TrackingServer(uri=default_uri(home.path)), model="patch-descriptor")


def here(home: Home, *words: object) -> None:
    """The command in this process, where all libraries are loaded already."""
    app([*map(str, words), "--home", str(home.path)], standalone_mode=False)


@pytest.fixture(scope="module")
def printed(own: Home, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What it prints at last, after two began at once and the driver was killed in the middle."""
    folder = tmp_path_factory.mktemp("log")
    words = ("promote", "known", "--top", 2, "--seeds", 2)
    logs = (folder / "first", folder / "second")
    both = [own.begin(*words, log=log) for log in logs]
    until = time.monotonic() + 900
    while len(own.event_log("known-promotion").events()) < 6 or all(p.poll() is None for p in both):
        assert None in [process.poll() for process in both], [log.read_text() for log in logs]
        assert time.monotonic() < until, [log.read_text() for log in logs]
        time.sleep(0.1)
    (refused,) = (n for n, process in enumerate(both) if process.poll() is not None)
    assert both[refused].returncode == 2
    said = logs[refused].read_text()
    assert "running in another process" in said or "exists already" in said
    driver = both[1 - refused]
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait(timeout=30)
    own.executions()
    done = own.run("promote", "known", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    assert own.executions() == 1, "the user's space file, once a command"
    return done.stdout


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(
    own: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(own.path.rglob("*.json"))
    for variable, value in own.environment.items():
        monkeypatch.setenv(variable, value)
    here(own, "promote", "known", "--dry-run", "--gate", "task_drop < 0.01")
    assert own.executions() == 1
    output = capsys.readouterr().out
    # these trials took no time by the clock, so the end alone is left to estimate
    assert "2 × 3 seeds = 6 trainings of 1,920 patches: about 20 s (2 at once" in output
    assert output.index("001") < output.index("000"), "the better one first"
    assert "patch-descriptor has no champion" in output
    assert "3 configurations requested; only 2 completed a trial" in output
    assert "to become champion it must keep: task_drop < 0.01" in output
    assert "Dry run: nothing was trained" in output
    with pytest.raises(UserError, match="no Ray cluster answers"):
        here(own, "promote", "known", "--address", f"127.0.0.1:{free_port()}")
    assert sorted(own.path.rglob("*.json")) == before
    assert not registry(own).versions()


def test_it_goes_on_after_a_kill_and_trains_each_configuration_with_each_seed(
    own: Home, printed: str
) -> None:
    assert "2 × 2 seeds = 4 trainings" in printed
    runs = [run for run in own.runs("known-promotion") if run.status != "interrupted"]
    assert sorted((run.config.optimizer.lr, run.config.seed) for run in runs) == [
        (1e-3, 1), (1e-3, 2), (2e-3, 1), (2e-3, 2),
    ]  # fmt: skip
    assert all(run.seen >= 1_920 for run in runs), "nothing is pruned"


def test_the_end_shows_both_tables_and_the_decision(printed: str) -> None:
    for words in (
        "Retrained: val/mAP on validation by seed",
        "seed 1",
        "± sd",
        "mAP on test with 95 % intervals",
        "RootSIFT",
        "patch-descriptor version 1 is champion:\n",
        "there was no champion",
    ):
        assert words in printed


def test_mlflow_shows_it_under_the_search(own: Home, printed: str) -> None:
    client = mlflow.MlflowClient(default_uri(own.path), default_uri(own.path))
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    searches = {
        run.data.tags["hpsearch.search"]: run
        for run in runs
        if run.data.tags["hpsearch.kind"] == "search"
    }
    child = searches["known-promotion"]
    assert child.data.tags["mlflow.parentRunId"] == searches["known"].info.run_id
    assert "| trial | in search |" in child.data.tags["mlflow.note.content"]
    trainings = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == child.info.run_id]
    assert len({run.data.tags["hpsearch.trial"] for run in trainings}) == len(trainings) >= 4
    version = registry(own).version_of("known-promotion")
    assert version is not None
    assert version.run_id in {run.info.run_id for run in trainings}
    assert version.tags["promoted_from"] == "known"
    mlflow.set_tracking_uri(default_uri(own.path))
    mlflow.set_registry_uri(default_uri(own.path))
    folder = Path(download_artifacts("models:/patch-descriptor/1"))
    card = next(folder.rglob("README.md")).read_text()
    for words in ("## Data", "CC0", "## Limits", "## How to load it", "| seed 1 | seed 2 |"):
        assert words in card


def test_a_second_time_trains_nothing_and_does_not_look_at_test(
    own: Home, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = own.event_log("known-promotion").events()
    here(own, "promote", "known")
    output = capsys.readouterr().out
    assert "all done" in output
    assert "it is not evaluated on test again" in output
    assert "it is already the champion" in output
    assert own.event_log("known-promotion").events() == before
    assert len(list((own.path / "judged").glob("*.json"))) == 3, "it, RootSIFT and pixels"
    assert len(registry(own).versions()) == 1


def test_two_promotions_of_a_search_at_once_are_refused(own: Home, printed: str) -> None:
    child = Workspace(own.path).open("known-promotion")
    with child.lock(), pytest.raises(UserError, match="is running in another process"):
        here(own, "promote", "known")


def test_the_best_is_trained_larger_in_a_promotion_of_its_own(own: Home, printed: str) -> None:
    """Last of the promotions, since it adds a version; other widths have other names."""
    words = ("promote", "known", "--top", 1, "--seeds", 1, "--budget", 2_880, "--width", 0.25)
    here(own, *words)
    child = Workspace(own.path).open("known-promotion-2880-w0.25")
    (trained,) = [run for run in child.runs if run.kind == "trial"]
    assert (trained.status, trained.config.patches) == ("completed", 2_880)
    assert trained.config.descriptor == L2Net(width=0.25)
    assert [report["seen"] for report in trained.reports][-1] == 2_880
    assert len(registry(own).versions()) == 2


def test_what_cannot_be_is_one_sentence(own: Home, printed: str) -> None:
    for words, code, value in (
        (("promote", "nowhere"), "user-error", "'nowhere'"),
        (("promote", "empty"), "no-completed-trial", "'empty'"),
        (("promote", "known", "--seeds", 5), "promotion-in-progress", "--top 2 --seeds 2"),
        (("promote", "known-promotion"), "search-is-promotion", "`hpsearch promote known --home"),
        (("resume", "known-promotion"), "search-is-promotion", "`hpsearch promote known --home"),
        (("pause", "known-promotion"), "search-not-running", "`hpsearch promote known --home"),
        (
            ("search", SPACE, "--name", "known-promotion"),
            "search-exists",
            "`hpsearch promote known --home .*--name",
        ),
        (
            ("extend", "known-promotion-2880-w0.25", "--trials", 1),
            "search-is-promotion",
            "`hpsearch promote known --budget 2880 --width 0.25 --home",
        ),
        (("rollback",), "no-earlier-champion", "version 1"),
        (("rollback", "nobody"), "no-such-model", "'nobody'"),
    ):
        with pytest.raises(UserError, match=value) as caught:
            here(own, *words)
        assert caught.value.code == code
    scores = json.loads((own.path / "searches/known-promotion/test_scores.json").read_text())
    assert len(scores.keys() - {"schema_version"}) == 1, "the pick alone has seen test"
