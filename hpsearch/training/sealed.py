"""Files that are whole or absent, and whose every flipped bit shows.

Torch's own archives do not show it: their reader skips the checksums, and a flipped weight loads.
"""

import hashlib
from pathlib import Path

import pyarrow as pa

from hpsearch.files import whole

DIGEST = 32
"""Bytes of the SHA-256 that end what is sealed."""


def digest(payload: bytes | pa.Buffer) -> bytes:
    """What a payload is sealed with."""
    return hashlib.sha256(payload).digest()


def unsealed(stored: pa.Buffer) -> pa.Buffer | None:
    """The payload, without copying; None if it is not as it was when it was sealed."""
    if stored.size < DIGEST:
        return None
    payload = stored.slice(0, stored.size - DIGEST)
    same = digest(payload) == stored.slice(stored.size - DIGEST).to_pybytes()
    return payload if same else None


def write_sealed(path: Path, payload: bytes) -> None:
    """Replace a file, which a reader sees as it was or as it is now.

    Raises:
        OSError: if it cannot be written; the file is then as it was, and no draft is left.
    """
    with whole(path) as draft, draft.open("wb") as file:
        file.write(payload)
        file.write(digest(payload))


def read_sealed(path: Path) -> bytes | None:
    """What was written; None if there is nothing, or it is damaged.

    Raises:
        OSError: if there is something that cannot be read.
    """
    try:
        found = unsealed(pa.py_buffer(path.read_bytes()))
    except FileNotFoundError:
        return None
    return None if found is None else found.to_pybytes()
