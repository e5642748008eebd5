"""Atomic file writes, checks of targets before work begins, and files that carry a checksum."""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from hpsearch.errors import DISK_FULL_ERRNOS, UserError

DISK_FULL_MESSAGES = ("No space left on device", "Disk quota exceeded")
"""Texts of those error codes, for errors that arrive as text only."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a draft file in the same folder, which replaces ``path`` when the block ends.

    If the block raises, the draft is removed and ``path`` is unchanged. A draft that a killed
    process left is removed first: it may be a second name of a file that is in use.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp(), "plan.json")
        >>> with atomic_write(target) as draft:
        ...     _ = draft.write_text("{}")
        >>> target.read_text("utf-8")
        '{}'
    """
    draft = path.with_name(f"{path.name}.part")
    draft.unlink(missing_ok=True)
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes, *, private: bool = False) -> None:
    """Replace the content of a file atomically; its folder is created if it is missing.

    Args:
        path: the file.
        content: the new content; text is encoded as UTF-8.
        private: whether only the owner may read the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        draft.touch(mode=0o600 if private else 0o666)
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


PROBE_BYTES = 64 * 1024
"""Bytes that a disk must take in the probe of a target; a file system may keep small ones aside."""


def check_target_file(path: Path, option: str) -> None:
    """Check before work that a file can be written; nothing is left behind.

    Args:
        path: the file; it may exist, and its folder need not.
        option: command-line option that gives the path, such as ``--output``.

    Raises:
        UserError: if it is an address or a folder, or cannot be created or replaced.
    """
    _refuse_address(path, option)
    if path.is_dir():
        raise UserError(
            f"{path} is a folder; give {option} the path of a file", code="target-is-folder"
        )
    if _exists(path) and not path.is_file():
        return  # a device or a pipe, such as /dev/stdout
    _check_takes_files(path, path.parent, option)


def check_target_folder(path: Path, option: str) -> None:
    """Check before work that files can be written into a folder; nothing is left behind.

    Args:
        path: the folder, which need not exist.
        option: command-line option that gives the path, such as ``--home``.

    Raises:
        UserError: if it is an address or a file, or cannot be created or written.
    """
    _refuse_address(path, option)
    if _exists(path) and not path.is_dir():
        raise UserError(
            f"{path} is a file; give {option} the path of a folder", code="target-is-file"
        )
    _check_takes_files(path, path, option)


ADDRESS = re.compile(r"(?i)[a-z][a-z0-9+.-]+:/")
"""Beginning of an address, also of one that a ``Path`` has taken one slash from."""


def _refuse_address(path: Path, option: str) -> None:
    if ADDRESS.match(str(path)):
        raise UserError(
            f"{path} is an address, and {option} takes a path on this machine; write it to a file, "
            "and copy that there",
            code="target-is-address",
        )


def _check_takes_files(target: Path, folder: Path, option: str) -> None:
    """Create a file in a folder, and its missing parents, and remove them again.

    Permissions alone are not enough to know: the disk may be full, read-only, or no disk at all.
    """
    missing = [place for place in (folder, *folder.parents) if not _exists(place)]
    probe = folder / f".hpsearch-{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as error:
        cause = error.strerror or str(error)
        raise UserError(
            f"{target} cannot be written ({cause[0].lower()}{cause[1:]}); choose another path with "
            f"{option}",
            code="disk-full" if is_disk_full(error) else "cannot-write",
        ) from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
            for place in missing:
                place.rmdir()


def _exists(path: Path) -> bool:
    """Return whether a path exists; one that cannot be looked up counts as missing."""
    try:
        return path.exists()
    except OSError:
        return False


def write_target(path: Path, content: str | bytes) -> None:
    """Write a file that the user named, atomically; a device or a pipe is written directly."""
    if _exists(path) and not path.is_file():
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    else:
        write_atomic(path, content)


def make_private(folder: Path) -> None:
    """Create a folder that only its owner may enter; an existing folder is left unchanged."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Return True if the error, or any error in its chain of causes, reports a full disk."""
    return any(
        getattr(cause, "errno", None) in DISK_FULL_ERRNOS
        or any(message in str(cause) for message in DISK_FULL_MESSAGES)
        for cause in _cause_chain(error)
    )


def _cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


DIGEST_BYTES = 32
"""Length of the SHA-256 digest at the end of a file with a checksum."""


def checksum(payload: bytes | pa.Buffer) -> bytes:
    """SHA-256 digest of a payload, ``DIGEST_BYTES`` long."""
    return hashlib.sha256(payload).digest()


def verify_checksum(stored: pa.Buffer) -> pa.Buffer | None:
    """Payload in front of the digest, without copying; None if the digest does not match."""
    if stored.size < DIGEST_BYTES:
        return None
    payload = stored.slice(0, stored.size - DIGEST_BYTES)
    same = checksum(payload) == stored.slice(stored.size - DIGEST_BYTES).to_pybytes()
    return payload if same else None


def write_with_checksum(path: Path, payload: bytes) -> None:
    """Replace a file by a payload and its digest, atomically.

    Raises:
        OSError: if the file cannot be written; it is then unchanged, and no draft is left.
    """
    with atomic_write(path) as draft, draft.open("wb") as file:
        file.write(payload)
        file.write(checksum(payload))


def read_with_checksum(path: Path) -> bytes | None:
    """Payload of a file that ``write_with_checksum`` wrote; None if it is missing or damaged.

    Raises:
        OSError: if the file exists and cannot be read.
    """
    try:
        found = verify_checksum(pa.py_buffer(path.read_bytes()))
    except FileNotFoundError:
        return None
    return None if found is None else found.to_pybytes()


LOCK_ATTEMPTS, LOCK_PAUSE_S = 5, 0.05
"""Attempts at the lock of a search, which a command that asks for its state holds for a moment."""


def acquire_lock(file: IO[Any], kind: int) -> None:
    """Lock a file without waiting for a process that holds it for long.

    Args:
        file: the open file.
        kind: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.

    Raises:
        OSError: if another process holds it.
    """
    for attempt in range(LOCK_ATTEMPTS):
        try:
            return fcntl.flock(file, kind | fcntl.LOCK_NB)
        except OSError:
            if attempt == LOCK_ATTEMPTS - 1:
                raise
            time.sleep(LOCK_PAUSE_S)


def try_lock(path: Path) -> IO[str] | None:
    """Lock a file, which is created if it is missing, until the returned file is closed.

    Returns:
        The open file; None if another process holds its lock.
    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def is_locked(path: Path) -> bool:
    """Return True if a process of this machine holds the lock of a file, alone or shared.

    Another call of this function holds it for a moment only, which is waited for.
    """
    try:
        with path.open("rb") as file:
            acquire_lock(file, fcntl.LOCK_EX)
    except BlockingIOError:
        return True
    except OSError:  # no lock yet, or a file system without locks
        return False
    return False


def is_alive(pid: int) -> bool:
    """Return whether a process of this machine runs, also one of another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
