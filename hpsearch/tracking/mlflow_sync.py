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

from hpsearch.atomic_files import write_whole
from hpsearch.errors import UserError
from hpsearch.schema import NewerSchema, from_json, to_json
from hpsearch.tracking.connection import Tracking, TrackingError, sentence
from hpsearch.tracking.event_log import Ledger
from hpsearch.tracking.mlflow_tags import EXPERIMENT, NOTE, SPACE
from hpsearch.tracking.mlflow_writer import Courier, Delivery, Mirror, Progress


@dataclass
class Position:
    """What one server is known to have."""

    offset: int = 0
    """Bytes of the ledger that have been sent in whole."""
    runs: dict[str, str] = field(default_factory=dict)
    """MLflow's run ids by trial; the search's own under the empty name."""


@dataclass(frozen=True)
class PositionFile:
    """Positions by server. It is a memory, not the truth: without it, all is found again."""

    path: Path
    renamed: Callable[[str], str] = str
    """What a server is called today, by what the file calls it."""

    def read(self, server: str) -> Position:
        """The position at one server; the beginning if nothing is known of it."""
        known = self._all().get(server)
        return Position(known["offset"], dict(known["runs"])) if known else Position()

    def write(self, server: str, position: Position) -> None:
        """Keep a position, those at other servers too; a reader sees all of it or nothing."""
        every = self._all()
        every[server] = {"offset": position.offset, "runs": position.runs}
        write_whole(self.path, to_json(every, indent=1))

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time sends, so that no two make the same run."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _all(self) -> dict[str, Any]:
        try:
            found = from_json(self.path.read_text(), self.path)
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


__all__ = ["EXPERIMENT", "Delivery", "Publisher", "Tracking", "TrackingError"]

LONGEST_WAIT = 10.0
"""Seconds between two tries while the server does not answer."""


@dataclass
class Publisher:
    """Sends what the ledger says to MLflow; ``sync`` does it now, ``start`` does it in a thread."""

    ledger: Ledger
    tracking: Tracking
    search: str
    position: Path
    """File that remembers how far the ledger has been sent."""
    last_error: str = ""
    """Why not everything has been sent, in one sentence."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()
        self._file = PositionFile(self.position, self.tracking.renamed)
        self._courier: Courier | None = None
        self._heard = 0
        self._all_sent = False

    def sync(self, *, again: bool = False, progress: Progress | None = None) -> Delivery:
        """Send everything that has not been sent.

        Args:
            again: compare with what MLflow has and send what is missing, to a server that has
                lost something or from which a run was deleted.
            progress: called after each trial.

        Raises:
            MlflowException: if the tracking server refuses or does not answer.
        """
        with self._turn, self._file.held():
            self._all_sent = False
            if again or self._courier is None:
                self._courier = None
                self._courier = self._begin_again() if again else self._go_on()
            events, self._heard = self.ledger.read(self._heard)
            for event in events:
                self._courier.told.hear(event)
            try:
                delivery = self._courier.deliver(progress)
                self._all_sent = True
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST" and not again:
                    self._forget()  # the server has lost our runs: the next try makes them again
                raise
            finally:
                self._keep()
            return delivery

    def start(self) -> None:
        """Follow the ledger until ``stop``."""
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()

    def stop(self, *, patience: float = 30.0) -> bool:
        """Send what is left, for at most ``patience`` seconds; whether everything has been sent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(patience)
            if self._thread.is_alive():
                return False
        return self._all_sent and not self.ledger.read(self._heard)[0]

    @property
    def parent(self) -> str:
        """Run id of the search."""
        return self._open.mirror.run_id(None)

    def run_id(self, trial: str) -> str:
        """Run id of a trial that the ledger knows."""
        return self._open.mirror.run_id(self._open.told.runs[trial])

    def attach(self, trial: str | None, files: Mapping[str, bytes]) -> None:
        """Store files with a trial's run, or with the search's (None), by their paths there."""
        if not files:
            return
        with tempfile.TemporaryDirectory() as folder:
            for name, content in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self._open.mirror.client.log_artifacts(self._id(trial), folder)

    def describe(self, text: str, *, trial: str | None = None) -> None:
        """Set what MLflow shows first on the page of a trial, or of the search (Markdown)."""
        note = text.replace("<", "&lt;")  # nothing of ours is HTML
        self._open.mirror.client.set_tag(self._id(trial), NOTE, note)

    def _id(self, trial: str | None) -> str:
        return self.parent if trial is None else self.run_id(trial)

    def _follow(self) -> None:
        wait = 0.5
        while True:
            stopping = self._stop.is_set()
            try:
                self.sync()
                wait, self.last_error = 0.5, ""
            except Exception as error:  # whatever it is, training goes on and the next try may do
                self.last_error = sentence(error, self.tracking.uri)
                wait = min(2 * wait, LONGEST_WAIT)
            if stopping:
                return
            self._stop.wait(wait)

    def _begin_again(self) -> Courier:
        courier = self._new_courier({})
        courier.mirror.look()
        self._heard = 0
        return courier

    def _go_on(self) -> Courier:
        """Know what has been sent already, by an earlier process."""
        known = self._file.read(self.tracking.recorded)
        courier = self._new_courier(known.runs)
        for event in self.ledger.events_until(known.offset):
            courier.told.hear(event)
        courier.assume_delivered()
        self._heard = known.offset
        return courier

    def _new_courier(self, runs: dict[str, str]) -> Courier:
        mirror = Mirror(self.tracking, self.search, self.ledger.identity(), dict(runs))
        return Courier(mirror, self.ledger.path.with_name(SPACE))

    def _forget(self) -> None:
        self._courier = None
        self._file.write(self.tracking.recorded, Position())

    def _keep(self) -> None:
        if self._courier is None:
            return
        before = self._file.read(self.tracking.recorded)
        offset = self._heard if self._all_sent else before.offset
        now = Position(offset, self._courier.mirror.ids)
        if now != before:
            self._file.write(self.tracking.recorded, now)

    @property
    def _open(self) -> Courier:
        assert self._courier is not None, "sync opens the connection"
        return self._courier
