"""Results that trials share, kept under the hash of what they depend on.

No locks: a trial that needs an artifact finds it or makes it, and the first to finish publishes.
A duplicate is the same bytes, so it is harmless. Bytes are verified when they are read.
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
    """A name for what follows from ``depends_on`` (JSON values) alone."""
    text = json.dumps(depends_on, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC = "shared/made_seconds", "shared/spared_seconds"
"""Metrics: what a trial spent on making shared results, and what it did not spend because others
had made them."""


class DependencyFailedError(UserError):
    """What a trial needs collapsed or diverged in training, and so has the trial."""


@dataclass
class CacheStats:
    """Wall seconds that went into shared results."""

    computed_s: float = 0.0
    saved_s: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Nothing, if nothing was shared."""
        shared = self.computed_s or self.saved_s
        return (
            {COMPUTED_SECONDS_METRIC: self.computed_s, SAVED_SECONDS_METRIC: self.saved_s}
            if shared
            else {}
        )


@dataclass(frozen=True)
class ArtifactCache:
    """A folder of artifacts on any file system that pyarrow opens (path or URI)."""

    root: str
    stats: CacheStats = field(default_factory=CacheStats, compare=False)

    def with_fresh_stats(self) -> "ArtifactCache":
        """The same folder, with no costs so far."""
        return replace(self, stats=CacheStats())

    def get_or_compute(self, key: str, compute: Callable[[], bytes]) -> pa.Buffer:
        """The bytes under ``key``, which are made and published if there are none."""
        stored = self.get(key)
        if stored is not None:
            cost = self.get(f"{key}.seconds")
            with self.reading(f"{key}.seconds"):
                self.stats.saved_s += 0.0 if cost is None else float(bytes(cost))
            return stored
        began = time.monotonic()
        payload = compute()
        seconds = time.monotonic() - began
        self.stats.computed_s += seconds
        self.publish(key, payload)
        self.publish(f"{key}.seconds", f"{seconds:.3f}".encode())
        stored = self.get(key)  # mapped, where it can be: patches are large
        return pa.py_buffer(payload) if stored is None else stored

    def get(self, key: str) -> pa.Buffer | None:
        """The bytes under ``key``, or None where there are none or they are damaged."""
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
        """Make something of the bytes under ``key``; a UserError names the file if it cannot be."""
        return reading(f"{self.root}/{key}", "shared result", "remove it to have it made again")

    def publish(self, key: str, payload: bytes) -> None:
        """Write the bytes so that a reader sees all of them or none.

        Raises:
            OSError: if they cannot be written; no draft is left.
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
