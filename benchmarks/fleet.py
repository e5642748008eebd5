"""A search on 1,000 workers that train nothing: cost of its driver, and what limits it first.

Each worker replays recorded learning curves in real time, so that all together send so many reports
a second. The driver is the product's: study, sampler, pruner, Tune, event log, and the sender to an
MLflow server. Ray is real too (futures, placement groups); only the workers' processes are replaced
by coroutines of one actor, because a machine of two cores holds no 1,000 processes.

    python benchmarks/fleet.py [--workers 1000] [--rate 20] [--seconds 240]
    python benchmarks/fleet.py --bare       # Tune alone: the same reports, no study, no hooks
    python benchmarks/fleet.py --bare --patched   # with our manager of workers
    python benchmarks/fleet.py --profile 40 # and the functions in which the loop spends its time

The figures are of the driver's process from when every worker has sent its first report.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ray
from fleet_meter import Meter
from ray import tune
from ray.air.execution.resources.placement_group import PlacementGroupAcquiredResources
from ray.tune.search import Searcher
from replay import Row, as_result, read_table

from cluster import tiny
from hpsearch.execution import ray_patches, ray_runtime, shutdown, tuner
from hpsearch.search.resources import Resources
from hpsearch.search.search_context import SearchContext
from hpsearch.search.space_file import load_search
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.model_registry import configure_mlflow_logging
from hpsearch.workflows.run_search import log_search_started

HERE = Path(__file__).parent
SPACE = HERE / "replay_space.py"
CORES = 2
METRICS = ("mAP", "verification", "matching", "retrieval", "collapsed", "loss", "dispersion")
FURTHER = ("train/norm", "train/rate", "train/seconds", "train/waiting", "device/busy")
"""Metrics of each report: 12, as many as a real one has."""


FINER = 5
"""Reports in place of each recorded one: 60 of a full trial, as one of an hour sends."""


def recorded_curves() -> list[list[dict[str, str]]]:
    """Results of recorded trials as Tune gets them, in finer steps."""
    rows = read_table(HERE / "curves.parquet", load_search(SPACE)).rows
    return [[as_result(report) for report in _finer(row)] for row in rows]


def _finer(row: Row) -> Iterator[dict[str, Any]]:
    before = 0
    for report in row.reports:
        metrics = {f"val/{name}": report["objective"] for name in METRICS}
        metrics |= dict.fromkeys(FURTHER, 0.5)
        for part in range(1, FINER + 1):
            status = report["status"] if part == FINER else "running"
            seen = before + (report["seen"] - before) * part // FINER
            yield {**report, "seen": seen, "status": status, "metrics": metrics}
        before = report["seen"]


@ray.remote(num_cpus=0, max_concurrency=10_000)
class Fleet:
    """All workers, as coroutines: a call of ``train`` lasts until the next report."""

    def __init__(self, curves: list[list[dict[str, str]]], interval: float) -> None:
        self._curves, self._interval = curves, interval
        self._trials: dict[int, tuple[dict[str, Any], int]] = {}
        """Configuration of each worker's trial, and the number of its reports so far."""
        self._due: dict[int, float] = {}
        self._reported: set[int] = set()
        """Workers that have sent a report."""

    async def num_reported(self) -> int:
        """Number of workers that have sent a report."""
        return len(self._reported)

    async def start(self, worker: int, kwargs: dict[str, Any]) -> None:
        config, spread = kwargs["config"], worker * 0.6180339887 % 1
        # as if the search had run for long: each first trial is somewhere on its curve
        self._trials[worker] = config, int(spread * len(self._curve(config)))
        self._due[worker] = time.time() + self._interval * (1 + 37 * spread % 1)

    def _curve(self, config: dict[str, Any]) -> list[dict[str, str]]:
        return self._curves[config["number"] % len(self._curves)]

    async def call(self, worker: int, method: str, args: tuple, kwargs: dict) -> Any:
        if method == "train":
            return await self._train(worker)
        if method == "reset":
            self._trials[worker] = args[0], 0
            self._due[worker] = time.time() + self._interval
        return {} if method == "get_auto_filled_metrics" else True

    async def _train(self, worker: int) -> dict[str, Any]:
        await asyncio.sleep(max(0.0, self._due[worker] - time.time()))
        self._due[worker] += self._interval
        self._reported.add(worker)
        config, turn = self._trials[worker]
        self._trials[worker] = config, turn + 1
        now = datetime.today()
        return {
            **self._curve(config)[turn],
            "done": False,
            "training_iteration": turn + 1,
            "date": now.strftime("%Y-%m-%d_%H-%M-%S"),
            "timestamp": int(now.timestamp()),
            "time_this_iter_s": self._interval,
            "time_total_s": self._interval * turn,
            "pid": worker,
            "hostname": "node",
            "node_ip": "127.0.0.1",
            "config": {k: v for k, v in config.items() if not k.startswith("__")},
            "time_since_restore": self._interval * turn,
            "iterations_since_restore": turn + 1,
        }


@dataclass
class Call:
    """A method of a worker, called as that of a Ray actor is."""

    fleet: Any
    worker: int
    method: str

    def remote(self, *args: Any, **kwargs: Any) -> ray.ObjectRef:
        return self.fleet.call.remote(self.worker, self.method, args, kwargs)


class Worker:
    """A worker of the fleet, in place of the handle of a Ray actor."""

    def __init__(self, fleet: Any, number: int) -> None:
        self._fleet, self._number = fleet, number

    def __getattr__(self, method: str) -> Call:
        return Call(self._fleet, self._number, method)


@dataclass
class WorkerClass:
    """Class of the workers, in place of a Ray actor's."""

    fleet: Any
    started: int = 0

    def remote(self, **kwargs: Any) -> Worker:
        self.started += 1
        self.fleet.start.remote(self.started, kwargs)
        return Worker(self.fleet, self.started)


@contextmanager
def simulated_workers(fleet: Any) -> Iterator[None]:
    """Let Tune start workers of the fleet where it would start processes."""
    workers = WorkerClass(fleet)
    before = PlacementGroupAcquiredResources.annotate_remote_entities
    PlacementGroupAcquiredResources.annotate_remote_entities = lambda *unused: [workers]  # type: ignore
    try:
        yield
    finally:
        PlacementGroupAcquiredResources.annotate_remote_entities = before


@contextmanager
def mlflow_server(home: Path) -> Iterator[str]:
    """An MLflow server on SQLite, in a process of its own."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{home}/mlflow.db"]
    command += ["--default-artifact-root", str(home / "artifacts")]
    with (home / "mlflow.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except urllib.error.URLError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)


def begin(home: Path, uri: str, *, workers: int) -> SearchContext:
    """A search on the recorded space, so large that it does not end."""
    store = tiny(home)
    record = SearchRecord(
        space=str(SPACE),
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split="auto",
        tracking_uri=uri,
        trials=100_000,
        resources=Resources(cpus=CORES / workers, device="cpu"),
    )
    context = Workspace(home).create("fleet", SPACE, record)
    log_search_started(context, context.search, store)
    return context


class Draws(Searcher):
    """Searcher that suggests a worker's next trial at once, and knows nothing else."""

    def __init__(self, workers: int) -> None:
        super().__init__(metric="objective", mode="max")
        self._free, self._number = workers, 0
        self.reports = 0

    def suggest(self, trial_id: str) -> Any:
        if not self._free:
            return None
        self._free, self._number = self._free - 1, self._number + 1
        return {"number": self._number, "id": f"{self._number:03d}"}

    def on_trial_result(self, trial_id: str, result: dict) -> None:
        self.reports += 1

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        self._free += 1

    def save(self, checkpoint_path: str) -> None: ...

    def restore(self, checkpoint_path: str) -> None: ...


def run_bare(home: Path, meter: Meter) -> None:
    """Tune with the same workers; a trial ends with its curve."""
    searcher = Draws(meter.count)

    class AtEnd(tune.Stopper):
        def __call__(self, trial_id: str, result: dict) -> bool:
            meter.reports += 1
            return '"status": "running"' not in result["worker_message"]

        def stop_all(self) -> bool:
            return meter.stop

    def trainable(config: dict[str, Any]) -> None: ...

    bundle = tune.PlacementGroupFactory([{"CPU": CORES / meter.count}])
    tune.Tuner(
        tune.with_resources(trainable, bundle),
        tune_config=tune.TuneConfig(
            search_alg=searcher, num_samples=-1, max_concurrent_trials=10_000, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="bare", storage_path=str(home.absolute()), stop=AtEnd(), verbose=0
        ),
    ).fit()


def prepare_driver() -> None:
    """Let the driver run without authentication, messages, and time to save at the end."""
    os.environ.update(RAY_AUTH_MODE="disabled", MLFLOW_DISABLE_TELEMETRY="true")
    configure_mlflow_logging()
    for name in ("ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    shutdown.GRACE_PERIOD_S = 0.0


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=20.0, help="reports a second, of all")
    parser.add_argument("--seconds", type=float, default=240.0, help="of the measurement")
    parser.add_argument("--bare", action="store_true", help="Tune alone")
    parser.add_argument("--patched", action="store_true", help="with our manager of workers")
    parser.add_argument("--profile", type=int, default=0, help="functions to print")
    asked = parser.parse_args()
    prepare_driver()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), asked)


def measure(home: Path, asked: argparse.Namespace) -> None:
    """Run the fleet and print its figures."""
    ray_runtime.start_ray(cpus=CORES)
    try:
        fleet = Fleet.remote(recorded_curves(), asked.workers / asked.rate)
        with simulated_workers(fleet):
            meter = Meter(
                lambda: ray.get(fleet.num_reported.remote()),
                asked.workers,
                asked.seconds,
                profile=bool(asked.profile),
            )
            if asked.bare:
                threading.Thread(target=meter.follow, daemon=True).start()
                with ray_patches.patched_actor_manager() if asked.patched else nullcontext():
                    run_bare(home, meter)
            else:
                run_product(home, meter)
    finally:
        ray_runtime.stop_ray()
    meter.print()
    for name, count in meter.functions.most_common(asked.profile):
        print(f"{100 * count / meter.samples:5.1f} %  {name}")


def run_product(home: Path, meter: Meter) -> None:
    """The product's session on the fleet."""
    with mlflow_server(home) as uri:
        context = begin(home, uri, workers=meter.count)
        meter.event_log, meter.mlflow_sync = context.event_log, context.mlflow_sync()
        meter.mlflow_sync.start()
        threading.Thread(target=meter.follow, daemon=True).start()
        tuner.run_session(context)
        meter.mlflow_sync.stop(timeout=5)


if __name__ == "__main__":
    main()
