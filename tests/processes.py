"""The real command, in a process of its own, or in this one, whose libraries are loaded."""

import gc
import io
import os
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command, which it handles itself."""


def _call(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "hpsearch", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """Of this process, but for a home of the user and MLflow servers of an earlier test."""
    named = ("HPSEARCH_HOME", "MLFLOW_TRACK", "MLFLOW_REGISTRY")
    inherited = {k: v for k, v in os.environ.items() if not any(word in k for word in named)}
    return {**inherited, "COLUMNS": "100", "OMP_NUM_THREADS": "1", **more}


def run(*words: object, timeout: float = 900, **variables: str) -> subprocess.CompletedProcess[str]:
    """``hpsearch WORDS``, to its end."""
    return subprocess.run(
        _call(words), env=environment(**variables), capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def run_here(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """``hpsearch WORDS``, to its end, in this process: two to four seconds faster.

    As in a process of its own, warnings are no errors. Afterward signals, streams and environment
    are what they were, and MLflow has forgotten its server.
    """
    from hpsearch.cli.app import main

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    handlers = {number: signal.getsignal(number) for number in ENDING}
    thresholds, before = gc.get_threshold(), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        for key in before.keys() - environment(**variables).keys():
            patch.delenv(key)
        for key, value in environment(**variables).items():
            patch.setenv(key, value)
        patch.setattr(sys, "argv", ["hpsearch", *map(str, words)])
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            gc.set_threshold(*thresholds)
    for key in os.environ.keys() - before.keys():
        del os.environ[key]
    forget_mlflow_server()
    for stream in streams:
        stream.flush()
    said = [stream.buffer.getvalue().decode() for stream in streams]  # type: ignore[attr-defined]
    code = ended.value.code or 0
    assert isinstance(code, int), code
    return subprocess.CompletedProcess([*map(str, words)], code, *said)


def forget_mlflow_server() -> None:
    """MLflow keeps the server of an earlier test, in the environment too."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if mlflow := sys.modules.get("mlflow"):
        mlflow.set_tracking_uri(None)  # type: ignore[attr-defined]
        mlflow.set_registry_uri(None)  # type: ignore[attr-defined]


def begin(*words: object, log: Path | int, **variables: str) -> subprocess.Popen[bytes]:
    """Start ``hpsearch WORDS`` in a session of its own, so that a signal reaches it alone.

    It handles signals as in a terminal, even where these tests run in the background of a shell,
    which ignores SIGINT, or under ``nohup``.

    Args:
        log: file that its output is appended to, or a file descriptor.
    """

    def handle() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    with nullcontext(log) if isinstance(log, int) else log.open("ab") as out:
        return subprocess.Popen(
            _call(words), env=environment(**variables), stdout=out, stderr=out,
            start_new_session=True, preexec_fn=handle,
        )  # fmt: skip
