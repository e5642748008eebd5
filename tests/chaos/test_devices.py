"""GPUs and TPU chips of one machine, in name only: what each trial's process is shown of them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution import ray_runtime, tuner
from hpsearch.search.resources import Resources

from ..search_factory import plan
from .searches import MARKS

pytestmark = [*MARKS, pytest.mark.filterwarnings("ignore::FutureWarning")]

SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=200)

SEARCH = Search(suggest=suggest, budget=200, report_every=100, trials=8, pruner=NoPruner(),
                baseline=TrialConfig(patches=200))
"""
AT_ONCE = 3
"""Trials that wait for each other, so that they run side by side."""


@pytest.fixture(autouse=True)
def machine() -> Iterator[None]:
    """Eight cores, two GPUs and four chips."""
    ray.init(
        num_cpus=8, num_gpus=2, resources={"TPU": 4}, include_dashboard=False, log_to_driver=False
    )
    yield
    ray_runtime.stop_ray()


def shown(folder: Path) -> Any:
    """A training function that writes down which devices its process is shown, and when."""

    def train(config: dict[str, Any], **unused: Any) -> None:
        import json
        import os
        import time

        from ray import tune

        from hpsearch.execution.worker_messages import Reported

        names = ("CUDA_VISIBLE_DEVICES", "TPU_VISIBLE_CHIPS")
        seen = {name: os.environ.get(name) for name in names}
        began = time.time()
        (folder / f"{config['id']}.began").touch()
        while len(list(folder.glob("*.began"))) < AT_ONCE:
            time.sleep(0.05)
        output = {**seen, "kind": config["place"]["kind"], "began": began, "ended": time.time()}
        (folder / f"{config['id']}.json").write_text(json.dumps(output))
        tune.report(Reported(200, 0.5, "completed").to_dict())

    return train


def test_trials_on_gpus_and_tpus_side_by_side_see_their_own_devices_alone(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plan(tmp_path, tiny, SPACE, trials=8, resources=Resources(gpus=1, tpus=2))
    ray_runtime.start_ray()
    monkeypatch.setattr(tuner, "train_on_worker", shown(tmp_path))
    assert tuner.run_session(folder).exhausted
    trials = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("0*.json"))]
    assert len(trials) == 8
    assert {trial["kind"] for trial in trials} == {"gpu", "tpu"}
    for kind, name, each in (("gpu", "CUDA_VISIBLE_DEVICES", 1), ("tpu", "TPU_VISIBLE_CHIPS", 2)):
        own = [trial for trial in trials if trial["kind"] == kind]
        for trial in own:
            devices = set(trial[name].split(","))
            assert len(devices) == each, "as many as were asked for"
            for other in own:
                if other is not trial and overlap(trial, other):
                    assert not devices & set(other[name].split(",")), "held by another trial"
    for trial in trials:
        if trial["kind"] == "tpu":
            assert not trial["CUDA_VISIBLE_DEVICES"], "a GPU that it does not hold"
    at_once = [sum(overlap(trial, other) for other in trials) for trial in trials]
    assert max(at_once) >= AT_ONCE, "side by side"


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["began"] < other["ended"] and other["began"] < one["ended"]
