"""Data traffic of a cluster: patches, checkpoints and reports; nodes of one machine.

    python benchmarks/cluster_data.py store     # bytes that a patch store costs each node (root)
    python benchmarks/cluster_data.py checkpoints # checkpoints through one actor
    python benchmarks/cluster_data.py tracking  # reports that MLflow takes from one driver

A node of ``store`` has a mount namespace of its own, in which the driver's disk is hidden.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpsearch.config import TrialConfig
from hpsearch.execution import ray_runtime
from hpsearch.execution.checkpoint_store import CheckpointDir, CheckpointStore
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.model_registry import configure_mlflow_logging


def store_bytes(workers: int, *, home: Path) -> None:
    """Bytes at nodes without access to the driver's disk, with three readers on each."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.chaos.conftest import Fleet

    hidden = home / "hidden"
    hidden.mkdir()
    path = hidden / "patches"
    np.random.default_rng(0).integers(0, 256, 40_000_000, np.uint8).tofile(path)
    allocator = Fleet()
    try:
        allocator.start_head()
        for number in range(workers):
            allocator.start_worker(f"worker {number}", cpus=3, blind_to=hidden)
        time.sleep(15)
        ray_runtime.start_ray(address=allocator.address)
        while ray.cluster_resources().get("CPU", 0) < 3 * workers:
            time.sleep(0.5)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(CheckpointStore).options(num_cpus=0, scheduling_strategy=here)
        checkpoint_store = actor.remote(path, hidden)
        before = held()
        read = [_reader.remote(checkpoint_store, str(path)) for _ in range(3 * workers)]
        where = ray.get(read)
        print(f"store: {path.stat().st_size:,} bytes; readers on {len(set(where))} nodes")
        print(
            "| node | readers | bytes in its object store | stores |", "| --: " * 4 + "|", sep="\n"
        )
        for node, now in held().items():
            more = now - before[node]
            stores = more / path.stat().st_size
            print(f"| {node[:6]} | {where.count(node)} | {more:,} | {stores:.2f} |")
    finally:
        ray_runtime.stop_ray()
        allocator.stop()


@ray.remote(num_cpus=1)
def _reader(checkpoint_store: Any, path: str) -> str:
    """Read the store as a trial does, and wait for the other readers."""
    import time
    from pathlib import Path

    import ray

    assert not Path(path).exists(), "this node must not see the driver's disk"
    content = ray.get(ray.get(checkpoint_store.patch_store.remote())[0])
    assert content.sum() > 0
    time.sleep(5)
    return ray.get_runtime_context().get_node_id()


def held() -> dict[str, int]:
    """Bytes in the object store of each node."""
    from ray._private.internal_api import node_stats

    found = {}
    for node in ray.nodes():
        stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"])
        found[node["NodeID"]] = stats.store_stats.object_store_bytes_used
    return found


def checkpoint_store(sizes: Sequence[float], *, senders: int, seconds: float, home: Path) -> None:
    """Checkpoints through one actor, sent as bytes and named as folders of a common disk."""
    ray_runtime.start_ray(cpus=2)
    print("| checkpoint, MB | way | checkpoints/s | MB/s |", "| --: | :-- | --: | --: |", sep="\n")
    try:
        for size in sizes:
            for seen in (False, True):
                actor = (
                    ray.remote(CheckpointStore)
                    .options(num_cpus=0)
                    .remote(home / "x", home / "trials")
                )
                send = [
                    _sender.remote(actor, str(home), str(i), int(size * 1e6), seconds, seen)
                    for i in range(senders)
                ]
                rate = sum(ray.get(send)) / seconds
                way = "common disk" if seen else "sent"
                print(f"| {size:g} | {way} | {rate:,.0f} | {rate * size:,.0f} |", flush=True)
                ray.kill(actor)
    finally:
        ray_runtime.stop_ray()


@ray.remote(num_cpus=0)
def _sender(actor: Any, home: str, trial: str, size: int, seconds: float, seen: bool) -> int:
    """Send a checkpoint repeatedly, as a trial does after each report; returns the count."""
    start = ray.get(actor.begin_attempt.remote(trial))
    content = np.random.default_rng(0).bytes(size)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        position = CheckpointDir(Path(scratch), trial, start, actor, seen)
        end, sent = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            draft = Path(scratch) / "checkpoint.part"
            draft.write_bytes(content)
            draft.replace(Path(scratch) / "checkpoint")
            position.upload()
            sent += 1
    return sent


def tracking(trials: int, *, home: Path) -> None:
    """Throughput of one driver to an MLflow server: trials, then one report of each."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "tracking"))
    from outages import KEYS, Server, begin  # type: ignore[import-not-found]

    server, event_log = Server(home, f"sqlite:///{home}/mlflow.db"), EventLog(home / "ledger.jsonl")
    server.start()
    mlflow_sync = MlflowSync(
        event_log, TrackingServer(uri=server.uri), "many", home / "published.json"
    )
    print("| sent | how many | s | a second |", "| :-- | --: | --: | --: |", sep="\n")
    try:
        begin(event_log)
        config = TrialConfig().model_dump(mode="json")
        for number in range(trials):
            event_log.append("start", trial=f"{number:03d}", number=number, config=config)
        took = timed(mlflow_sync.sync)
        print(f"| trials | {trials} | {took:.1f} | {trials / took:.1f} |", flush=True)
        for turn in range(1, 4):
            fields = {"objective": 0.5, "metrics": dict.fromkeys(KEYS, 0.5), "seconds": 1.0}
            for number in range(trials):
                event_log.append("report", trial=f"{number:03d}", seen=100 * turn, **fields)
            took = timed(mlflow_sync.sync)
            what = f"reports of {len(KEYS) + 3} points"
            print(f"| {what} | {trials} | {took:.1f} | {trials / took:.1f} |", flush=True)
    finally:
        server.kill()


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call took."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Parse and run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("store", "checkpoints", "tracking"))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--trials", type=int, default=200, help="of `tracking`")
    parser.add_argument("--senders", type=int, default=4)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.1, 1, 10])
    parser.add_argument("--seconds", type=float, default=5, help="of each row of `checkpoints`")
    asked = parser.parse_args()
    os.environ.update(RAY_AUTH_MODE="disabled", MLFLOW_DISABLE_TELEMETRY="true")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if asked.what == "store":
            store_bytes(asked.workers, home=home)
        elif asked.what == "tracking":
            configure_mlflow_logging()
            tracking(asked.trials, home=home)
        else:
            checkpoint_store(
                asked.megabytes, senders=asked.senders, seconds=asked.seconds, home=home
            )


if __name__ == "__main__":
    main()
