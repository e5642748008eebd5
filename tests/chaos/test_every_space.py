"""Every space that we ship, from its first draw to a registered winner, at a hundredth of its size.

Too long for the plain suite: real Ray, real MLflow, and the embedded set ``mini``, because some
batches have more points than ``tiny`` has.
"""

import os
from pathlib import Path

import optuna
import pytest

from hpsearch.config import ComputeConfig
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.search.search_context import SCORES_FILE
from hpsearch.search.space_file import load_search
from hpsearch.search.workspace import Workspace
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.trial import TrialEnvironment, build_trial

from ..processes import run
from .searches import trials

pytestmark = pytest.mark.chaos
SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))
BAD = ("failed", "running", "interrupted")
SHRUNK = """
from pathlib import Path

from hpsearch.search.space_file import load_search

FULL, BUDGET = load_search(Path({path!r})), 960


def shrunk(config):
    smaller = {{"patches": BUDGET}}
    if hasattr(config.descriptor, "width"):
        smaller["descriptor"] = config.descriptor.model_copy(update={{"width": 0.125}})
    if hasattr(config.input, "denoiser"):
        network = config.input.denoiser.network
        least = {{"width": 0.125, "channels": 4, "depth": 3}}
        kept = {{name: value for name, value in least.items() if hasattr(network, name)}}
        network = network.model_copy(update=kept)
        denoiser = config.input.denoiser.model_copy(update={{"patches": 128, "network": network}})
        smaller["input"] = config.input.model_copy(update={{"denoiser": denoiser}})
    if config.warm_start is not None:
        smaller["warm_start"] = config.warm_start.model_copy(update={{"patches": 128}})
    return config.model_copy(update=smaller)


PRUNER = FULL.pruner
if PRUNER is not None and hasattr(PRUNER, "grace_period"):
    PRUNER = PRUNER.model_copy(update={{"grace_period": None}})
SEARCH = FULL.with_changes(
    suggest=lambda trial: shrunk(FULL.suggest(trial)), baseline=shrunk(FULL.baseline),
    budget=BUDGET, report_every=BUDGET // 2, pruner=PRUNER, trials=3, seeds_per_point=1,
    validation_points=8,
)
"""


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("HPSEARCH_TEST_DATA")
    return open_builtin("mini", Path(kept) if kept else tmp_path_factory.mktemp("mini"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_runs_to_its_end(path: Path, tmp_path: Path, mini: Path) -> None:
    space = tmp_path / f"{path.stem}.py"
    space.write_text(SHRUNK.format(path=str(path)))
    home = tmp_path / "home"
    done = run(
        "search", space, "--data", mini, "--name", path.stem, "--cpus", 2, "--home", home,
        timeout=480,
    )  # fmt: skip
    context = Workspace(home).open(path.stem)
    ended = trials(context)
    assert len(ended) == 3, done.stdout + done.stderr
    failed = [trial.reason for trial in ended if trial.status in BAD]
    assert not failed, done.stdout + done.stderr
    if any(trial.status == "completed" for trial in ended):
        assert done.returncode == 0, done.stdout + done.stderr
        assert (context.paths.folder / SCORES_FILE).is_file()
    else:  # all collapsed: it says so
        assert done.returncode == 2
        assert "no trial completed" in done.stderr


def test_the_default_of_the_stepped_space_steps(mini: Path, tmp_path: Path) -> None:
    """Its first point, trained to the end of its own budget (some 40 s of one core)."""
    search = load_search(Path(__file__).parents[2] / "search_spaces" / "stepped.py")
    config = search.suggest_config(optuna.trial.FixedTrial(dict(search.initial_points[0])))
    store = PatchStore.open(mini)
    job = TrialEnvironment(
        store=store,
        split=store.split(),
        artifacts=ArtifactCache(str(tmp_path)),
        report_every=8_000,
        validation_points=16,
        computing=ComputeConfig(device="cpu"),
    )
    reports = list(build_trial(config, job).reports())
    assert reports[-1].status == "completed"
    assert reports[-1].metrics["train/stage"] >= 1
