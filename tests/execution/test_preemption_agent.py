"""A cloud's notice: heard from a metadata server as the clouds have it, told to the head."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpsearch.execution.preemption_agent import (
    PreemptionWatcher,
    RayletProcess,
    aws_seconds_until_interruption,
    gcp_seconds_until_preemption,
    local_raylets,
)

from ..fake_metadata_server import NODE, Metadata, metadata, raylet


@pytest.fixture
def server() -> Iterator[Metadata]:
    with metadata() as found:
        yield found


def test_a_worker_is_found_with_its_node_and_its_head(tmp_path: Path) -> None:
    with raylet(tmp_path) as pid:
        assert local_raylets(str(tmp_path)) == [
            RayletProcess(pid, NODE, "127.0.0.1:1", str(tmp_path))
        ]
        assert pid in {worker.pid for worker in local_raylets()}
        assert local_raylets(str(tmp_path / "second")) == []
    assert local_raylets(str(tmp_path)) == []


def test_a_head_is_no_worker(tmp_path: Path) -> None:
    with raylet(tmp_path, "--head"):
        assert local_raylets(str(tmp_path)) == []


def test_ec2_says_when_it_takes_a_machine(server: Metadata) -> None:
    assert aws_seconds_until_interruption(server.url) is None
    server.take_away(120)
    left = aws_seconds_until_interruption(server.url)
    assert left is not None
    assert 0 < left <= 120


def test_google_cloud_says_it_at_once_to_a_question_that_hangs(server: Metadata) -> None:
    def take_away_once_asked() -> None:
        server.asked.wait()
        server.take_away(30)

    threading.Thread(target=take_away_once_asked, daemon=True).start()
    assert gcp_seconds_until_preemption(server.url) == 30
    assert server.asked.is_set(), "the question came first, and hung"
    assert gcp_seconds_until_preemption(server.url) == 30, (
        "and again, should it have come between two questions"
    )


def test_a_server_out_of_order_says_nothing(server: Metadata) -> None:
    server.take_away(60)
    for server.status in (404, 503):
        for cloud in (aws_seconds_until_interruption, gcp_seconds_until_preemption):
            with pytest.raises(OSError, match=str(server.status)):
                cloud(server.url)


def test_each_head_is_notified_once_and_again_if_it_did_not_listen(
    server: Metadata, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    message: list[tuple[str, float]] = []

    def listens_the_second_time(worker: RayletProcess, seconds: float) -> bool:
        message.append((worker.node_id, seconds))
        return len(message) > 1

    watch = PreemptionWatcher(
        lambda: aws_seconds_until_interruption(server.url), listens_the_second_time, str(tmp_path)
    )
    with raylet(tmp_path):
        watch.poll()
        server.status = 503
        watch.poll()
        watch.poll()
        assert (message, len(caplog.records)) == ([], 1), "one line, not one for each question"
        server.status = 200
        server.take_away(100)
        for _ in range(4):
            watch.poll()
    assert [node for node, _ in message] == [NODE, NODE]
    assert all(90 < seconds <= 100 for _, seconds in message)
    assert [record.getMessage() for record in caplog.records] == [
        "the metadata server does not answer (it answers 503); it is asked again",
        "the metadata server answers again",
    ]


@pytest.mark.parametrize("message", ["", "soon", "[]", '{"action": "terminate"}', '{"time": 7}'])
def test_what_is_no_notice_notifies_nobody(server: Metadata, message: str, tmp_path: Path) -> None:
    server.take_away(60)
    server.words = message
    with raylet(tmp_path):
        PreemptionWatcher(
            lambda: aws_seconds_until_interruption(server.url),
            lambda *_: pytest.fail("told"),
            str(tmp_path),
        ).poll()


def test_the_program_outlives_a_silent_server_and_says_what_it_does(tmp_path: Path) -> None:
    with metadata() as taken:
        port = taken.server_port
    words = [
        sys.executable,
        "-m",
        "hpsearch.execution.preemption_agent",
        "gcp",
        "--temp-dir",
        str(tmp_path),
    ]
    words += ["--metadata", f"http://127.0.0.1:{port}"]
    program = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert program.stderr
    try:
        assert f"asks http://127.0.0.1:{port} whether" in program.stderr.readline()
        assert "does not answer" in program.stderr.readline()
        with metadata(port) as server:
            server.take_away(30)
            assert "answers again" in program.stderr.readline()
        assert program.poll() is None
    finally:
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=120)
    assert program.returncode == -signal.SIGTERM


def now(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        "-m",
        "hpsearch.execution.preemption_agent",
        "now",
        "--temp-dir",
        str(folder),
    ]
    return subprocess.run(
        [*words, "--seconds", "1"], capture_output=True, text=True, check=False, timeout=120
    )


def test_now_says_that_there_is_no_worker(tmp_path: Path) -> None:
    done = now(tmp_path)
    assert done.returncode == 0
    assert "no worker runs here" in done.stderr


def test_a_head_that_does_not_answer_keeps_nobody(tmp_path: Path) -> None:
    with raylet(tmp_path):
        done = now(tmp_path)
    assert done.returncode == 1
    assert "the head 127.0.0.1:1 does not answer" in done.stderr
