"""Feeds MLflow from the ledger: one parent run a search, one child run a trial.

It runs beside the search in a thread of its own. A slow or dead tracking server holds up nothing:
what happened waits in the ledger and is sent in order when the server answers. Runs are found again
by their tags, so sending from the start again does no harm.
"""

import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from hpsearch.tracking.courier import Courier, Delivery, Progress
from hpsearch.tracking.ledger import Ledger
from hpsearch.tracking.mirror import Mirror
from hpsearch.tracking.names import NOTE, SPACE
from hpsearch.tracking.position import Position, PositionFile
from hpsearch.tracking.refusals import TrackingError, sentence
from hpsearch.tracking.server import EXPERIMENT, Tracking

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
        self._file = PositionFile(self.position)
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
        self._open.mirror.client.set_tag(self._id(trial), NOTE, text)

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
        known = self._file.read(self.tracking.shown)
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
        self._file.write(self.tracking.shown, Position())

    def _keep(self) -> None:
        if self._courier is None:
            return
        before = self._file.read(self.tracking.shown)
        offset = self._heard if self._all_sent else before.offset
        now = Position(offset, self._courier.mirror.ids)
        if now != before:
            self._file.write(self.tracking.shown, now)

    @property
    def _open(self) -> Courier:
        assert self._courier is not None, "sync opens the connection"
        return self._courier
