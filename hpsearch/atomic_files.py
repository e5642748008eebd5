"""Atomic file writes, and files that carry a checksum."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL_MESSAGES = ("No space left on device", "Disk quota exceeded")
"""What the system calls them, for whoever has the text alone."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A draft to write beside ``path``, which it replaces when the block ends.

    If the block raises, the draft is removed and what stood at ``path`` still does. A draft that a
    killed process left is removed first: it may be a second name of a file that is in use.
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
    """Replace a file's content, and make its folder if need be.

    Args:
        private: whether only its owner may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft:
        draft.touch(mode=0o600 if private else 0o666)
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether the cause, however far down, is a disk without room."""
    return any(
        getattr(cause, "errno", None) in DISK_FULL_ERRNOS
        or any(words in str(cause) for words in DISK_FULL_MESSAGES)
        for cause in _cause_chain(error)
    )


def _cause_chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


DIGEST_BYTES = 32
"""Bytes of the SHA-256 that end what is sealed."""


def checksum(payload: bytes | pa.Buffer) -> bytes:
    """What a payload is sealed with."""
    return hashlib.sha256(payload).digest()


def verify_checksum(stored: pa.Buffer) -> pa.Buffer | None:
    """The payload, without copying; None if it is not as it was when it was sealed."""
    if stored.size < DIGEST_BYTES:
        return None
    payload = stored.slice(0, stored.size - DIGEST_BYTES)
    same = checksum(payload) == stored.slice(stored.size - DIGEST_BYTES).to_pybytes()
    return payload if same else None


def write_with_checksum(path: Path, payload: bytes) -> None:
    """Replace a file, which a reader sees as it was or as it is now.

    Raises:
        OSError: if it cannot be written; the file is then as it was, and no draft is left.
    """
    with atomic_write(path) as draft, draft.open("wb") as file:
        file.write(payload)
        file.write(checksum(payload))


def read_with_checksum(path: Path) -> bytes | None:
    """What was written; None if there is nothing, or it is damaged.

    Raises:
        OSError: if there is something that cannot be read.
    """
    try:
        found = verify_checksum(pa.py_buffer(path.read_bytes()))
    except FileNotFoundError:
        return None
    return None if found is None else found.to_pybytes()
