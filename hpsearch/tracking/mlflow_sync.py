"""Outbox relay: sends the event log to MLflow, exactly once, through outages."""

import fcntl
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException

from hpsearch.atomic_files import write_atomic
from hpsearch.errors import UserError
from hpsearch.schema import NewerSchema, from_json, to_json
from hpsearch.tracking.connection import TrackingServer
from hpsearch.tracking.event_log import EventLog
from hpsearch.tracking.mlflow_errors import TrackingError, format_error
from hpsearch.tracking.mlflow_run_index import MlflowRunIndex
from hpsearch.tracking.mlflow_tags import EXPERIMENT, NOTE_TAG, SPACE_NAME
from hpsearch.tracking.mlflow_writer import MlflowWriter, SyncProgress, SyncResult


@dataclass
class SyncState:
    """State of the synchronization with one server."""

    offset: int = 0
    """Bytes of the event log that have been sent completely."""
    runs: dict[str, str] = field(default_factory=dict)
    """MLflow's run ids by trial id; the empty id is the search's own run."""


FileVersion = tuple[int, int] | None
"""Inode and time of change of a file; None if there is none."""


@dataclass(frozen=True)
class SyncStateFile:
    """File of sync states by server. A cache: if missing, it is rebuilt by querying MLflow."""

    path: Path
    renamed: Callable[[str], str] = str
    """Function from a recorded server address to the present one."""

    def read(self, server: str) -> SyncState:
        """Read the state of one server; an empty state if it is unknown."""
        known = self._read_all().get(server)
        return SyncState(known["offset"], dict(known["runs"])) if known else SyncState()

    def write(self, server: str, state: SyncState) -> None:
        """Write the state of one server atomically; those of other servers are kept."""
        every = self._read_all()
        every[server] = {"offset": state.offset, "runs": state.runs}
        write_atomic(self.path, to_json(every))  # indented, it would take ten times as long

    def version(self) -> FileVersion:
        """Version of the file, which differs after each write."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock that lets one process send at a time, so that no run is created twice."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _read_all(self) -> dict[str, Any]:
        try:
            found = from_json(self.path.read_text("utf-8"), self.path)
            known = {key: value for key, value in found.items() if _is_position(value)}
            return {self.renamed(key): value for key, value in known.items()}
        except NewerSchema:
            raise
        except (
            OSError,
            ValueError,
            AttributeError,
            TypeError,
            KeyError,
            RecursionError,
            UserError,
        ):
            return {}


def _is_position(value: Any) -> bool:
    offset, runs = value["offset"], value["runs"]
    texts = all(isinstance(text, str) for pair in runs.items() for text in pair)
    return texts and type(offset) is int and 0 <= offset < 2**62


__all__ = ["EXPERIMENT", "MlflowSync", "SyncResult", "TrackingError", "TrackingServer"]

SYNC_INTERVAL_S = 2.0
"""Seconds between two deliveries; each costs the processor that trials train on."""
MAX_RETRY_WAIT_S = 10.0
"""Maximum seconds between two attempts while the server does not answer."""


@dataclass
class MlflowSync:
    """Sends the event log to MLflow: ``sync`` at once, ``start`` continuously in a thread."""

    event_log: EventLog
    tracking: TrackingServer
    search: str
    state_path: Path
    """File with the sync state of each server."""
    last_error: str = ""
    """Reason in one sentence why not everything has been sent; empty if there is none."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._sync_lock = threading.Lock()
        self._state_file = SyncStateFile(self.state_path, self.tracking.renamed)
        self._writer: MlflowWriter | None = None
        self._offset = 0
        self._synced = False
        self._saved: SyncState | None = None
        """State in the file, as this process read or wrote it last."""
        self._saved_version: FileVersion = None

    def sync(self, *, full: bool = False, progress: SyncProgress | None = None) -> SyncResult:
        """Send everything that has not been sent.

        Args:
            full: compare with MLflow and send what is missing, for a server that has lost data
                or on which a run was deleted.
            progress: called after each trial.

        Raises:
            MlflowException: if the tracking server refuses or does not answer.
        """
        with self._sync_lock, self._state_file.lock():
            self._synced = False
            if full or self._writer is None:
                self._writer = None
                self._writer = self._open_full() if full else self._load_state()
            elif self._state_file.version() != self._saved_version:
                self._writer.may_have_duplicates = True  # another process has sent something
            events, self._offset = self.event_log.read(self._offset)
            for event in events:
                self._writer.search_state.apply(event)
            try:
                delivery = self._writer.flush(progress)
                self._synced = True
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" and not full:
                    self._reset()  # the server has lost the runs; create them at the next attempt
                raise
            finally:
                self._save_state()
            return delivery

    def start(self) -> None:
        """Send new events in a thread until ``stop``."""
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()

    def stop(self, *, timeout: float = 30.0) -> bool:
        """Send what is left for at most ``timeout`` seconds.

        Returns:
            Whether everything has been sent.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        return self._synced and not self.event_log.read(self._offset)[0]

    @property
    def search_run_id(self) -> str:
        """MLflow run id of the search."""
        return self._opened.run_index.run_id(None)

    def run_id(self, trial: str) -> str:
        """MLflow run id of a trial in the event log."""
        return self._opened.run_index.run_id(self._opened.search_state.runs[trial])

    def log_files(self, trial: str | None, files: Mapping[str, bytes]) -> None:
        """Upload files to a trial's run, or to the search's (None), by their artifact paths."""
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._opened.run_index.client.log_artifacts(self._run_id(trial), folder)

    def set_description(self, text: str, *, trial: str | None = None) -> None:
        """Set the description (Markdown) of a trial's run, or of the search's (None)."""
        note = text.replace("<", "&lt;")  # descriptions contain no HTML
        self._opened.run_index.client.set_tag(self._run_id(trial), NOTE_TAG, note)

    def log_search_metric(self, name: str, value: float) -> None:
        """Log a metric of the whole search to its run."""
        self._opened.run_index.client.log_metric(self.search_run_id, name, value)

    def _run_id(self, trial: str | None) -> str:
        return self.search_run_id if trial is None else self.run_id(trial)

    def _follow(self) -> None:
        wait = SYNC_INTERVAL_S
        while True:
            stopping = self._stop.is_set()
            try:
                self.sync()
                wait, self.last_error = SYNC_INTERVAL_S, ""
            except (
                Exception
            ) as error:  # training continues whatever the error is; the next attempt may succeed
                self.last_error = format_error(error, self.tracking.uri)
                wait = min(2 * wait, MAX_RETRY_WAIT_S)
            if stopping:
                return
            self._stop.wait(wait)

    def _open_full(self) -> MlflowWriter:
        writer = self._new_writer({})
        writer.run_index.refresh()
        self._offset = 0
        return writer

    def _load_state(self) -> MlflowWriter:
        """Load what an earlier process has sent."""
        known = self._state_file.read(self.tracking.recorded)
        writer = self._new_writer(known.runs)
        for event in self.event_log.events_until(known.offset):
            writer.search_state.apply(event)
        writer.mark_synced()
        self._offset = known.offset
        return writer

    def _new_writer(self, runs: dict[str, str]) -> MlflowWriter:
        run_index = MlflowRunIndex(
            self.tracking, self.search, self.event_log.search_id(), dict(runs)
        )
        return MlflowWriter(run_index, self.event_log.path.with_name(SPACE_NAME))

    def _reset(self) -> None:
        self._writer, self._saved = None, None
        self._state_file.write(self.tracking.recorded, SyncState())

    def _save_state(self) -> None:
        if self._writer is None:
            return
        before = self._saved or self._state_file.read(self.tracking.recorded)
        offset = self._offset if self._synced else before.offset
        now = SyncState(offset, dict(self._writer.run_index.ids))
        if now != before:
            self._state_file.write(self.tracking.recorded, now)
        self._saved, self._saved_version = now, self._state_file.version()

    @property
    def _opened(self) -> MlflowWriter:
        assert self._writer is not None, "sync opens the connection"
        return self._writer
