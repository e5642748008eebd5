"""What travels between the driver's machine and the others of a cluster.

On a disk that all machines see, nothing does: each worker maps the patch store and writes its
checkpoints where the driver reads them. A worker that does not see the driver's folder gets the
store through Ray's object store, once a machine and read without copying, and hands its checkpoints
to an actor on the driver's machine.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpsearch.data.store import PatchStore
from hpsearch.errors import UserError
from hpsearch.training.trial import Job

Files = dict[str, bytes]
"""A trial's files by their path in its folder."""


class Keeper:
    """Lives beside the driver, and serves machines that do not see its disk."""

    def __init__(self, store: Path, trials: Path) -> None:
        self._store, self._trials = store, trials
        self._put: Any = None

    def store(self) -> list[Any]:
        """A reference, in a list so that Ray does not resolve it, to the bytes of the store."""
        if self._put is None:
            self._put = ray.put(np.fromfile(self._store, np.uint8))
        return [self._put]

    def fetch(self, trial: str) -> Files:
        """What a trial wrote when it was last heard of."""
        return read_files(self._trials / trial)

    def keep(self, trial: str, files: Files) -> None:
        """Replace a trial's files."""
        write_files(self._trials / trial, files)


@dataclass(frozen=True, kw_only=True)
class Luggage:
    """A job as it is sent to workers, which may lie on machines without the driver's disk."""

    store: Path
    fingerprint: str
    rest: dict[str, Any]
    """What else a job consists of."""
    trials: Path
    """Folder of the checkpoints, on the driver's machine."""
    beside: str
    """Digest of the search's record, which tells whether a machine sees the driver's folder."""
    keeper: Any
    """Handle of the actor."""

    def job(self) -> Job:
        """The job, with its patch store mapped from disk or from Ray's object store.

        Raises:
            UserError: if the file at the store's path holds other patches than the driver's.
        """
        return Job(store=self._open(), **self.rest)

    @contextmanager
    def folder(self, trial: str) -> Iterator["TrialFolder"]:
        """Where a trial keeps its checkpoints while it runs here."""
        if record_digest(self.trials.parent) == self.beside:
            yield TrialFolder(self.trials / trial, trial, None)
            return
        scratch = Path(tempfile.mkdtemp(prefix="hpsearch-"))
        try:
            write_files(scratch, ray.get(self.keeper.fetch.remote(trial)))
            yield TrialFolder(scratch, trial, self.keeper)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _open(self) -> PatchStore:
        if self.store.is_file():
            store = PatchStore.open(self.store)
        else:
            content = ray.get(ray.get(self.keeper.store.remote())[0])
            store = PatchStore.open(self.store, pa.py_buffer(content))
        if store.fingerprint != self.fingerprint:
            raise UserError(
                f"{self.store} holds other patches here than on the driver's machine; give every "
                "machine the same store, or none"
            )
        return store


@dataclass(frozen=True)
class TrialFolder:
    """A trial's folder on this machine."""

    path: Path
    trial: str
    keeper: Any
    """Who must be told of what is written here; None where the driver sees it."""

    def deliver(self) -> None:
        """Make sure that the driver's machine has what has been written."""
        if self.keeper is not None:
            ray.get(self.keeper.keep.remote(self.trial, read_files(self.path)))


def pack(job: Job, folder: Path, trials: Path) -> Luggage:
    """Make a job ready to travel, and start the actor beside this driver."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here)
    rest = {f.name: getattr(job, f.name) for f in fields(job) if f.name != "store"}
    return Luggage(
        store=job.store.path.absolute(),
        fingerprint=job.store.fingerprint,
        rest=rest,
        trials=trials.absolute(),
        beside=record_digest(folder),
        keeper=actor.remote(job.store.path.absolute(), trials.absolute()),
    )


def record_digest(folder: Path) -> str:
    """Of the record that a search's folder begins with; empty where there is none."""
    path = folder / "search.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def read_files(folder: Path) -> Files:
    """All files of a folder; none if there is no folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".part"
    }


def write_files(folder: Path, files: Files) -> None:
    """Write files, each whole or not at all, and remove those that are no longer there."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.part")
        draft.write_bytes(content)
        draft.replace(path)
    for name in read_files(folder).keys() - files.keys():
        (folder / name).unlink()
