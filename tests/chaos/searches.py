"""Small searches for the tests that hurt them, and what to wait for."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.tuner import SessionResult, run_session
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run

from ..search_factory import plan

MARKS = [
    pytest.mark.timeout(1_800),  # on a busy machine
    pytest.mark.chaos,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
"""Of every test with a cluster."""
SPACE = """
from hpsearch.config import Adam, L2Net, RandomTriplets, TrialConfig
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search

PATCHES = {patches}

def suggest(trial):
    return TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20),
                       optimizer=Adam(lr=trial.suggest_float("lr", 1e-4, 1e-2)), patches=PATCHES)

SEARCH = Search(suggest=suggest, budget=PATCHES, report_every=PATCHES // {reports},
                validation_points=8, trials={trials}, pruner=NoPruner(),
                baseline=TrialConfig(descriptor=L2Net(width=0.125), patches=1_200))
"""


def space_of(*, patches: int, trials: int = 2, reports: int = 8) -> str:
    """A space whose trials report so many times."""
    return SPACE.format(patches=patches, trials=trials, reports=reports)


def begin(
    home: Path,
    store: PatchStore,
    *,
    patches: int,
    trials: int = 2,
    reports: int = 8,
    **fields: object,
) -> SearchContext:
    """A search of that space; ``fields`` of its record besides."""
    space = space_of(patches=patches, trials=trials, reports=reports)
    return plan(home, store, space, trials=trials, **fields)


@contextmanager
def searching(context: SearchContext) -> Iterator[None]:
    """The search runs in a thread while the block does harm, and must end by itself."""
    ended: list[SessionResult] = []
    search = threading.Thread(target=lambda: ended.append(run_session(context)))
    search.start()
    yield
    search.join(1_200)
    assert [session.exhausted for session in ended] == [True]


def trials(context: SearchContext) -> list[Run]:
    return [run for run in context.runs if run.kind == "trial"]


def reported(context: SearchContext, count: int) -> bool:
    """Whether there are trials, and each has reported so often."""
    running = trials(context)
    return bool(running) and all(len(run.reports) >= count for run in running)


def wait_for(what: Callable[[], object], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


def wait_for_reports(context: SearchContext, count: int) -> None:
    """Until two trials have reported so often."""
    wait_for(lambda: len(trials(context)) == 2 and reported(context, count))


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
