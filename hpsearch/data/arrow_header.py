"""Header of a patch store: schema, metadata, checksum."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.shapes import UInt8

StoreProgress = Callable[[int, int, str], None]
"""Called with how many sequences are done, of how many, and the name of the latest."""


class NoiseLevels(FrozenConfig):
    """Standard deviation of the white Gaussian noise by view, in gray levels.

    With the defaults a small U-Net reaches the error that was published for N-HPatches.
    """

    easy: float = Field(default=10.0, ge=0, le=128)
    """Of ``ref`` and ``e1..e5``."""
    hard: float = Field(default=20.0, ge=0, le=128)
    tough: float = Field(default=30.0, ge=0, le=128)


class StoreMeta(FrozenConfig):
    """Where the patches of a store come from and how they may be used."""

    source: str
    licence: str
    noise: NoiseLevels | None = None
    """None where the noisy patches came with the set."""
    split: str = ""
    """Name of the set's own split; empty where it has none."""
    test: tuple[str, ...] = ()
    """Test sequences of the set's own split."""


SCHEMA_VERSION = "1"
VERSION_KEY, HEADER_KEY, CHECKSUM_KEY = "hpsearch.version", "hpsearch.header", "hpsearch.sum"
NO_FINGERPRINT = "0" * 64


class Header(FrozenConfig):
    """Which sequences a store holds, and what their pixels hash to."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Points a sequence."""
    meta: StoreMeta
    fingerprint: str = NO_FINGERPRINT
    """Always of the same length, so that sealing a file moves nothing in it."""


class SequenceDigests(NamedTuple):
    """What one sequence adds to the fingerprint of its store: SHA-256 of its pixels."""

    clean: str
    noisy: str


def pixel_digest(pixels: UInt8[np.ndarray, "n 16 32 32"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def store_fingerprint(
    names: Sequence[str], counts: Sequence[int], parts: Sequence[SequenceDigests]
) -> str:
    """SHA-256 over names, counts and pixels; hashing by sequence lets processes share the work."""
    rows = [[n, int(c), *d] for n, c, d in zip(names, counts, parts, strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def to_metadata(header: Header) -> dict[str, str]:
    """Metadata for the schema; a checksum stands beside the header."""
    text = header.model_dump_json()
    return {
        VERSION_KEY: SCHEMA_VERSION,
        HEADER_KEY: text,
        CHECKSUM_KEY: _header_checksum(text.encode()),
    }


def version_of(metadata: Mapping[bytes, bytes]) -> str | None:
    """The schema version of a store; None if this is none."""
    found = metadata.get(VERSION_KEY.encode())
    return None if found is None else found.decode(errors="replace")


def from_metadata(metadata: Mapping[bytes, bytes]) -> Header:
    """Read a header of this version.

    Raises:
        ValueError: if it is damaged.
    """
    text = metadata.get(HEADER_KEY.encode(), b"")
    if metadata.get(CHECKSUM_KEY.encode(), b"") != _header_checksum(text).encode():
        raise ValueError("its header is damaged")
    header = Header.model_validate_json(text)
    if len(header.names) != len(header.counts) or not header.names:
        raise ValueError("its sequences and their counts differ in number")
    if len(set(header.names)) < len(header.names) or min(header.counts) < 1:
        raise ValueError("a sequence in it is empty, or is there twice")
    for name in (*header.names, *header.meta.test):
        check_sequence_name(name)
    return header


def check_sequence_name(name: str) -> None:
    """Make sure that a sequence's name is one folder's, fits on a line, and is no formula.

    Raises:
        ValueError: if it is not.
    """
    wrong = not name.isprintable() or set(name) & set("/\\") or len(name.encode()) > 1000
    if wrong or not name or name[0] in ".=+-@":
        raise ValueError(
            f"{name[:40]!r} cannot name a sequence: no / or control character in it, and none of "
            ". = + - @ in front"
        )


def _header_checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
