"""Claim: the search itself does not limit a cluster. Trials that sleep, nodes of one machine.

Each prints a Markdown table. The session is the product's: study, Tune, event log, and MLflow
in a separate database; only the training function is replaced by one that sleeps.

    python benchmarks/cluster.py nodes [--seconds 12]    # trials an hour on 1, 2, 4, 8 nodes
    python benchmarks/cluster.py driver [--seconds 15]   # 1,000 trials, 64 at once: its cost

What a node's patches and checkpoints cost is in ``cluster_data.py``.
"""

import argparse
import json
import logging
import os
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
from ray import tune
from ray.cluster_utils import Cluster

from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import PatchStore
from hpsearch.execution import ray_runtime, tuner
from hpsearch.execution.placement import placement_group
from hpsearch.execution.worker_messages import MESSAGE_KEY
from hpsearch.search.resources import Resources
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.event_log import Event, EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.model_registry import configure_mlflow_logging

BEGAN = "train/began"
"""Metric: when a trial's function began, seconds since 1970."""
REPORTS = 5
NO_PAYLOAD: Any = SimpleNamespace(
    store_actor=SimpleNamespace(announce_shutdown=SimpleNamespace(remote=lambda: None)),
    was_killed_for_memory=lambda trial: False,
)
"""Payload of trials that need nothing from the driver."""
SPACE = '''
"""One number; the trial sleeps."""

from hpsearch.config import SGD, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search


def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1.0)), patches=500)


SEARCH = Search(suggest=suggest, budget=500, report_every=100, trials=9, pruner=NoPruner(),
                baseline=TrialConfig(patches=500))
'''


def sleeper(seconds: float) -> Callable[..., None]:
    """A training function that reports as one does, and needs neither torch nor patches."""
    key = MESSAGE_KEY

    def sleep(config: dict[str, Any]) -> None:
        import json
        import time

        from ray import tune

        began = time.time()
        for turn in range(1, REPORTS + 1):
            time.sleep(max(0.0, began + turn * seconds / REPORTS - time.time()))
            metrics = {f"val/{name}": 0.5 for name in ("mAP", "verification", "matching")}
            metrics |= {f"train/{name}": 0.1 for name in ("loss", "rate", "norm", "spread")}
            report = {
                "tag": "reported",
                "seen": turn * 100,
                "objective": json.loads(config["trial"])["optimizer"]["lr"],
                "collapsed": False,
                "status": "completed" if turn == REPORTS else "running",
                "reason": "",
                "metrics": {**metrics, "train/began": began, "train/seconds": seconds},
            }
            tune.report({key: json.dumps(report)})

    return sleep


@contextmanager
def asleep(seconds: float) -> Iterator[None]:
    """Replace what is sent to workers by a function that sleeps, without a store's actor."""
    before = tuner._trainable, tuner._create_payload
    tuner._trainable = lambda *unused: tune.with_resources(sleeper(seconds), placement_group)
    tuner._create_payload = lambda *unused: NO_PAYLOAD
    try:
        yield
    finally:
        tuner._trainable, tuner._create_payload = before


def begin(home: Path, store: PatchStore, *, trials: int, cpus: float) -> SearchContext:
    """A search whose runs go to an MLflow database that is ready."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "space.py").write_text(SPACE)
    uri = f"sqlite:///{home.absolute()}/mlflow.db"
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    record = SearchRecord(
        space="space.py",
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split="auto",
        tracking_uri=uri,
        trials=trials,
        resources=Resources(cpus=cpus, device="cpu"),
    )
    return Workspace(home).create("sleeping", home / "space.py", record)


@dataclass
class Meter:
    """Measurement of the driver's CPU and memory and of MLflow's lag, once per second."""

    event_log: EventLog
    mlflow_sync: MlflowSync
    lags: list[float] = field(default_factory=list)
    megabytes: float = 0.0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Meter":
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu, self.wall = cpu_seconds() - self._cpu, time.perf_counter() - self._wall

    def _follow(self) -> None:
        while not self._stop.wait(1.0):
            self.megabytes = max(self.megabytes, resident())
            waiting = self.waiting()
            self.lags.append(time.time() - waiting[0]["time"] if waiting else 0.0)

    def waiting(self) -> list[Event]:
        """Events of the log that MLflow has not acknowledged."""
        try:
            known = json.loads(self.mlflow_sync.state_path.read_text())
            sent = max(position["offset"] for position in known.values())
        except (OSError, ValueError):
            sent = 0
        return self.event_log.read(sent)[0]


def cpu_seconds() -> float:
    """CPU seconds of all threads of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident() -> float:
    """MB of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@dataclass(frozen=True)
class Steady:
    """Part of a session in which every slot has had its first trial and trials are left."""

    seconds: float
    busy: float
    """Share of the slots' time in which a trial trained."""

    @classmethod
    def of(cls, events: Sequence[Event], *, allocations: int, length: float) -> "Steady":
        """Measure from the event log of trials that each train for ``length`` seconds."""
        began = sorted({e["trial"]: e["metrics"][BEGAN] for e in reports(events)}.values())
        full, last = began[allocations - 1], began[-1]
        trained = sum(max(0.0, min(b + length, last) - max(b, full)) for b in began)
        return cls(last - full, trained / (allocations * (last - full)))


def reports(events: Sequence[Event]) -> list[Event]:
    """The reports among the events."""
    return [event for event in events if event["event"] == "report"]


def session(context: SearchContext, seconds: float) -> tuple[Meter, float]:
    """Run a search of sleeping trials; what it cost, and seconds until MLflow had the rest."""
    mlflow_sync = context.mlflow_sync()
    mlflow_sync.start()
    with Meter(context.event_log, mlflow_sync) as meter, asleep(seconds):
        tuner.run_session(context)
    began = time.perf_counter()
    assert mlflow_sync.stop(timeout=600), mlflow_sync.last_error
    return meter, time.perf_counter() - began


def nodes(counts: Sequence[int], *, seconds: float, waves: int, home: Path) -> None:
    """Trials an hour, one at a time on each node; nodes join between two sessions."""
    store = tiny(home)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000},
    )
    ray_runtime.start_ray(address=cluster.address)
    print("| nodes | trials | s in all | trials/h, all slots busy | efficiency | driver CPU s |")
    print("| --: | --: | --: | --: | --: | --: |")
    there = 0
    try:
        for count in counts:
            for _ in range(count - there):
                cluster.add_node(num_cpus=1, object_store_memory=100_000_000)
            there = count
            cluster.wait_for_nodes()
            context = begin(home / str(count), store, trials=count * waves, cpus=1)
            meter, _ = session(context, seconds)
            steady = Steady.of(context.event_log.events(), allocations=count, length=seconds)
            row = f"| {count} | {count * waves} | {meter.wall:.0f} "
            row += f"| {steady.busy * count * 3600 / seconds:,.0f} | {steady.busy:.3f} "
            print(f"{row}| {meter.cpu:.1f} |", flush=True)
    finally:
        ray_runtime.stop_ray()
        cluster.shutdown()


def driver(trials: int, *, at_once: int, seconds: float, home: Path) -> None:
    """CPU, memory and MLflow's lag of a driver with many trials at once."""
    store, cores = tiny(home), 2
    ray_runtime.start_ray(cpus=cores)
    try:
        before = resident()
        context = begin(home / "driver", store, trials=trials, cpus=cores / at_once)
        meter, drained = session(context, seconds)
    finally:
        ray_runtime.stop_ray()
    events = context.event_log.events()
    output = len(reports(events))
    steady = Steady.of(events, allocations=at_once, length=seconds)
    lags = statistics.quantiles(meter.lags, n=20)
    print("| of the driver | |", "| :-- | --: |", sep="\n")
    for what, value in (
        ("trials, at once", f"{trials:,}, {at_once}"),
        ("seconds in all", f"{meter.wall:.0f}"),
        ("reports, and a second", f"{output:,}, {output / meter.wall:.1f}"),
        ("share of the slots' time in which a trial trained", f"{steady.busy:.3f}"),
        ("CPU seconds, MLflow's sender among them", f"{meter.cpu:.1f}"),
        ("CPU ms a report", f"{1000 * meter.cpu / output:.1f}"),
        ("MB in memory before, most", f"{before:.0f}, {meter.megabytes:.0f}"),
        (
            "MLflow lags by, s: median, 95 %, most",
            f"{lags[9]:.1f}, {lags[18]:.1f}, {max(meter.lags):.1f}",
        ),
        ("s until MLflow had the rest", f"{drained:.1f}"),
    ):
        print(f"| {what} | {value} |")


def tiny(home: Path) -> PatchStore:
    """Patches, because a search has some."""
    folder = Path(os.environ.get("HPSEARCH_TEST_DATA") or home)
    return PatchStore.open(open_builtin("tiny", folder))


def main() -> None:
    """Parse and run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("nodes", "driver"))
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, help="a trial's")
    parser.add_argument("--waves", type=int, default=5, help="trials of each node")
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=64)
    asked = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="disabled", MLFLOW_DISABLE_TELEMETRY="true")
    configure_mlflow_logging()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if asked.what == "nodes":
            nodes(asked.counts, seconds=asked.seconds or 12, waves=asked.waves, home=home)
        else:
            driver(asked.trials, at_once=asked.at_once, seconds=asked.seconds or 15, home=home)


if __name__ == "__main__":
    main()
