"""Checkpoint store: keeps the checkpoints of trials on the driver's machine.

What needs torch is imported where it is used: the actor starts before the first trial, and on the
driver's machine it needs none of it.
"""

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hpsearch.atomic_files import atomic_write, write_atomic
from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.errors import UserError
from hpsearch.execution.memory_kills import PROBE_TIMEOUT_S, MemoryState, was_killed_for_memory

if TYPE_CHECKING:
    from hpsearch.training.trial import TrialEnvironment

FileContents = dict[str, bytes]
"""A trial's files by their path in its folder."""


def read_files(folder: Path) -> FileContents:
    """All files of a folder; none if there is no folder."""
    return {name: (folder / name).read_bytes() for name in _relative_names(folder)}


def replace_files(folder: Path, files: FileContents) -> None:
    """As ``write_files``, but each checkpoint is kept under its second name when it is replaced."""
    from hpsearch.training.trial import (
        CHECKPOINT_FILE,
        PREVIOUS_CHECKPOINT_FILE,
        keep_previous_checkpoint,
    )

    checkpoints = [Path(name) for name in files if Path(name).name == CHECKPOINT_FILE]
    for checkpoint in checkpoints:
        keep_previous_checkpoint((folder / checkpoint).parent)
    previous = {str(checkpoint.with_name(PREVIOUS_CHECKPOINT_FILE)) for checkpoint in checkpoints}
    write_files(folder, files, kept=previous)


def write_files(folder: Path, files: FileContents, *, kept: Collection[str] = frozenset()) -> None:
    """Write files, each whole or not at all, and remove all others but those to be kept."""
    for name, content in files.items():
        write_atomic(folder / name, content)
    _remove(folder, _relative_names(folder) - files.keys() - set(kept))


def hardlink_files(source: Path, folder: Path) -> None:
    """As ``write_files``, with the files of another folder; nothing is copied if it need not be.

    No file is changed in place, so two folders can hold the same one.
    """
    names = _relative_names(source)
    for name in names:
        target = folder / name
        if target.exists() and target.samefile(source / name):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as draft:
            try:
                os.link(source / name, draft)
            except OSError:  # a disk that cannot
                shutil.copyfile(source / name, draft)
    _remove(folder, _relative_names(folder) - names)


def inherit_checkpoint(parent: Path, folder: Path) -> None:
    """Give a trial the files of another one that it trains on, unless it has a checkpoint."""
    from hpsearch.training.trial import CHECKPOINT_FILE

    if not (folder / CHECKPOINT_FILE).exists():
        hardlink_files(parent, folder)


def _relative_names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".part"
    }


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink()


ATTEMPTS_DIR = "attempts"
"""Folder next to that of the trials: files of running trials, one folder for each attempt."""
ATTEMPT_MARKER, SHUTDOWN_MARKER = ".latest", "over"
"""There: the latest start of a trial, by its name, and that the session is about to end."""


class StaleAttemptError(ConnectionError):
    """A trial has been started once more, elsewhere; what this one does is of no interest."""


class CheckpointStore:
    """Actor on the driver's node; it alone writes to the folders of trials."""

    def __init__(self, store: Path, trials: Path, *others: Path) -> None:
        self._store_paths, self._trials = (store, *others), trials
        self._attempts = trials.with_name(ATTEMPTS_DIR)
        self._store_refs: dict[int, Any] = {}
        # what this session has done so far, if it is another process that did it
        self._attempt_ids = {
            p.stem: p.read_text("utf-8") for p in self._attempts.glob(f"*{ATTEMPT_MARKER}")
        }
        self._memory: dict[str, MemoryState] = {}
        self._shutting_down = (self._attempts / SHUTDOWN_MARKER).exists()

    def patch_store(self, number: int = 0) -> list[Any]:
        """A reference, in a list so that Ray does not resolve it, to the bytes of a store.

        Args:
            number: 0 for the store that is trained on, 1 for another that is validated on.
        """
        if number not in self._store_refs:
            content = np.fromfile(self._store_paths[number], np.uint8)
            self._store_refs[number] = ray.put(content)
        return [self._store_refs[number]]

    def begin_attempt(self, trial: str) -> str:
        """A name for a trial's new start; from now on nothing is taken from earlier ones."""
        self._attempt_ids[trial] = uuid.uuid4().hex
        self._memory.pop(trial, None)
        write_atomic(self._attempts / f"{trial}{ATTEMPT_MARKER}", self._attempt_ids[trial])
        return self._attempt_ids[trial]

    def record_memory(self, trial: str, state: MemoryState) -> None:
        """Keep the memory of the machine that a trial runs on."""
        self._memory[trial] = state

    def memory_state(self, trial: str) -> MemoryState | None:
        """Memory of the machine that a trial last ran on; None if it is not known."""
        return self._memory.get(trial)

    def announce_shutdown(self) -> None:
        """Trials that run are to save and leave: the session ends."""
        self._shutting_down = True
        write_atomic(self._attempts / SHUTDOWN_MARKER, "")

    def is_shutting_down(self) -> bool:
        """True if workers should save and exit, because the session is shutting down."""
        return self._shutting_down

    def load_files(self, trial: str) -> FileContents:
        """Latest files of a trial."""
        return read_files(self._trials / trial)

    def save_files(self, trial: str, attempt_id: str, files: FileContents | Path) -> None:
        """Replace a trial's files with those that were sent, or that lie in a folder.

        Raises:
            StaleAttemptError: if they are not of its latest start.
        """
        if attempt_id != self._attempt_ids.get(trial):
            raise StaleAttemptError(
                f"trial {trial} was resumed elsewhere; this attempt of it is over"
            )
        if isinstance(files, Path):
            hardlink_files(files, self._trials / trial)
        else:
            replace_files(self._trials / trial, files)


class StoreFile(NamedTuple):
    """Path of a patch store on the driver's machine, and its fingerprint."""

    path: Path
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class TrialPayload:
    """A job as it is sent to workers, which may lie on machines without the driver's disk."""

    store_path: Path
    fingerprint: str
    job_fields: dict[str, Any]
    """Other fields of the environment."""
    checkpoints_dir: Path
    """Folder of the checkpoints, on the driver's machine."""
    record_digest: str
    """Digest of the search's record, to detect a machine that sees the driver's folder."""
    store_actor: Any
    """Handle of the actor."""
    validation_store: StoreFile | None = None
    """Another store that is validated on."""
    validation_points: np.ndarray | None = None
    """Its points that are validated on."""
    validation_names: tuple[str, ...] = ()

    def environment(self) -> "TrialEnvironment":
        """The job, with its patch store mapped from disk or from Ray's object store.

        Raises:
            UserError: if the file at the store's path holds other patches than the driver's.
        """
        from hpsearch.training.trial import TrialEnvironment

        store = self._open_store(StoreFile(self.store_path, self.fingerprint), 0)
        validation_on = None
        if self.validation_store is not None:
            other = self._open_store(self.validation_store, 1)
            assert self.validation_points is not None, "they come with the store"
            validation_on = Patches(other, self.validation_points, self.validation_names)
        return TrialEnvironment(store=store, validation_on=validation_on, **self.job_fields)

    @contextmanager
    def checkpoint_dir(self, trial: str) -> Iterator["CheckpointDir"]:
        """Folder for a trial's checkpoints while it runs here, with its latest ones in it."""
        start = _ray_get(self.store_actor.begin_attempt.remote(trial))
        seen = digest_of_record(self.checkpoints_dir.parent) == self.record_digest
        attempts = self.checkpoints_dir.with_name(ATTEMPTS_DIR) if seen else None
        if attempts is not None:
            attempts.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"hpsearch-{trial}-", dir=attempts))
        try:
            if seen:
                hardlink_files(self.checkpoints_dir / trial, scratch)
            else:
                write_files(scratch, _ray_get(self.store_actor.load_files.remote(trial)))
            yield CheckpointDir(scratch, trial, start, self.store_actor, seen)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def record_memory(self, trial: str, state: MemoryState) -> None:
        """Send the memory of this machine, without waiting for an answer."""
        self.store_actor.record_memory.remote(trial, state)

    def was_killed_for_memory(self, trial: str) -> bool:
        """True if the worker of a trial died because its machine ran out of memory."""
        try:
            before: Any = ray.get(
                self.store_actor.memory_state.remote(trial), timeout=PROBE_TIMEOUT_S
            )
        except RayError:
            return False
        return was_killed_for_memory(before)

    def is_shutting_down(self) -> bool:
        """True if the session that sent this is shutting down; False without an answer."""
        try:
            return _ray_get(self.store_actor.is_shutting_down.remote())
        except (ConnectionError, RayError):
            return False

    def _open_store(self, file: StoreFile, number: int) -> PatchStore:
        if file.path.is_file():
            store = PatchStore.open(file.path)
        else:
            content = ray.get(_ray_get(self.store_actor.patch_store.remote(number))[0])
            store = PatchStore.open(file.path, pa.py_buffer(content))
        if store.fingerprint != file.fingerprint:
            raise UserError(
                f"{file.path} holds other patches here than on the driver's machine; give "
                "every "
                "machine the same store, or none"
            )
        return store


@dataclass(frozen=True)
class CheckpointDir:
    """A trial's folder on this machine, for one start of it."""

    path: Path
    trial: str
    attempt_id: str
    store_actor: Any
    on_shared_filesystem: bool
    """True if the driver's machine sees the folder too."""

    def upload(self) -> None:
        """Put what has been written where a later start of the trial finds it.

        Raises:
            StaleAttemptError: if there has been a later start already.
            ConnectionError: if the driver's machine does not answer.
        """
        from hpsearch.training.trial import PREVIOUS_CHECKPOINT_FILE

        # the store itself keeps the checkpoint before the latest, so that it is sent only once
        files = self.path if self.on_shared_filesystem else {
            name: content
            for name, content in read_files(self.path).items()
            if Path(name).name != PREVIOUS_CHECKPOINT_FILE
        }  # fmt: skip
        _ray_get(self.store_actor.save_files.remote(self.trial, self.attempt_id, files))


def _ray_get(reference: Any) -> Any:
    """Result of a call to the actor; an unreachable actor is a transient error."""
    try:
        return ray.get(reference)
    except RayActorError as error:
        raise ConnectionError("the driver's machine does not answer") from error


def create_payload(job: "TrialEnvironment", folder: Path, trials: Path) -> TrialPayload:
    """Make the payload of a search, and start the actor on the driver's node."""
    shutil.rmtree(trials.with_name(ATTEMPTS_DIR), ignore_errors=True)  # of a driver that died
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(CheckpointStore).options(
        num_cpus=0, scheduling_strategy=here, max_restarts=-1, max_task_retries=-1
    )
    separate = ("store", "validation_on")
    rest = {f.name: getattr(job, f.name) for f in fields(job) if f.name not in separate}
    other = job.validation_on
    others = [] if other is None else [other.store.path.absolute()]
    return TrialPayload(
        store_path=job.store.path.absolute(),
        fingerprint=job.store.fingerprint,
        job_fields=rest,
        checkpoints_dir=trials.absolute(),
        record_digest=digest_of_record(folder),
        store_actor=actor.remote(job.store.path.absolute(), trials.absolute(), *others),
        validation_store=None if other is None else StoreFile(others[0], other.store.fingerprint),
        validation_points=None if other is None else other.points,
        validation_names=() if other is None else other.names,
    )


def digest_of_record(folder: Path) -> str:
    """Digest of the record in a search's folder; empty if there is none."""
    path = folder / "search.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
