"""Processor time, memory and lag of the driver of a simulated fleet (``fleet.py``)."""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from cluster import resident
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync


@dataclass
class Meter:
    """Processor time of the driver by thread, memory, and MLflow's lag, once a second."""

    num_reported: Callable[[], int]
    """Returns the number of workers that have sent a report."""
    count: int
    seconds: float
    event_log: EventLog | None = None
    mlflow_sync: MlflowSync | None = None
    profile: bool = False
    stop: bool = False
    """True when the time is over."""
    reports: int = 0
    trials: int = 0
    megabytes: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    bytes: int = 0
    threads: Counter[str] = field(default_factory=Counter)
    """Processor seconds by name of the thread."""
    functions: Counter[str] = field(default_factory=Counter)
    samples: int = 0

    def follow(self) -> None:
        """Measure, then interrupt the search."""
        while self.num_reported() < self.count:
            time.sleep(1.0)
        first, offset, before = thread_seconds(), self._offset(), self.reports
        until = time.perf_counter() + self.seconds
        tick = time.perf_counter()
        while time.perf_counter() < until:
            if self.profile:
                self._sample()
            if time.perf_counter() >= tick:
                tick += 1.0
                self._note()
            time.sleep(0.02 if self.profile else 0.5)
        self.threads = thread_seconds()
        self.threads.subtract(first)
        self.reports -= before
        if self.event_log is not None:
            events, end = self.event_log.read(offset)
            self.reports = sum(event["event"] == "report" for event in events)
            self.trials = sum(event["event"] == "start" for event in events)
            self.bytes = end - offset
        self.stop = True
        if self.event_log is not None:
            os.kill(os.getpid(), signal.SIGINT)

    def _offset(self) -> int:
        return 0 if self.event_log is None else self.event_log.path.stat().st_size

    def _note(self) -> None:
        self.megabytes.append(resident())
        if self.mlflow_sync is None or self.event_log is None:
            return
        try:
            known = json.loads(self.mlflow_sync.state_path.read_text())
            sent = max(value["offset"] for value in known.values() if isinstance(value, dict))
        except (OSError, ValueError):
            sent = 0
        with self.event_log.path.open("rb") as file:
            file.seek(sent)
            line = file.readline()
        self.lags.append(time.time() - json.loads(line)["time"] if line.endswith(b"\n") else 0.0)

    def _sample(self) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        seen = set()
        self.samples += 1
        while frame is not None:
            code = frame.f_code
            seen.add(f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_qualname}")
            frame = frame.f_back
        self.functions.update(seen)

    def print(self) -> None:
        """Print a Markdown table."""
        named = {"python": "loop of the search", "mlflow": "MLflow's sender"}
        total = sum(self.threads.values())
        rows = [
            ("reports, and a second", f"{self.reports:,}, {self.reports / self.seconds:.1f}"),
            ("trials started", f"{self.trials:,}"),
            ("ms of processor time a report", self._per_report(total)),
        ]
        shares: Counter[str] = Counter()
        for name, seconds in self.threads.items():
            shares[named.get(name, "Ray's own threads and others")] += seconds
        rows += [(f"- {name}", self._per_report(seconds)) for name, seconds in shares.items()]
        rows.append(
            ("MB in memory at first, at last", f"{self.megabytes[0]:.0f}, {self.megabytes[-1]:.0f}")
        )
        if self.lags:
            cut = quantiles(self.lags, n=20)
            rows.append(
                (
                    "MLflow lags by, s: median, 95 %, most",
                    f"{cut[9]:.1f}, {cut[18]:.1f}, {max(self.lags):.1f}",
                )
            )
            rows.append(
                (
                    "event log, bytes a report, trials among them",
                    f"{self.bytes / max(1, self.reports):,.0f}",
                )
            )
        print("| of the driver | |", "| :-- | --: |", sep="\n")
        for what, value in rows:
            print(f"| {what} | {value} |")

    def _per_report(self, seconds: float) -> str:
        return f"{1000 * seconds / max(1, self.reports):.2f}"


def thread_seconds() -> Counter[str]:
    """Processor seconds of this process's threads so far, by name."""
    found: Counter[str] = Counter()
    main = str(os.getpid())
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    for folder in Path("/proc/self/task").iterdir():
        try:
            name, _, rest = (folder / "stat").read_text().rpartition(")")
        except OSError:
            continue
        used = rest.split()
        seconds = (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")
        known = names.get(folder.name, name.partition("(")[2])
        found["python" if folder.name == main else known] += seconds
    return found
