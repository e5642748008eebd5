"""Claim: during any outage of the tracking server, every point arrives once and no trial waits.

Eight trials write reports while a real ``mlflow server`` is paused, killed, slow, or refuses; then
every point of the event log is compared with the content of MLflow. Prints a Markdown table.

    python benchmarks/outage.py [--seconds 20] [--only killed]
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tracking"))
from outages import Proxy, Server, begin, expected, found, proxy_to, write_trials

from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.model_registry import configure_mlflow_logging

TRIALS, PAUSE = 8, 0.5
"""Trials side by side, and seconds between two reports of one."""
HEADER = "| fault | lasts, s | points expected | found | doubled | longest append, ms | lag, s |"
Fault = Callable[[Server, Proxy, float], None]


def nothing(server: Server, proxy: Proxy, seconds: float) -> None:
    """Run without a fault, for comparison."""


def paused(server: Server, proxy: Proxy, seconds: float) -> None:
    """SIGSTOP: connections stay open and nothing answers."""
    server.signal(signal.SIGSTOP)
    time.sleep(seconds)
    server.signal(signal.SIGCONT)


def killed(server: Server, proxy: Proxy, seconds: float) -> None:
    """SIGKILL in the middle of whatever it does, then a new process."""
    server.kill()
    time.sleep(seconds)
    server.start()


def killed_thrice(server: Server, proxy: Proxy, seconds: float) -> None:
    """One restart after another."""
    for _ in range(3):
        killed(server, proxy, seconds / 3)


def slow(server: Server, proxy: Proxy, seconds: float) -> None:
    """Every answer a second late."""
    proxy.delay = 1.0
    time.sleep(seconds)


def refusing(server: Server, proxy: Proxy, seconds: float) -> None:
    """503 to everything."""
    proxy.refuse("503 Service Unavailable")
    time.sleep(seconds)


def unauthorized(server: Server, proxy: Proxy, seconds: float) -> None:
    """Status 401 to everything, as with wrong credentials that are corrected later."""
    proxy.refuse("401 Unauthorized")
    time.sleep(seconds)


def unanswered(server: Server, proxy: Proxy, seconds: float) -> None:
    """Every request is carried out and its answer is lost."""
    proxy.losing = b"HTTP/1.1"
    time.sleep(seconds)


FAULTS: tuple[Fault, ...] = (
    *(nothing, paused, killed, killed_thrice),
    *(slow, refusing, unauthorized, unanswered),
)


def measure(fault: Fault, seconds: float, server: Server, proxy: Proxy) -> str:
    """One search of eight trials with one fault; a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        event_log = EventLog(Path(folder) / "ledger.jsonl")
        begin(event_log)
        feeding = MlflowSync(
            event_log,
            TrackingServer(uri=proxy.uri),
            fault.__name__,
            Path(folder) / "published.json",
        )
        feeding.start()
        waits: list[float] = []
        reports = round((seconds + 6) / PAUSE)

        def train() -> None:
            waits.append(write_trials(event_log, trials=TRIALS, reports=reports, pause=PAUSE))

        training = threading.Thread(target=train)
        training.start()
        time.sleep(2)
        began = time.monotonic()
        fault(server, proxy, seconds)
        lasted = time.monotonic() - began
        proxy.behave()
        training.join()
        ended = time.monotonic()
        whole = feeding.stop(timeout=600)
        lag = time.monotonic() - ended
        want, have = expected(event_log), found(event_log, MlflowClient(server.database))
    lost = len(set(want) - set(have))
    name = fault.__name__.replace("_", " ")
    print(f"{name}: whole {whole}, lost {lost}, same order {want == have}", file=sys.stderr)
    cells = [name, f"{lasted:.0f}", f"{len(want):,}", f"{len(set(have) & set(want)):,}"]
    cells += [str(len(have) - len(set(have))), f"{1000 * waits[0]:.0f}", f"{lag:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the faults one after another on one server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    configure_mlflow_logging()
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "5"
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder), f"sqlite:///{folder}/mlflow.db")
        server.start()
        print(HEADER, "| :-- | --: | --: | --: | --: | --: | --: |", sep="\n", flush=True)
        with proxy_to(server.port) as proxy:
            for fault in FAULTS:
                if asked.only in fault.__name__:
                    print(measure(fault, asked.seconds, server, proxy), flush=True)
        server.kill()


if __name__ == "__main__":
    main()
