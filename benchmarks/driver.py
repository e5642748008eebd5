"""A search on 1,000 workers as fast as its driver can: processor time of the driver by its parts.

The driver is the product's, with the real loop of Ray Tune: study, sampler, pruner, event log.
Only the manager of Tune's workers is replaced: it hands recorded reports to the loop, one after
the other in a fixed order, where Ray would wait for them. So a run is the same each time, and two
versions can be compared by their event logs: the same decisions have the same digest.

    python benchmarks/driver.py [--workers 1000] [--reports 5000]
    python benchmarks/driver.py --bare      # Tune alone: the same reports, no study, no hooks
    python benchmarks/driver.py --random    # a sampler that costs nothing
    python benchmarks/driver.py --mlflow server    # and what MLflow's sender costs for its reports
    PYTHONPATH=OLD python benchmarks/driver.py ...          # another version of the package

Measured on 2026-11-28 under other load (20), the version before this file and the one
with it by turns, ``--workers 300 --reports 500 --random``: 1.60 and 1.18 ms a report, with the same
digest; Tune alone 0.23. ``--workers 100 --reports 400``, with the search's TPE: 1.71 and 1.42.

No process is started, Ray's neither. What Ray adds (waiting, futures, messages) is measured by
``fleet.py``.
"""

import argparse
import cProfile
import hashlib
import heapq
import json
import os
import pstats
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import ray
from fleet import CORES, Meter, begin, mlflow_server, prepare_driver, recorded_curves, run_bare
from optuna.samplers import BaseSampler, RandomSampler
from ray.train._internal import storage
from ray.tune import tune as tune_module
from ray.tune.execution import tune_controller

from cluster import NO_PAYLOAD
from hpsearch.execution import optuna_searcher, ray_runtime, tuner
from hpsearch.search.search import Search
from hpsearch.tracking.connection import resolve_tracking
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync

MARKS = 5
"""Parts of a run whose costs are given one by one, to see whether they grow."""


@dataclass
class Feed:
    """Reports of all workers in the order of a virtual clock."""

    curves: list[list[dict[str, str]]]
    reports: int
    """Reports after which the search is asked to end."""
    given: int = 0
    marks: list[tuple[int, float]] = field(default_factory=list)
    """Reports so far, and seconds of processor time."""
    profile: cProfile.Profile | None = None
    warm: int = 0
    """Reports before the measurement."""

    def curve(self, config: dict[str, Any]) -> list[dict[str, str]]:
        """Results of a trial."""
        return self.curves[config["number"] % len(self.curves)]

    def count(self) -> None:
        """Count a report, and interrupt the search after the last."""
        if self.given == self.warm and self.profile:
            self.profile.enable()
        if self.given >= self.warm and (self.given - self.warm) % (self.reports // MARKS) == 0:
            self.marks.append((self.given, time.process_time()))
        self.given += 1
        if self.given == self.warm + self.reports + 1:
            if self.profile:
                self.profile.disable()
            raise KeyboardInterrupt


class RecordedWorkers:
    """Manager of workers in place of Tune's: a call of ``train`` has its answer at once.

    Args:
        feed: reports to give.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._queue: list[tuple[float, int, Any, Any]] = []
        self._number, self._now = 0, 0.0
        self._turns: dict[Any, tuple[dict[str, Any], int]] = {}
        self._new: list[Any] = []
        self._live_actors_to_ray_actors_resources: dict[Any, tuple[Any, None]] = {}
        self._cancelled: set[int] = set()
        self._pending_task: dict[Any, int] = {}

    num_pending_actors = 0
    num_actor_tasks = 0

    @property
    def num_live_actors(self) -> int:
        return len(self._turns)

    num_total_actors = 0

    def add_actor(self, *, cls: Any, resource_request: Any, kwargs: Any, **hooks: Any) -> Any:
        actor = tune_controller.TrackedActor(len(self._turns), **hooks)
        turn = int(len(self._turns) * 0.6180339887 % 1 * len(self._feed.curve(kwargs["config"])))
        self._turns[actor] = kwargs["config"], turn
        self._live_actors_to_ray_actors_resources[actor] = None, None
        self._new.append(actor)
        return actor

    def schedule_actor_task(
        self, tracked_actor: Any, method_name: str, args: Any = (), **given: Any
    ) -> Any:
        if method_name not in ("train", "reset"):
            return None
        if method_name == "reset":
            self._turns[tracked_actor] = args[0], 0
        self._number += 1
        wait = 1.0 if method_name == "train" else 0.0
        self._pending_task[tracked_actor] = self._number
        call = (method_name, given["on_result"])
        heapq.heappush(self._queue, (self._now + wait, self._number, tracked_actor, call))
        return None

    def next(self, timeout: float | None = None) -> bool:
        if self._new:
            actor = self._new.pop(0)
            actor._on_start(actor)
            return True
        while self._queue:
            self._now, number, actor, (method, on_result) = heapq.heappop(self._queue)
            if self._pending_task.get(actor) != number:
                continue
            on_result(actor, self._answer(actor, method))
            return True
        return False

    def _answer(self, actor: Any, method: str) -> Any:
        if method == "reset":
            return True
        self._feed.count()
        config, turn = self._turns[actor]
        self._turns[actor] = config, turn + 1
        return {
            **self._feed.curve(config)[turn],
            "done": False,
            "training_iteration": turn + 1,
            "date": "2026-01-01_00-00-00",
            "timestamp": 1_700_000_000,
            "time_this_iter_s": 1.0,
            "time_total_s": turn,
            "pid": 1,
            "hostname": "node",
            "node_ip": "127.0.0.1",
            "config": {k: v for k, v in config.items() if not k.startswith("__")},
            "time_since_restore": turn,
            "iterations_since_restore": turn + 1,
        }

    def clear_actor_task_futures(self, tracked_actor: Any) -> None:
        self._pending_task.pop(tracked_actor, None)

    def remove_actor(self, tracked_actor: Any, kill: bool = False, stop_future: Any = None) -> bool:
        self._turns.pop(tracked_actor, None)
        return False

    def is_actor_started(self, tracked_actor: Any) -> bool:
        return True

    def is_actor_failed(self, tracked_actor: Any) -> bool:
        return False

    def cleanup(self) -> None: ...


@contextmanager
def without_ray() -> Iterator[None]:
    """Let Tune run where Ray does not."""
    os.environ.update(ray_runtime.RAY_ENV)
    replaced: list[tuple[Any, str, Any]] = [
        (ray, "cluster_resources", lambda: {"CPU": float(CORES)}),
        (tune_module, "_ray_auto_init", lambda *unused, **also: None),
        (storage, "_get_ray_train_session_dir", lambda: tempfile.gettempdir()),
        (tuner, "node_resources", lambda: [{"CPU": float(CORES)}]),
        (tuner, "_create_payload", lambda *unused: NO_PAYLOAD),
    ]
    before = [(owner, name, getattr(owner, name, None)) for owner, name, _ in replaced]
    for owner, name, value in replaced:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextmanager
def recorded_workers(feed: Feed) -> Iterator[None]:
    """Let Tune use recorded workers, whatever the product puts in the place of its manager."""
    before = tune_controller.RayActorManager

    def create(**unused: Any) -> RecordedWorkers:
        return RecordedWorkers(feed)

    @contextmanager
    def unpatched() -> Iterator[None]:
        yield

    names = [
        name
        for name in vars(tuner)
        if name in ("treat_oom_kill_as_actor_death", "patched_actor_manager")
    ]
    patched = {name: getattr(tuner, name) for name in names}
    tune_controller.RayActorManager = create  # type: ignore
    for name in names:
        setattr(tuner, name, unpatched)
    try:
        yield
    finally:
        tune_controller.RayActorManager = before
        for name, value in patched.items():
            setattr(tuner, name, value)


def random_sampler(search: Search, *, point: int, repeats: int = 0) -> BaseSampler:
    """A sampler that costs nothing, in place of the search's."""
    return RandomSampler(seed=search.seed + point)


def digest(log: EventLog) -> str:
    """Digest of all events without their times: the same for the same decisions."""
    events = [{k: v for k, v in e.items() if k != "time"} for e in log.events()]
    kept = [e for e in events if e["event"] not in ("search", "search_finished")]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def send(log: EventLog, home: Path, uri: str, *, warm: int) -> None:
    """Send an event log to MLflow, 40 reports at a time, and print what it cost.

    So many arrive in the two seconds between deliveries at 20 reports a second.

    Args:
        log: the event log.
        home: folder for a copy of it, which grows.
        uri: server or database.
        warm: reports before the measurement.
    """
    copy = EventLog(home / "sent" / log.path.name)
    copy.path.parent.mkdir()
    sync, began, reports = None, 0.0, 0
    for line in log.path.read_bytes().splitlines(keepends=True):
        with copy.path.open("ab") as file:
            file.write(line)
        if sync is None:
            state = copy.path.with_name("mlflow.json")
            sync = MlflowSync(copy, resolve_tracking(uri, home), "sent", state)
        if line.startswith(b'{"event": "report"'):
            reports += 1
            if reports == warm or (reports > warm and (reports - warm) % 40 == 0):
                sync.sync()
            if reports == warm:
                began = time.thread_time()
    if sync is not None:
        sync.sync()
    spent = 1000 * (time.thread_time() - began) / (reports - warm)
    print(f"MLflow's sender: {spent:.2f} ms of processor time a report")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--reports", type=int, default=5_000)
    parser.add_argument("--bare", action="store_true", help="Tune alone")
    parser.add_argument("--random", action="store_true", help="random points")
    parser.add_argument("--mlflow", choices=("server", "sqlite"), help="send the reports there")
    parser.add_argument("--profile", type=int, default=0, help="functions to print")
    asked = parser.parse_args()
    prepare_driver()
    profile = cProfile.Profile() if asked.profile else None
    feed = Feed(recorded_curves(), asked.reports, profile=profile, warm=asked.workers)
    with tempfile.TemporaryDirectory() as folder, without_ray(), recorded_workers(feed):
        run(Path(folder), feed, asked)


def run(home: Path, feed: Feed, asked: argparse.Namespace) -> None:
    """Run the search, and print what it cost."""
    log = None
    if asked.random:
        optuna_searcher.build_sampler = random_sampler
    try:
        if asked.bare:
            run_bare(home, Meter(lambda: 0, asked.workers, 0.0))
        else:
            context = begin(home, "sqlite:///unused.db", workers=asked.workers)
            log = context.event_log
            tuner.run_session(context)
    except KeyboardInterrupt:
        pass
    print("| reports | ms of processor time a report |", "| --: | --: |", sep="\n")
    for (number, before), (until, after) in pairwise(feed.marks):
        print(f"| {number:,} to {until:,} | {1000 * (after - before) / (until - number):.2f} |")
    (first, began), (last, ended) = feed.marks[0], feed.marks[-1]
    print(f"| all | {1000 * (ended - began) / (last - first):.2f} |")
    if log is not None:
        events = log.events()
        kinds = [event["event"] for event in events]
        size = log.path.stat().st_size / max(1, kinds.count("report"))
        print(f"{kinds.count('start')} trials, {kinds.count('report')} reports, {size:,.0f} bytes")
        print(f"digest of the event log: {digest(log)}")
        if asked.mlflow:
            local = nullcontext(f"sqlite:///{home}/mlflow.db")
            with mlflow_server(home) if asked.mlflow == "server" else local as uri:
                send(log, home, uri, warm=asked.workers)
    if feed.profile:
        pstats.Stats(feed.profile).sort_stats("cumulative").print_stats(asked.profile)
        pstats.Stats(feed.profile).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    main()
