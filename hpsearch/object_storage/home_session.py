"""Access to a home in an object store: the folder that mirrors it while a command works there.

A command that reads brings the folder up to date, at first and while it runs. One that writes
takes the lease, and a thread commits what has changed every ``PASS_S`` seconds; the last pass is
made, and the lease given back, before it reports its end.
"""

import fcntl
import hashlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Literal

from hpsearch.atomic_files import acquire_lock, is_locked, make_private
from hpsearch.errors import UserError
from hpsearch.locations import remote_address
from hpsearch.object_storage.lease import DRIVER_LOCK, LeaseLostError
from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.object_store import ObjectStore, StoreUnavailableError

CACHE_ENV = "HPSEARCH_CACHE"
PASS_S = 5.0
"""Pause between two passes; what a driver's disk loses at most, while the store answers."""
RENEW_S = 20.0
PULL_LOCK = ".mirror.pull.lock"
"""File that a process holds locked while it brings the folder up to date."""
LAST_READ_S = 25.0
"""Longest wait for the thread of a reading command at its end."""
Access = Literal["write", "read", "steer"]
logger = logging.getLogger(__name__)


def cache_folder(address: str) -> Path:
    """Folder on this machine that mirrors the home at an address."""
    root = os.environ.get(CACHE_ENV) or Path.home() / ".cache" / "hpsearch"
    return Path(root) / "homes" / hashlib.sha256(address.encode()).hexdigest()[:16]


@contextmanager
def open_home(
    address: str | Path, *, access: Access = "write", light: bool = False
) -> Iterator[Path]:
    """Local folder of a home; an address in an object store is mirrored while the block runs.

    Args:
        address: a folder, which is returned as it is, or ``s3://BUCKET/PREFIX``.
        access: ``write`` holds the lease; ``read`` keeps the folder up to date; ``steer`` writes,
            or, while another process does, reads and sends requests to that one.
        light: whether checkpoints, patch stores and artifacts can be left out.

    Raises:
        UserError: if the store refuses, does not answer, or another driver holds the lease.

    Example:
        >>> with open_home("runs") as home:
        ...     home
        PosixPath('runs')
    """
    remote = remote_address(address)
    if remote is None:
        yield Path(address)
        return
    if not remote.startswith("s3://"):
        logger.warning("homes at %s have not been tried", remote.partition("//")[0] + "//")
    mirror = Mirror(cache_folder(remote), ObjectStore(remote), light=light)
    session = HomeSession(mirror)
    opened = {"write": session.writing, "read": session.reading, "steer": session.steering}[access]
    with opened():
        yield mirror.folder


class HomeSession:
    """One command's work in the folder that mirrors a home.

    Args:
        mirror: the folder and its commit log.
    """

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self._stop, self._failure = threading.Event(), list[UserError]()
        self._warned = ""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Bring the folder up to date, and again every ``PASS_S`` seconds until the block ends.

        Nothing is fetched while a driver of this machine writes there: it already is.

        Raises:
            UserError: if the store does not answer or its content is damaged.
        """
        self.refresh()
        with self._repeating((self.refresh, PASS_S), patience=LAST_READ_S):
            yield

    @contextmanager
    def steering(self) -> Iterator[None]:
        """As ``writing``; while another process does, as ``reading``.

        Raises:
            UserError: if the store does not answer or its content is damaged.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(self.writing())
            except UserError as error:
                if error.code != "home-in-use":
                    raise
                self.mirror.light = True
                stack.enter_context(self.reading())
            yield

    def refresh(self) -> None:
        """Bring the folder up to date; while a driver of this machine writes there, it already is.

        Raises:
            UserError: if the store does not answer or its content is damaged.
        """
        make_private(self.mirror.folder)
        with self._updating():
            if not is_locked(self.mirror.folder / DRIVER_LOCK):
                self.mirror.pull()

    @contextmanager
    def _updating(self) -> Iterator[None]:
        """Wait until no other process updates the folder, and let none do so in the block."""
        with (self.mirror.folder / PULL_LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lease, and commit what changes in the folder, until the block ends.

        Raises:
            UserError: if another process holds the home, or something could not be committed.
        """
        make_private(self.mirror.folder)
        with self._driver_lock():
            self.mirror.log.load()
            self.mirror.log.refuse_held()
            with self._updating():
                self.mirror.pull()
            self.mirror.begin()
            try:
                self.mirror.take_requests()
                with self._repeating((self.mirror.push, PASS_S), (self.mirror.renew, RENEW_S)):
                    yield
            finally:
                self._finish()

    def _driver_lock(self) -> IO[str]:
        file = (self.mirror.folder / DRIVER_LOCK).open("w")
        try:
            acquire_lock(file, fcntl.LOCK_EX)
        except OSError as error:
            file.close()
            raise UserError(
                f"{self.mirror.log.store.address} is in use by another process of this machine; "
                "wait for its end, or stop it with Ctrl-C there",
                code="home-in-use",
            ) from error
        return file

    @contextmanager
    def _repeating(
        self, *works: tuple[Callable[[], None], float], patience: float | None = None
    ) -> Iterator[None]:
        """Repeat work in threads until the block ends."""
        threads = [threading.Thread(target=self._repeat, args=w, daemon=True) for w in works]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(patience)

    def _finish(self) -> None:
        """Commit the rest and give the lease back.

        Raises:
            UserError: if that failed; the folder then holds what is missing.
        """
        for failure in self._failure:
            raise failure
        try:
            self.mirror.finish()
        except StoreUnavailableError as error:
            raise StoreUnavailableError(
                f"{error}; what is not there yet lies in {self.mirror.folder}"
            ) from error

    def _repeat(self, work: Callable[[], None], pause: float) -> None:
        """Repeat work until the end; a driver that was overtaken is asked to save and end."""
        while not self._stop.wait(pause):
            try:
                work()
                self._warned = ""
            except LeaseLostError as error:
                self._failure.append(error)
                logger.error("%s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except (UserError, OSError) as error:
                if str(error) != self._warned:
                    logger.warning("%s is not up to date: %s", self.mirror.log.store.address, error)
                self._warned = str(error)
