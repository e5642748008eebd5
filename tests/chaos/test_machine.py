"""A search on a machine with dead proxies, little shared memory, few files and another Ray."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray._raylet import GcsClient

from hpsearch.search.workspace import Workspace

from .. import processes
from ..servers import free_port, serving
from ..tracking.outages import Server as MlflowServer
from ..workflows.test_notifications import Server as Listener
from .conftest import Fleet, can_blind
from .searches import MARKS, joined, space_of, trials, wait_for

pytestmark = [*MARKS, pytest.mark.skipif(not can_blind(), reason="only root may mount /dev/shm")]
LIMITED = "mount -t tmpfs -o size=64m tmpfs /dev/shm && ulimit -Sn 128 && ulimit -Hn 512 && exec "


def test_a_local_search_needs_nothing_of_the_machine_and_leaves_another_ray_alone(
    fleet: Fleet, tmp_path: Path
) -> None:
    """The other cluster is named by every variable that Ray reads; its head must see no driver."""
    fleet.start_head(cpus=1)
    wait_for(lambda: joined(fleet.address, 1))
    dead = f"http://127.0.0.1:{free_port()}"
    space = tmp_path / "space.py"
    space.write_text(space_of(patches=1_200, trials=1, reports=4))
    job = {"runtime_env": {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}, "metadata": {}}
    variables = {
        "RAY_ADDRESS": fleet.address, "RAY_GCS_SERVER_PORT": str(fleet.port), "RAY_USE_TLS": "1",
        "RAY_REDIS_ADDRESS": f"127.0.0.1:{free_port()}",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(job),
        **{f"{kind}_proxy": dead for kind in ("http", "https", "all", "grpc")},
    }  # fmt: skip
    mlflow = MlflowServer(tmp_path, f"sqlite:///{tmp_path}/served.db")
    with Listener() as listener, serving(listener):
        mlflow.start()
        try:
            words = [
                sys.executable, "-m", "hpsearch", "search", str(space), "--name", "far",
                "--data", "tiny", "--device", "cpu", "--home", str(tmp_path / "home"),
                "--tracking-uri", mlflow.uri, "--notify", listener.url,
            ]  # fmt: skip
            done = subprocess.run(
                ["unshare", "--mount", "bash", "-c", LIMITED + '"$@"', "bash", *words],
                env=processes.environment(**variables), capture_output=True, text=True,
                check=False, timeout=1_200,
            )  # fmt: skip
        finally:
            mlflow.kill()
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert [run.status for run in trials(Workspace(tmp_path / "home").open("far"))] == ["completed"]
    assert "search-ended" in [body["event"] for body in listener.bodies]
    assert "MLflow has not received" not in done.stdout + done.stderr
    assert joined(fleet.address, 1), "the other Ray runs as before"
    assert GcsClient(address=fleet.address).get_all_job_info(timeout=10) == {}
