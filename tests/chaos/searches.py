"""Small searches for the tests that hurt them, and what to wait for."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from hpsearch.data.store import PatchStore
from hpsearch.search.resources import Resources
from hpsearch.search.workspace import SearchFolder, SearchRecord, Workspace
from hpsearch.tracking.runs import Run

SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

PATCHES = {patches}

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimiser=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=PATCHES)

SEARCH = Search(suggest=suggest, budget=PATCHES, report_every=PATCHES // {reports},
                validation_points=8, trials={trials}, scheduler="none",
                baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=1_200))
"""


def begin(
    home: Path,
    store: PatchStore,
    *,
    patches: int,
    trials: int = 2,
    reports: int = 8,
    **fields: object,
) -> SearchFolder:
    """A search of trials that report so many times; ``fields`` of its record besides."""
    home.mkdir(exist_ok=True)
    (home / "space.py").write_text(SPACE.format(patches=patches, trials=trials, reports=reports))
    record = SearchRecord.model_validate(
        {
            "space": "space.py", "store": str(store.path), "fingerprint": store.fingerprint,
            "split": "auto", "tracking_uri": "", "trials": trials,
            "resources": Resources(device="cpu"), **fields,
        }
    )  # fmt: skip
    return Workspace(home).create("far", home / "space.py", record)


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def listens(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as knock:
        return knock.connect_ex((host, port)) == 0


def joined(address: str, count: int) -> bool:
    """Whether so many machines that live belong to a cluster, its head among them."""
    if not listens(int(address.rpartition(":")[2]), host=address.rpartition(":")[0]):
        return False
    nodes = GcsClient(address=address).get_all_node_info(timeout=5).values()
    return sum(node.state == GcsNodeInfo.ALIVE for node in nodes) >= count


def seen(run: Run) -> list[int]:
    """Patches at each report."""
    return [report["seen"] for report in run.reports]
