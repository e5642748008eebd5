"""Header of a patch store: schema, metadata, checksum."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.patch_views import VIEWS
from hpsearch.shapes import Int, UInt8

StoreProgress = Callable[[int, int, str], None]
"""Progress callback ``(done, total, name)``: sequences written, all sequences, latest name."""


class NoiseLevels(FrozenConfig):
    """Standard deviation of the white Gaussian noise by view, in gray levels.

    With the defaults a small U-Net reaches the error published for N-HPatches.
    """

    easy: float = Field(default=10.0, ge=0, le=128)
    """Noise of ``ref`` and ``e1..e5``."""
    hard: float = Field(default=20.0, ge=0, le=128)
    tough: float = Field(default=30.0, ge=0, le=128)


class StoreMeta(FrozenConfig):
    """Source, license, noise and split of a patch store."""

    former_names: ClassVar[Mapping[str, str]] = {"license": "licence"}

    source: str
    license: str
    noise: NoiseLevels | None = None
    """Noise that was added; None if the noisy patches are part of the data set."""
    split: str = ""
    """Name of the data set's own split; empty if it has none."""
    test: tuple[str, ...] = ()
    """Test sequences of the data set's own split."""


SCHEMA_VERSION = "2"
READABLE_VERSIONS = ("1", SCHEMA_VERSION)
"""Version 1, of hpsearch 0.1 and 0.2, has 16 views of every point."""
VERSION_KEY, HEADER_KEY, CHECKSUM_KEY = "hpsearch.version", "hpsearch.header", "hpsearch.sum"
NO_FINGERPRINT = "0" * 64


class Header(FrozenConfig):
    """Header of a patch store: sequence names, point counts, fingerprint and metadata."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Number of points of each sequence."""
    patches: tuple[int, ...] | None = None
    """Number of patches of each sequence; None if every point has the 16 views of HPatches."""
    meta: StoreMeta
    fingerprint: str = NO_FINGERPRINT
    """SHA-256 of names and pixels, in hex; its fixed length keeps offsets valid."""

    @property
    def rows(self) -> tuple[int, ...]:
        """Number of patches of each sequence."""
        return tuple(VIEWS * c for c in self.counts) if self.patches is None else self.patches


class PointViews(NamedTuple):
    """Views of a sequence's points, if every point has a number of views of its own."""

    counts: Int[np.ndarray, " points"]
    """Number of views of each point, at least 1; the patches of a point are adjacent."""
    pairs: Int[np.ndarray, "n 2"] = np.empty((0, 2), np.int64)
    """Pairs of patches for patch verification, as rows of the sequence; they match if both rows
    are of one point."""

    def digest(self) -> str:
        """SHA-256 of counts and pairs; the order of the pairs does not matter."""
        counts, pairs = (np.ascontiguousarray(a, "<i8") for a in (self.counts, self.sorted_pairs()))
        return hashlib.sha256(counts.tobytes() + b"|" + pairs.tobytes()).hexdigest()

    def sorted_pairs(self) -> Int[np.ndarray, "n 2"]:
        """Pairs in ascending order."""
        return self.pairs[np.lexsort(self.pairs.T[::-1])]


class SequenceDigests(NamedTuple):
    """Digests of one sequence, from which the fingerprint of a store is computed."""

    clean: str
    noisy: str
    views: str = ""
    """Digest of ``PointViews``; empty if every point has the 16 views of HPatches."""


def pixel_digest(pixels: UInt8[np.ndarray, "..."]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def store_fingerprint(
    names: Sequence[str], counts: Sequence[int], parts: Sequence[SequenceDigests]
) -> str:
    """SHA-256 over names, counts and digests; sequences can be hashed in parallel."""
    rows = [
        [n, int(c), *filter(None, digests)]
        for n, c, digests in zip(names, counts, parts, strict=True)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def to_metadata(header: Header) -> dict[str, str]:
    """Arrow schema metadata: the header as JSON, and its checksum."""
    text = header.model_dump_json()
    return {
        VERSION_KEY: SCHEMA_VERSION,
        HEADER_KEY: text,
        CHECKSUM_KEY: _header_checksum(text.encode()),
    }


def version_of(metadata: Mapping[bytes, bytes]) -> str | None:
    """Schema version of a store; None if the file is not a patch store."""
    found = metadata.get(VERSION_KEY.encode())
    return None if found is None else found.decode(errors="replace")


def from_metadata(metadata: Mapping[bytes, bytes]) -> Header:
    """Header, parsed from Arrow schema metadata.

    Raises:
        ValueError: if the header is damaged.
    """
    text = metadata.get(HEADER_KEY.encode(), b"")
    if metadata.get(CHECKSUM_KEY.encode(), b"") != _header_checksum(text).encode():
        raise ValueError("its header is damaged")
    header = Header.model_validate_json(text)
    if len(header.names) != len(header.counts) or not header.names:
        raise ValueError("its sequences and their counts differ in number")
    if len(set(header.names)) < len(header.names) or min(header.counts) < 1:
        raise ValueError("one of its sequences is empty or duplicated")
    patches = header.patches
    if patches is not None and (
        len(patches) != len(header.counts)
        or any(n < c for n, c in zip(patches, header.counts, strict=True))
    ):
        raise ValueError("one of its sequences has fewer patches than points")
    for name in (*header.names, *header.meta.test):
        check_sequence_name(name)
    return header


def check_sequence_name(name: str) -> None:
    """Check that a sequence name is a valid folder name, one line, and no spreadsheet formula.

    Raises:
        ValueError: if the name is not allowed.
    """
    wrong = not name.isprintable() or set(name) & set("/\\") or len(name.encode()) > 1000
    if wrong or not name or name[0] in ".=+-@":
        raise ValueError(
            f"{name[:40]!r} cannot be the name of a sequence: it must not contain / or control "
            "characters, or begin with one of . = + - @"
        )


def _header_checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
