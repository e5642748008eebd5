"""Content-addressed cache of results that trials share, keyed by the hash of their inputs.

No locks: a trial that needs an artifact reads or computes it, and publishes it atomically. A
duplicate has the same bytes, so it is harmless. Bytes are verified when they are read.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from hpsearch.atomic_files import checksum, verify_checksum
from hpsearch.errors import UserError
from hpsearch.untrusted import reading


def artifact_key(**depends_on: Any) -> str:
    """Cache key of an artifact that is a pure function of ``depends_on`` (JSON values).

    Example:
        >>> artifact_key(kind="demo", seed=1) == artifact_key(seed=1, kind="demo")
        True
    """
    text = json.dumps(depends_on, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC = "shared/made_seconds", "shared/spared_seconds"
"""Metrics: seconds that a trial spent on computing shared artifacts, and seconds that it saved by
reading them from the cache."""


class DependencyFailedError(UserError):
    """Failed dependency: a shared denoiser or warm start collapsed or diverged in training."""


@dataclass
class CacheStats:
    """Wall-clock seconds of computing, and saved by reading, shared artifacts."""

    computed_s: float = 0.0
    saved_s: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Metrics of the cache; empty if no artifact was used."""
        shared = self.computed_s or self.saved_s
        return (
            {COMPUTED_SECONDS_METRIC: self.computed_s, SAVED_SECONDS_METRIC: self.saved_s}
            if shared
            else {}
        )


@dataclass(frozen=True)
class ArtifactCache:
    """Folder of artifacts on any file system that pyarrow supports (path or URI).

    Example:
        >>> import tempfile
        >>> cache = ArtifactCache(tempfile.mkdtemp())
        >>> cache.get_or_compute("key", lambda: b"weights").to_pybytes()
        b'weights'
    """

    root: str
    stats: CacheStats = field(default_factory=CacheStats, compare=False)

    def with_fresh_stats(self) -> "ArtifactCache":
        """Cache of the same folder with statistics at zero."""
        return replace(self, stats=CacheStats())

    def get_or_compute(self, key: str, compute: Callable[[], bytes]) -> pa.Buffer:
        """Bytes of the artifact ``key``, which is computed and published if it is missing."""
        stored = self.get(key)
        if stored is not None:
            cost = self.get(f"{key}.seconds")
            with self.reading(f"{key}.seconds"):
                self.stats.saved_s += 0.0 if cost is None else float(bytes(cost))
            return stored
        started_at = time.monotonic()
        payload = compute()
        seconds = time.monotonic() - started_at
        self.stats.computed_s += seconds
        self.publish(key, payload)
        self.publish(f"{key}.seconds", f"{seconds:.3f}".encode())
        stored = self.get(key)  # memory-mapped if possible: patches are large
        return pa.py_buffer(payload) if stored is None else stored

    def get(self, key: str) -> pa.Buffer | None:
        """Bytes of the artifact ``key``; None if it is missing or damaged."""
        filesystem, folder = fs.FileSystem.from_uri(self.root)
        path = f"{folder}/{key}"
        if filesystem.get_file_info(path).type != fs.FileType.File:
            return None
        if isinstance(filesystem, fs.LocalFileSystem):
            stored = pa.memory_map(path).read_buffer()
        else:
            stored = filesystem.open_input_file(path).read_buffer()
        return verify_checksum(stored)

    def reading(self, key: str) -> AbstractContextManager[None]:
        """Parse the artifact ``key`` inside the block; errors become a UserError with the file."""
        return reading(
            f"{self.root}/{key}", "shared result", "remove it so that it is computed again"
        )

    def publish(self, key: str, payload: bytes) -> None:
        """Write an artifact atomically.

        Raises:
            OSError: if it cannot be written; no draft is left.
        """
        filesystem, folder = fs.FileSystem.from_uri(self.root)
        filesystem.create_dir(folder, recursive=True)
        draft = f"{folder}/{key}.{uuid4().hex}.part"
        try:
            with filesystem.open_output_stream(draft) as stream:
                stream.write(payload)
                stream.write(checksum(payload))
            filesystem.move(draft, f"{folder}/{key}")
        except BaseException:
            with suppress(OSError):
                filesystem.delete_file(draft)
            raise
