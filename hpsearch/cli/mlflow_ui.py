"""MLflow UI as a child process that ends with the command."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, NoReturn

from hpsearch.console.output import out, print_plain
from hpsearch.errors import UserError
from hpsearch.host_limits import exempt_this_machine_from_proxies
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.connection import TrackingServer

UI_START_TIMEOUT_S = 120.0
"""Maximum seconds until MLflow has started; a busy machine needs half a minute."""
GUARD = """
import os, signal, subprocess, sys, threading

child = subprocess.Popen([sys.executable, "-m", "mlflow", *sys.argv[1:]], stdin=subprocess.DEVNULL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the child has received it too

def end_with_parent():
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGKILL)

threading.Thread(target=end_with_parent, daemon=True).start()
sys.exit(child.wait())
"""
"""Program that runs MLflow, and kills it when its pipe closes, as at the end of the parent."""


def ui_links(tracking: TrackingServer, search_id: str | None, name: str | None) -> dict[str, str]:
    """Links to the views of a search, or of all searches.

    Raises:
        UserError: if MLflow has no run of the search.
    """
    from hpsearch.tracking.mlflow_links import (
        all_trials_view_url,
        find_search_run,
        run_url,
        runs_url,
        saved_view_url,
        trials_url,
    )
    from hpsearch.tracking.mlflow_tags import saved_view_name

    if name is None:
        return {
            "all searches": runs_url(tracking),
            "their trials as a table": all_trials_view_url(tracking),
            "their best trials": trials_url(tracking),
        }
    run, view = find_search_run(tracking, search_id or "", name), saved_view_name(search_id or "")
    return {
        f"search {name}": run_url(tracking, run),
        "its trials as a table": saved_view_url(tracking, view),
        "as charts": trials_url(tracking, search=name),
    }


@contextmanager
def _dashboard_lines(context: SearchContext | None) -> Iterator[list[str]]:
    """Serve optuna-dashboard while the block runs, and yield its line; a hint without it."""
    if context is None:
        yield []
        return
    from hpsearch.search.study_dashboard import serve_dashboard

    with ExitStack() as stack:
        try:
            address = stack.enter_context(serve_dashboard(context))
        except UserError as error:  # an optional extra
            address = f"not served: {error}"
        yield [f"{'its study in Optuna':<24} {address}"]


def serve_ui(
    tracking: TrackingServer, port: int, lines: Sequence[str], context: SearchContext | None = None
) -> None:
    """Run the MLflow UI until Ctrl-C; once it answers, print its addresses.

    Args:
        tracking: MLflow's database.
        port: port of the UI.
        lines: addresses to print.
        context: search whose study optuna-dashboard shows; None for none.

    Raises:
        UserError: if the process ends early.
    """
    with tempfile.TemporaryFile() as log:
        print_plain(f"starting MLflow on {tracking.display_uri} …")
        child = _start(tracking, port, log)
        try:
            _wait_ready(child, port, log)
            with _dashboard_lines(context) as more:
                print_plain("\n".join([*lines, *more, "Ctrl-C stops it."]))
                child.wait()
            _raise_failed(log)
        except KeyboardInterrupt:
            out.print("stopped")
        finally:
            _terminate(child)


def check_port_free(port: int) -> None:
    """Check that a port on this machine is free.

    Raises:
        UserError: if it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} is in use; choose another with --port") from error


def _start(tracking: TrackingServer, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start MLflow in its own session, so that Ctrl-C reaches only this process."""
    command = [sys.executable, "-c", GUARD, "ui", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    if tracking.artifact_root:
        command += ["--default-artifact-root", tracking.artifact_root]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": tracking.uri,  # not an argument, which all users can read
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    return subprocess.Popen(
        command, env=os.environ | settings, stdin=subprocess.PIPE, stdout=log, stderr=log,
        start_new_session=True,
    )  # fmt: skip


def _wait_ready(child: subprocess.Popen[bytes], port: int, log: IO[bytes]) -> None:
    exempt_this_machine_from_proxies()
    until = time.monotonic() + UI_START_TIMEOUT_S
    while time.monotonic() < until:
        if child.poll() is not None:
            _raise_failed(log)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise UserError(f"MLflow did not start within {UI_START_TIMEOUT_S:.0f} s; {_log_tail(log)}")


def _raise_failed(log: IO[bytes]) -> NoReturn:
    raise UserError(f"the MLflow UI ended early: {_log_tail(log)}")


def _log_tail(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def _terminate(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            os.killpg(child.pid, number)
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
