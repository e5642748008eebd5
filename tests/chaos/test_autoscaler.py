"""A search that comes before its nodes: Ray's own autoscaler starts them, and takes them back."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.store import PatchStore
from hpsearch.tracking.ledger import Ledger
from hpsearch.tracking.runs import runs_from

from .conftest import Fleet
from .searches import SPACE, joined, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(600)]

ADDRESS = "http://127.0.0.1:8381"
HEAD = "ray.head.default"
CLUSTER: dict[str, Any] = {
    "cluster_name": "come-and-go",
    "max_workers": 2,
    "upscaling_speed": 2.0,
    "idle_timeout_minutes": 0.2,
    "provider": {
        "type": "external",
        "module": "tests.chaos.come_and_go.ComeAndGo",
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": HEAD,
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 2},
    },
    **dict.fromkeys(("auth", "docker", "file_mounts"), {}),
    **dict.fromkeys(
        (
            "cluster_synced_files", "initialization_commands", "setup_commands",
            "head_setup_commands", "worker_setup_commands",
            "head_start_ray_commands", "worker_start_ray_commands",
        ),
        [],
    ),
}  # fmt: skip


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpsearch", *words], capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "200", "HPSEARCH_ADDRESS": ADDRESS}, timeout=200,
    )  # fmt: skip


def status_says(words: str) -> bool:
    return words in command("status", "far").stdout


def test_nodes_come_for_a_search_and_go_after_it(
    fleet: Fleet, tiny: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    provider = {**CLUSTER["provider"], "gcs_address": fleet.address}
    (tmp_path / "cluster.json").write_text(json.dumps({**CLUSTER, "provider": provider}))
    fleet.start_head(dashboard=8381, autoscaler=tmp_path / "cluster.json")
    wait_for(lambda: command("list").returncode == 0)
    home, space = tmp_path / "home", tmp_path / "far.py"
    space.write_text(SPACE.format(patches=4_800, trials=2, reports=4))

    options = ["--home", str(home), "--data", str(tiny.path), "--concurrent", "2"]
    refused = command("submit", str(space), *options)
    assert refused.returncode == 2
    assert "0 CPUs" in refused.stderr
    sent = command("submit", str(space), *options, "--wait")
    assert sent.returncode == 0, sent.stderr
    wait_for(lambda: joined(fleet.address, 3))
    wait_for(lambda: status_says("far: completed"), 200)
    runs = runs_from(Ledger(home / "searches" / "far" / "ledger.jsonl").events())
    trials = [run for run in runs if run.kind == "trial"]
    assert [run.status for run in trials] == ["completed"] * 2
    assert {run.retries for run in trials} == {0}
    ended = time.monotonic()
    wait_for(lambda: not joined(fleet.address, 2))
    print(f"idle nodes were given back after {time.monotonic() - ended:.0f} s")
