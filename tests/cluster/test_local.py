"""A cluster by hand: the scripts, and that the README names files that are there."""

import os
import re
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest


@pytest.mark.parametrize("name", ["head.sh", "worker.sh"])
def test_the_shell_can_read_it(cluster: Path, name: str) -> None:
    script = cluster / "local" / name
    subprocess.run(["bash", "-n", script], check=True)
    assert script.stat().st_mode & 0o111, "cannot be executed"
    assert "export RAY_AUTH_MODE=token" in script.read_text()


def run_dry(script: Path, *arguments: str, folder: Path, **variables: str) -> list[list[str]]:
    """The calls of `ray` that a script makes, words apart."""
    stand_in = folder / "ray"
    stand_in.write_text(
        '#!/bin/sh\nprintf "%s\\t" "$RAY_AUTH_MODE" "$@" >> "$0.calls"; echo >> "$0.calls"\n'
    )
    stand_in.chmod(0o755)
    path = {"PATH": f"{folder}:/usr/bin:/bin", **variables}
    subprocess.run([script, *arguments], check=True, env=path, capture_output=True)
    calls = (folder / "ray.calls").read_text().splitlines()
    return [line.rstrip("\t").split("\t") for line in calls]


def test_the_head_listens_on_loopback_unless_set(cluster: Path, tmp_path: Path) -> None:
    token, start = run_dry(cluster / "local" / "head.sh", folder=tmp_path)
    assert token == ["token", "get-auth-token", "--generate"]
    assert start[:4] == ["token", "start", "--head", "--block"]
    assert "--dashboard-host=127.0.0.1" in start


def test_the_head_takes_an_address_and_options(cluster: Path, tmp_path: Path) -> None:
    head = cluster / "local" / "head.sh"
    start = run_dry(head, "10.0.0.7", "--num-cpus=2", folder=tmp_path)[-1]
    assert {"--node-ip-address=10.0.0.7", "--dashboard-host=10.0.0.7", "--num-cpus=2"} <= set(start)


def test_a_worker_needs_its_head(cluster: Path, tmp_path: Path) -> None:
    worker = cluster / "local" / "worker.sh"
    (start,) = run_dry(worker, "10.0.0.7", "--num-gpus=1", folder=tmp_path)
    assert {"--address=10.0.0.7:6379", "--num-gpus=1"} <= set(start)
    with pytest.raises(subprocess.CalledProcessError):
        run_dry(worker, folder=tmp_path)


def test_the_terminal_s_interrupt_ends_a_worker_by_sigterm_and_the_second_at_once(
    cluster: Path, tmp_path: Path
) -> None:
    signals = tmp_path / "heard"
    stand_in = tmp_path / "ray"
    stand_in.write_text(
        f"#!/bin/bash\ntrap 'echo TERM >> {signals}' TERM\ntrap 'echo INT >> {signals}; exit 3' "
        "INT\n"
        f"echo started >> {signals}\nwhile :; do sleep 0.05; done\n"
    )
    stand_in.chmod(0o755)
    worker = subprocess.Popen(
        [cluster / "local" / "worker.sh", "10.0.0.7"], start_new_session=True,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, stderr=subprocess.DEVNULL,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip

    def heard_by(lines: list[str]) -> bool:
        for _ in range(100):
            if signals.exists() and signals.read_text().split() == lines:
                return True
            time.sleep(0.05)
        return False

    assert heard_by(["started"])
    os.killpg(worker.pid, signal.SIGINT)  # as a terminal does: to its whole foreground group
    assert heard_by(["started", "TERM"])
    os.killpg(worker.pid, signal.SIGINT)
    assert heard_by(["started", "TERM", "INT"])
    assert worker.wait(5) == 3


def test_the_readme_names_files_that_are_there(cluster: Path) -> None:
    text = (cluster / "README.md").read_text()
    named = set(re.findall(r"\bcluster/[\w./-]*\w", text))
    assert len(named) >= 8
    made = {"cluster/my-aws.yaml", "cluster/my-gcp.yaml"}
    assert [name for name in named - made if not (cluster.parent / name).exists()] == []


@pytest.mark.parametrize(
    ("port", "dashboard", "workers"),
    [
        ("6379", "8265", (10002, 19999)),
        ("10002", "8265", (20002, 29999)),
        ("6379", "19999", (20002, 29999)),
        ("15000", "25000", (30002, 39999)),
    ],
)
def test_the_ports_of_workers_are_others_than_the_head_s(
    cluster: Path, tmp_path: Path, port: str, dashboard: str, workers: tuple[int, int]
) -> None:
    variables = {"RAY_PORT": port, "RAY_DASHBOARD_PORT": dashboard}
    start = run_dry(cluster / "local" / "head.sh", folder=tmp_path, **variables)[-1]
    first, last = workers
    assert {f"--min-worker-port={first}", f"--max-worker-port={last}"} <= set(start)


@pytest.mark.parametrize("port", ["10001", "52365", "x", "-1", "123456"])
def test_a_port_that_cannot_be_the_head_s_is_one_sentence(
    cluster: Path, tmp_path: Path, port: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run_dry(cluster / "local" / "head.sh", folder=tmp_path, RAY_PORT=port)
    assert refused.value.returncode == 2
    (said,) = refused.value.stderr.decode().splitlines()
    assert f"the head cannot listen at port {port}: give a free one with RAY_PORT" in said


def test_pages_without_a_token_stay_closed(cluster: Path) -> None:
    for name in ("head.sh", "worker.sh"):
        script = (cluster / "local" / name).read_text()
        assert 'RAY_enable_metrics_collection="${RAY_enable_metrics_collection:-0}"' in script
