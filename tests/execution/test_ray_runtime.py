"""How Ray is started: in a folder that is short enough, and with one sentence where it fails."""

import gc
import os
import socket
import threading
import weakref
from pathlib import Path

import pytest
import ray

from hpsearch.errors import UserError
from hpsearch.execution import local_session_patches, ray_runtime
from hpsearch.execution.local_session_patches import (
    MAX_FOLDER_BYTES,
    leave_private_session,
    private_session,
)
from tests.servers import free_port

LONGEST_SESSION = "session_2026-11-27_23-10-55_123456_4194304"
"""With the largest number of a process on Linux."""


def folder_of_session() -> Path:
    with private_session() as folder:
        pass
    leave_private_session()
    return Path(folder)


def test_a_temporary_folder_with_a_long_path_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 20)))
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert folder_of_session() == Path(f"/tmp/hpsearch-{os.getuid()}/ray")
    assert not (tmp_path / ("long" * 20)).exists()
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    assert folder_of_session() == Path(f"/tmp/hpsearch-{os.getuid()}/ray")


def test_a_private_session_knows_nothing_of_another_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_GCS_SERVER_PORT", "RAY_gcs_storage"):
        monkeypatch.setenv(name, "of a cluster")
    before = dict(os.environ)
    with private_session():
        assert "of a cluster" not in os.environ.values()
    leave_private_session()
    assert dict(os.environ) == before


def test_the_longest_folder_leaves_enough_for_a_socket() -> None:
    socket = f"{'x' * MAX_FOLDER_BYTES}/ray/{LONGEST_SESSION}/sockets/plasma_store"
    assert len(socket) <= 107


def test_without_any_folder_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_session_patches, "MAX_FOLDER_BYTES", 3)
    with pytest.raises(UserError, match="set RAY_TMPDIR") as refused:
        folder_of_session()
    assert refused.value.code == "no-temporary-folder"
    assert os.environ.get("RAY_AUTH_TOKEN_PATH") is None


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python"),
        OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes"),
        Exception("The current node timed out during startup."),
    ],
)
def test_an_error_of_ray_is_one_sentence(
    error: Exception, address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**unused: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_runtime, "is_port_open", lambda *a, **k: True)
    with pytest.raises(UserError) as refused:
        ray_runtime.start_ray(address=address)
    assert refused.value.code == "ray-start-failed"
    assert str(error).split("\n")[0] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ("the machine is busy" in str(refused.value)) == ("timed out" in str(error))


def test_auto_does_not_follow_a_file_of_a_head_that_has_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray itself would try to join it for minutes."""
    port = free_port()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_runtime, "running_heads", lambda: 0)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert ray_runtime.current_cluster() is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match=f"no Ray cluster answers at 127.0.0.1:{port};"):
        ray_runtime.start_ray(address="auto")


def test_a_head_that_refuses_is_not_called_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: object) -> None:
        raise ConnectionError(f"Failed to connect to Ray cluster at {given['address']}")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{address} answers, .*RAY_AUTH_TOKEN") as refused:
            ray_runtime.start_ray(address=address)
    assert refused.value.code == "cluster-refuses"


class Slow:
    """Takes long to be freed, as a reference whose release is a call to another process."""

    def __init__(self, entered: threading.Event, leave: threading.Event) -> None:
        self.itself, self.entered, self.leave = self, entered, leave

    def __del__(self) -> None:
        self.entered.set()
        self.leave.wait(10)


class Cycle:
    """Is freed by the garbage collector alone."""

    def __init__(self) -> None:
        self.itself = self


def test_nothing_is_left_to_free_when_ray_shuts_down() -> None:
    entered, leave = threading.Event(), threading.Event()
    gc.disable()
    try:
        Slow(entered, leave)
        other = threading.Thread(target=gc.collect)
        other.start()
        assert entered.wait(10), "another thread collects, so gc.collect would return at once"
        gone = weakref.ref(Cycle())
        threading.Timer(0.05, leave.set).start()
        ray_runtime.free_cycles()
        assert gone() is None
        other.join()
    finally:
        leave.set()
        gc.enable()
