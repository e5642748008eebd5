"""The real command, in a process of its own."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path


def _call(words: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "hpsearch", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """Of this process, but for a home of the user and MLflow servers of an earlier test."""
    named = ("HPSEARCH_HOME", "MLFLOW_TRACK", "MLFLOW_REGISTRY")
    inherited = {k: v for k, v in os.environ.items() if not any(word in k for word in named)}
    return {**inherited, "COLUMNS": "100", "OMP_NUM_THREADS": "1", **more}


def run(*words: object, timeout: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
    """``hpsearch WORDS``, to its end."""
    return subprocess.run(
        _call(words), env=environment(**variables), capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def begin(*words: object, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """Start ``hpsearch WORDS`` in a session of its own, so that a signal reaches it alone.

    It heeds SIGINT even where these tests run in the background of a shell, which ignores it.
    """
    handle = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with log.open("ab") as out:
        return subprocess.Popen(
            _call(words), env=environment(**variables), stdout=out, stderr=out,
            start_new_session=True, preexec_fn=handle,
        )  # fmt: skip
