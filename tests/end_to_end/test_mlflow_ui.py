"""What a person sees of a search in MLflow: the real server, the real browser."""

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hpsearch.cli.results import sync
from hpsearch.config import L2Net
from hpsearch.data.patch_store import PatchStore
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.models.serialization import PipelineSpec, save_pipeline
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.model_artifact import ModelArtifact
from hpsearch.tracking.model_registry import Decision, Registry
from hpsearch.training.devices import choose_device
from hpsearch.training.validation import build_test_set, evaluate_on_test_set

from ..servers import free_port
from .browser import Page, browser, chromium
from .conftest import SPACE, Home
from .sample_search import write_trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning",
        "ignore::UserWarning",
    ),
]  # fmt: skip


@dataclass
class Shown:
    """A search with a registered model, and where ``hpsearch ui`` says that it is."""

    page: Page
    search: str
    table: str
    charts: str
    study: str
    runs: dict[str, str]
    """MLflow's run ids by trial."""

    @property
    def base(self) -> str:
        return self.search.split("/?")[0]

    def at(self, path: str) -> str:
        mode = "workflowType=machine_learning"
        return f"{self.base}/?{mode}#/{path}{'&' if '?' in path else '?'}{mode}"


@pytest.fixture(scope="module")
def shown(
    home: Home, tiny: PatchStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    chromium()  # before anything that takes time
    fresh = Home(tmp_path_factory.mktemp("home"), home.store)
    context = write_search(fresh, tiny)
    sync("seen", pictures=True, tracking_uri=None, home=fresh.path)
    mlflow_sync = context.mlflow_sync()
    mlflow_sync.sync()
    register(context, mlflow_sync.run_id("t1"), tiny, tmp_path_factory.mktemp("model"))
    runs = {trial: mlflow_sync.run_id(trial) for trial in ("t0", "t1", "t2")}
    log = tmp_path_factory.mktemp("log") / "ui"
    process = fresh.begin("ui", "seen", "--port", free_port(), log=log)
    try:
        addresses = wait_for_addresses(process, log)
        with browser(tmp_path_factory.mktemp("profile")) as page:
            yield Shown(page, *addresses, runs)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert log.read_text().rstrip().endswith("stopped")


def wait_for_addresses(process: subprocess.Popen, log: Path) -> list[str]:
    for _ in range(1200):
        found = re.findall(r"http://\S+", log.read_text())
        if "Ctrl-C stops it" in log.read_text():
            return found
        assert process.poll() is None, log.read_text()
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(log.read_text())


def write_search(home: Home, tiny: PatchStore) -> SearchContext:
    """Three trials that need no training."""
    workspace = Workspace(home.path)
    record = SearchRecord(
        space=str(SPACE), store=str(tiny.path), fingerprint=tiny.fingerprint, split="auto",
        tracking_uri=workspace.tracking().uri, trials=3,
    )  # fmt: skip
    context = workspace.create("seen", SPACE, record)
    write_trials(context.event_log, tiny.fingerprint)
    return context


def register(context: SearchContext, run_id: str, tiny: PatchStore, to: Path) -> None:
    recipe = PipelineSpec(denoiser=None, descriptor=L2Net(width=0.125))
    pipeline = Pipeline(
        denoiser=None, descriptor=build_descriptor(recipe.descriptor, seed=1)
    ).eval()
    save_pipeline(pipeline, recipe, to)
    test = build_test_set(tiny, tiny.split())
    registry = Registry(tracking=context.tracking(), model="seen-model")
    version = registry.register(
        ModelArtifact(
            folder=to, run_id=run_id, search="seen", fingerprint=tiny.fingerprint,
            scores=evaluate_on_test_set(pipeline, test, noisy=True, device=choose_device("cpu")),
            example=np.array(tiny.noisy[:2, 0]), descriptor_dim=128,
        )
    )  # fmt: skip
    registry.apply(version, Decision("champion", "there was no champion"))


def has(*words: str) -> str:
    """Whether the page says all these words, in JavaScript."""
    return f"{json.dumps(words)}.every(word => document.body.innerText.includes(word))"


def test_the_page_of_the_search_says_what_came_out(shown: Shown, tmp_path: Path) -> None:
    shown.page.open(
        shown.search, ready=has("Best on validation: trial 001", "the report", "Leaderboard")
    )
    unfold = "[...document.querySelectorAll('button')].find(b => b.innerText == 'Show more')"
    picture = "[...document.images].some(i => i.src.includes('note.png') && i.width > 99)"
    shown.page.wait(f"({unfold}?.click(), {picture})")
    shown.page.screenshot(tmp_path / "search.png")


def test_the_experiment_lists_the_trials_under_the_search(shown: Shown) -> None:
    runs = shown.search.split("/runs/")[0].replace(shown.base, "") + "/runs"
    shown.page.open(f"{shown.base}{runs}?workflowType=machine_learning", ready=has("seen"))
    assert "001 triplet" not in shown.page.text(), "folded at first"
    shown.page.value("document.querySelector('.ag-row button').click()")
    shown.page.wait(has("000 triplet", "001 triplet", "002 triplet"))


def test_the_table_of_trials_shows_the_columns_worth_sorting_by(shown: Shown) -> None:
    shown.page.open(shown.table, ready=has("002 triplet", "objective", "optimizer.lr", "status"))
    words = shown.page.text()
    assert words.index("001 triplet") < words.index("000 triplet") < words.index("002 triplet")
    assert "patches" not in words.splitlines(), "what all trials share is no column"


def test_charts_are_grouped_by_name(shown: Shown) -> None:
    shown.page.open(shown.charts, ready=has("001 triplet", "train", "val", "val/matching"))


def test_runs_are_compared(shown: Shown) -> None:
    ids = ",".join(f"%22{run}%22" for run in list(shown.runs.values())[:2])
    path = f"compare-runs?runs=%5B{ids}%5D&experiments=%5B%221%22%5D"
    # the page builds the rows that are in sight, in the order of their names
    shown.page.open(shown.at(path), ready=has("Comparing 2 Runs", "optimizer.lr", "test/mAP"))


def test_the_model_shows_its_alias_and_scores(shown: Shown) -> None:
    shown.page.open(shown.at("models/seen-model"), ready=has("seen-model", "champion"))
    shown.page.open(shown.at("models/seen-model/versions/1"), ready=has("test/mean", "champion"))


def test_the_dashboard_of_optuna_names_the_metric(shown: Shown, tmp_path: Path) -> None:
    shown.page.open(shown.study, ready=has("seen", "Hyperparameter Importance", "val/mAP"))
    shown.page.screenshot(tmp_path / "study.png")
