"""Checkpoint store: keeps the checkpoints of trials beside the driver."""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpsearch.atomic_files import whole, write_whole
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.training.trial import Job

Files = dict[str, bytes]
"""A trial's files by their path in its folder."""


def read_files(folder: Path) -> Files:
    """All files of a folder; none if there is no folder."""
    return {name: (folder / name).read_bytes() for name in _names(folder)}


def write_files(folder: Path, files: Files) -> None:
    """Write files, each whole or not at all, and remove those that are no longer there."""
    for name, content in files.items():
        write_whole(folder / name, content)
    _remove(folder, _names(folder) - files.keys())


def link_files(source: Path, folder: Path) -> None:
    """As ``write_files``, with the files of another folder; nothing is copied if it need not be.

    Nobody changes a file in place, so two folders can hold the same one.
    """
    names = _names(source)
    for name in names:
        place = folder / name
        if place.exists() and place.samefile(source / name):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole(place) as draft:
            try:
                os.link(source / name, draft)
            except OSError:  # a disk that cannot
                shutil.copyfile(source / name, draft)
    _remove(folder, _names(folder) - names)


def _names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".part"
    }


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink()


ATTEMPTS = "attempts"
"""Beside the folder of the trials: what those that run have written, each start by itself."""
LATEST, OVER = ".latest", "over"
"""There: the latest start of a trial, by its name, and that the session is about to end."""


class SupersededError(ConnectionError):
    """A trial has been started once more, elsewhere; what this one does is of no interest."""


class Keeper:
    """Lives beside the driver; the only one that writes to the folders of trials."""

    def __init__(self, store: Path, trials: Path) -> None:
        self._store, self._trials = store, trials
        self._attempts = trials.with_name(ATTEMPTS)
        self._put: Any = None
        # what this session has done so far, if it is another process that did it
        self._latest = {p.stem: p.read_text() for p in self._attempts.glob(f"*{LATEST}")}
        self._over = (self._attempts / OVER).exists()

    def store(self) -> list[Any]:
        """A reference, in a list so that Ray does not resolve it, to the bytes of the store."""
        if self._put is None:
            self._put = ray.put(np.fromfile(self._store, np.uint8))
        return [self._put]

    def start(self, trial: str) -> str:
        """A name for a trial's new start; from now on nothing is taken from earlier ones."""
        self._latest[trial] = uuid.uuid4().hex
        write_whole(self._attempts / f"{trial}{LATEST}", self._latest[trial])
        return self._latest[trial]

    def end(self) -> None:
        """Trials that run are to save and leave: the session ends."""
        self._over = True
        write_whole(self._attempts / OVER, "")

    def ended(self) -> bool:
        """Whether they are."""
        return self._over

    def fetch(self, trial: str) -> Files:
        """What a trial wrote when it was last heard of."""
        return read_files(self._trials / trial)

    def keep(self, trial: str, start: str, files: Files | Path) -> None:
        """Replace a trial's files with those that were sent, or that lie in a folder.

        Raises:
            SupersededError: if they are not of its latest start.
        """
        if start != self._latest.get(trial):
            raise SupersededError(f"trial {trial} goes on elsewhere; this start of it is over")
        if isinstance(files, Path):
            link_files(files, self._trials / trial)
        else:
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
        """Where a trial keeps its checkpoints while it runs here; it begins with those it has."""
        start = _answer(self.keeper.start.remote(trial))
        seen = record_digest(self.trials.parent) == self.beside
        attempts = self.trials.with_name(ATTEMPTS) if seen else None
        if attempts is not None:
            attempts.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"hpsearch-{trial}-", dir=attempts))
        try:
            if seen:
                link_files(self.trials / trial, scratch)
            else:
                write_files(scratch, _answer(self.keeper.fetch.remote(trial)))
            yield TrialFolder(scratch, trial, start, self.keeper, seen)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def ended(self) -> bool:
        """Whether the session that sent this is about to end; False if nobody answers."""
        try:
            return _answer(self.keeper.ended.remote())
        except (ConnectionError, RayError):
            return False

    def _open(self) -> PatchStore:
        if self.store.is_file():
            store = PatchStore.open(self.store)
        else:
            content = ray.get(_answer(self.keeper.store.remote())[0])
            store = PatchStore.open(self.store, pa.py_buffer(content))
        if store.fingerprint != self.fingerprint:
            raise UserError(
                f"{self.store} holds other patches here than on the driver's machine; give every "
                "machine the same store, or none"
            )
        return store


@dataclass(frozen=True)
class TrialFolder:
    """A trial's folder on this machine, for one start of it."""

    path: Path
    trial: str
    start: str
    keeper: Any
    seen: bool
    """Whether the driver's machine sees it too."""

    def deliver(self) -> None:
        """Put what has been written where a later start of the trial finds it.

        Raises:
            SupersededError: if there has been a later start already.
            ConnectionError: if the driver's machine does not answer.
        """
        files = self.path if self.seen else read_files(self.path)
        _answer(self.keeper.keep.remote(self.trial, self.start, files))


def _answer(reference: Any) -> Any:
    """What the actor says; that it cannot be reached may pass, as any network's fault."""
    try:
        return ray.get(reference)
    except RayActorError as error:
        raise ConnectionError("the driver's machine does not answer") from error


def pack(job: Job, folder: Path, trials: Path) -> Luggage:
    """Make a job ready to travel, and start the actor beside this driver."""
    shutil.rmtree(trials.with_name(ATTEMPTS), ignore_errors=True)  # of a driver that died
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(Keeper).options(
        num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1
    )
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
