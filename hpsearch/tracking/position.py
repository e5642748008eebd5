"""How far a ledger has been sent to each tracking server, and into which runs; a file."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpsearch.files import write_whole


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

    def read(self, server: str) -> Position:
        """The position at one server; the beginning if nothing is known of it."""
        known = self._all().get(server)
        return Position(known["offset"], dict(known["runs"])) if known else Position()

    def write(self, server: str, position: Position) -> None:
        """Keep a position, those at other servers too; a reader sees all of it or nothing."""
        every = self._all()
        every[server] = {"offset": position.offset, "runs": position.runs}
        write_whole(self.path, json.dumps(every, indent=1))

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time sends, so that no two make the same run."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _all(self) -> dict[str, Any]:
        try:
            found = json.loads(self.path.read_text())
            return {key: value for key, value in found.items() if {"offset", "runs"} <= set(value)}
        except (OSError, ValueError, AttributeError, TypeError):
            return {}
