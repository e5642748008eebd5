"""A search that comes before its nodes: Ray's own autoscaler starts them, and takes them back."""

import json
from pathlib import Path
from typing import Any

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.search.workspace import Workspace

from .commands import Jobs
from .conftest import Fleet
from .searches import MARKS, joined, space_of, trials, wait_for

pytestmark = MARKS
LISTS = (
    "cluster_synced_files", "initialization_commands", "setup_commands",
    "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip
HEAD = "ray.head.default"


def cluster(address: str) -> dict[str, Any]:
    """Up to two nodes with a CPU each, which go when they were idle for some seconds."""
    return {
        "cluster_name": "come-and-go",
        "max_workers": 2,
        "upscaling_speed": 2.0,
        "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "external",
            "module": "tests.chaos.fake_autoscaler.ComeAndGo",
            "gcs_address": address,
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
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in LISTS},
    }


def test_nodes_come_for_a_search_and_go_after_it(
    fleet: Fleet, tiny: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    (tmp_path / "cluster.json").write_text(json.dumps(cluster(fleet.address)))
    fleet.start_head(dashboard=8381, autoscaler=tmp_path / "cluster.json")
    jobs, home, space = Jobs("http://127.0.0.1:8381"), tmp_path / "home", tmp_path / "far.py"
    wait_for(lambda: jobs.run("list").returncode == 0)
    space.write_text(space_of(patches=4_800, reports=4))

    words = ["submit", space, "--home", home, "--data", tiny.path, "--max-concurrent-trials", "2"]
    refused = jobs.run(*words)
    assert refused.returncode == 2
    assert "0 CPUs" in refused.stderr
    sent = jobs.run(*words, "--wait-for-nodes")
    assert sent.returncode == 0, sent.stderr
    wait_for(lambda: joined(fleet.address, 3))
    jobs.wait_for("far", "far: completed", 1_200)
    runs = trials(Workspace(home).open("far"))
    assert [(run.status, run.retries) for run in runs] == [("completed", 0)] * 2
    wait_for(lambda: not joined(fleet.address, 2))
