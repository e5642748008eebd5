"""Every space that we ship, from its first draw to a registered winner, at a hundredth of its size.

Too long for the plain suite: real Ray, real MLflow, and the embedded set ``mini``, because some
batches have more points than ``tiny`` has.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpsearch.data.embedded import embedded_store
from hpsearch.promotion.winner import SCORES
from hpsearch.search.workspace import Workspace

pytestmark = pytest.mark.chaos
SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))
SHRUNK = """
from dataclasses import replace
from pathlib import Path

from hpsearch.search.search import load_search

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


SEARCH = replace(
    FULL, suggest=lambda trial: shrunk(FULL.suggest(trial)), baseline=shrunk(FULL.baseline),
    budget=BUDGET, report_every=BUDGET // 2, grace=None, trials=3, seeds=1, validation_points=8,
)
"""


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kept = os.environ.get("HPSEARCH_TEST_DATA")
    return embedded_store("mini", Path(kept) if kept else tmp_path_factory.mktemp("mini"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_space_runs_to_its_end(path: Path, tmp_path: Path, mini: Path) -> None:
    space = tmp_path / f"{path.stem}.py"
    space.write_text(SHRUNK.format(path=str(path)))
    home = tmp_path / "home"
    inherited = {key: value for key, value in os.environ.items() if "MLFLOW_TRACK" not in key}
    done = subprocess.run(
        [
            sys.executable, "-m", "hpsearch", "search", str(space), "--data", str(mini),
            "--name", path.stem, "--cpus", "2", "--home", str(home),
        ],
        env={**inherited, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=480, check=False,
    )  # fmt: skip
    folder = Workspace(home).open(path.stem)
    trials = [run for run in folder.runs() if run.kind == "trial"]
    assert len(trials) == 3, done.stdout + done.stderr
    failed = [run.reason for run in trials if run.status in ("failed", "running", "interrupted")]
    assert not failed, done.stdout + done.stderr
    if any(run.status == "completed" for run in trials):
        assert done.returncode == 0, done.stdout + done.stderr
        assert (folder.path / SCORES).is_file()
    else:  # all collapsed: it says so
        assert done.returncode == 2
        assert "no trial completed" in done.stderr
