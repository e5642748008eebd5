"""Files for Ray's cluster launcher: Ray's own preparation and schema, and what we want of them."""

import copy
import shlex
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jsonschema import ValidationError
from ray._private.accelerators import TPUAcceleratorManager
from ray._private.accelerators.tpu import get_tpu_cores_per_chip
from ray.autoscaler._private.util import prepare_config, validate_config

from hpsearch.execution.preemption_agent import PROVIDERS

FILES = ("aws-gpu.yaml", "gcp-tpu.yaml")


@pytest.fixture(params=FILES)
def stated(request: pytest.FixtureRequest, documents: dict[str, list[Any]]) -> dict[str, Any]:
    return copy.deepcopy(documents[request.param][0])


def prepared(stated: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` sees it before it asks the cloud: with defaults, and valid."""
    config = prepare_config(stated)
    validate_config(config)
    return config


def test_ray_accepts_it(stated: dict[str, Any]) -> None:
    config = prepared(stated)
    types = config["available_node_types"]
    workers = [kind for name, kind in types.items() if name != config["head_node_type"]]
    assert types[config["head_node_type"]]["max_workers"] == 0
    assert all(kind["min_workers"] == 0 <= kind["max_workers"] for kind in workers)
    assert max(kind["max_workers"] for kind in workers) == config["max_workers"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("idle_timeout_minutes", "5"),
        ("max_workers", -1),
        ("dockers", {}),
        ("docker", {"images": "x"}),
        ("available_node_types", {"head": {"resources": {"CPU": 0.5}, "node_config": {}}}),
        ("available_node_types", {"head": {"resources": {}}}),
    ],
)
def test_ray_refuses_a_mistake(stated: dict[str, Any], key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        prepared({**stated, key: value})


def test_ray_refuses_a_head_that_is_no_node_type(stated: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="head_node_type"):
        prepared({**stated, "head_node_type": "haed"})


def test_nothing_is_installed_beside_the_image(stated: dict[str, Any]) -> None:
    config = prepared(stated)
    kinds = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    assert all(config[kind] == [] for kind in kinds)
    assert prepared({key: stated[key] for key in stated if key not in kinds})["setup_commands"]


def test_a_token_is_asked_for_and_there(stated: dict[str, Any]) -> None:
    assert "--env=RAY_AUTH_MODE=token" in stated["docker"]["run_options"]
    assert stated["file_mounts"] == {"/home/ray/.ray": "~/.ray"}


def test_the_dashboard_is_reached_through_ssh_alone(stated: dict[str, Any]) -> None:
    start = " ".join(stated["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_workers_are_spot_and_the_head_is_not(stated: dict[str, Any]) -> None:
    def spot(node: dict[str, Any]) -> bool:
        market = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        return market or node.get("schedulingConfig", {}).get("spot", False)

    kinds = stated["available_node_types"]
    found = {name: spot(kind["node_config"]) for name, kind in kinds.items()}
    assert found == {name: name != stated["head_node_type"] for name in kinds}
    assert kinds[stated["head_node_type"]]["resources"] == {"CPU": 0}


def test_each_cloud_is_asked_whether_it_takes_the_worker(documents: dict[str, list[Any]]) -> None:
    for cloud, name in (("aws", "aws-gpu.yaml"), ("gcp", "gcp-tpu.yaml")):
        words = shlex.split(documents[name][0]["worker_start_ray_commands"][-1])
        program = words[words.index("python") :]
        assert program[:4] == ["python", "-m", "hpsearch.execution.preemption_agent", cloud]
        assert find_spec(program[2])
        assert cloud in PROVIDERS


def test_what_asks_outlives_the_shell_and_is_there_once(
    stated: dict[str, Any], tmp_path: Path
) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/running\nexec sleep 30\n")
    stand_in.chmod(0o755)
    command = stated["worker_start_ray_commands"][-1].replace("/tmp/", f"{tmp_path}/")
    for _ in range(2):  # as the launcher does: a shell of its own, whose output it reads to the end
        subprocess.run(
            ["bash", "-c", command], env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not (tmp_path / "running").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    (pid,) = (tmp_path / "running").read_text().split()
    subprocess.run(["kill", pid], check=True)


def test_every_node_mounts_the_shared_disk(stated: dict[str, Any]) -> None:
    assert "--volume=/mnt/hpsearch:/mnt/hpsearch" in stated["docker"]["run_options"]
    assert any("sudo mount -t nfs" in line for line in stated["initialization_commands"])


def test_a_tpu_host_offers_the_chips_it_has(documents: dict[str, list[Any]]) -> None:
    for name, kind in documents["gcp-tpu.yaml"][0]["available_node_types"].items():
        if name == "head":
            continue
        accelerator = kind["node_config"]["acceleratorType"]
        assert TPUAcceleratorManager.is_valid_tpu_accelerator_type(accelerator)
        cores = int(accelerator.split("-")[1])
        assert kind["resources"]["TPU"] == cores // get_tpu_cores_per_chip(accelerator) <= 8
