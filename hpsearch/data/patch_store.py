"""Patch store: patches in one Arrow file, memory-mapped."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hpsearch.data.arrow_header import (
    SCHEMA_VERSION,
    Header,
    SequenceDigests,
    StoreMeta,
    from_metadata,
    pixel_digest,
    store_fingerprint,
    version_of,
)
from hpsearch.data.arrow_writer import SequencePatches, side_columns, write_streaming
from hpsearch.data.splits import VALIDATION_SHARE, Part, TrialSplit, split_for
from hpsearch.errors import UserError, list_names
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.shapes import Int, UInt8
from hpsearch.untrusted import reason


class MappedStore(NamedTuple):
    """Memory-mapped store; the arrays are read-only views of the file."""

    header: Header
    clean: UInt8[np.ndarray, "points 16 32 32"]
    noisy: UInt8[np.ndarray, "points 16 32 32"]


def map_store(path: Path, content: pa.Buffer | None = None) -> MappedStore:
    """Map a store file; no pixel is read.

    Args:
        path: path of the file.
        content: content of the file, if this machine has it in memory and not on disk.

    Raises:
        UserError: if the file is missing, is not a complete patch store, or has another version.
    """
    if content is None and not path.is_file():
        raise UserError(
            f"no patch store at {path}; make one with `hpsearch data import` or `data photos`"
        )
    with _translate_errors(path):
        header, batch = _read_batch(path, content)
        _check_sizes(header, batch)
        shape = (sum(header.counts), VIEWS, SIDE, SIDE)
        clean, noisy = (
            np.frombuffer(batch.column(name).buffers()[1], np.uint8).reshape(shape)
            for name in ("clean", "noisy")
        )
    return MappedStore(header, clean, noisy)


def check_columns(path: Path) -> None:
    """Check the columns other than the pixels against the header.

    Raises:
        UserError: if they differ.
    """
    with _translate_errors(path):
        header, batch = _read_batch(path)
        batch.validate(full=True)
        for name, column in side_columns(header.names, header.counts).items():
            if not batch.column(name).equals(column):
                raise ValueError(f"its column {name!r} has changed")


def corrupt_store_error(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a usable patch store ({why}); delete it and build or import it again"
    )


@contextlib.contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Translate any error of reading a damaged file into a ``UserError``."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:  # a reader of crafted bytes may raise anything
        raise corrupt_store_error(path, reason(e)) from e


def _check_sizes(header: Header, batch: pa.RecordBatch) -> None:
    """Check types and lengths of all columns against the header before they are used.

    Raises:
        ValueError: if one does not match.
    """
    batch.validate()
    rows = VIEWS * sum(header.counts)
    for name in ("clean", "noisy"):
        column = batch.column(name)
        if column.type != pa.binary(SIDE * SIDE) or len(column) != rows or column.offset:
            raise ValueError(f"its column {name!r} does not contain the expected {rows:,} patches")


def _read_batch(path: Path, content: pa.Buffer | None = None) -> tuple[Header, pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)) if content is None else content)
    metadata = reader.schema.metadata or {}
    version = version_of(metadata)
    if version is None:
        raise ValueError("it contains no patches")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}, but hpsearch reads {SCHEMA_VERSION}; "
            "build or import it again"
        )
    return from_metadata(metadata), reader.get_batch(0)


__all__ = [
    "SCHEMA_VERSION",
    "VIEW_NAMES",
    "PatchStore",
    "Patches",
    "SequencePatches",
    "StoreMeta",
    "write_store",
]


@dataclass(frozen=True, eq=False)
class PatchStore:
    """Clean and noisy patches of named sequences, as read-only views of a memory-mapped file.

    Example:
        >>> import tempfile
        >>> from hpsearch.data.arrow_header import StoreMeta
        >>> from hpsearch.data.arrow_writer import SequencePatches
        >>> patches = np.zeros((5, 16, 32, 32), np.uint8)
        >>> store = write_store(
        ...     Path(tempfile.mkdtemp(), "demo.arrow"),
        ...     [SequencePatches("v_wall", patches, patches)],
        ...     meta=StoreMeta(source="demo", licence="CC0"),
        ... )
        >>> store.names, store.counts, store.clean.shape
        (('v_wall',), (5,), (5, 16, 32, 32))
    """

    path: Path
    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Number of points of each sequence."""
    fingerprint: str
    """SHA-256 of names and pixels in hex; messages show the first 16 digits."""
    meta: StoreMeta
    clean: UInt8[np.ndarray, "points 16 32 32"]
    noisy: UInt8[np.ndarray, "points 16 32 32"]

    def __repr__(self) -> str:
        return (
            f"PatchStore({str(self.path)!r}: {sum(self.counts):,} points of "
            f"{len(self.names)} sequences, fingerprint {self.fingerprint[:16]})"
        )

    @staticmethod
    def open(path: Path | str, content: pa.Buffer | None = None) -> "PatchStore":
        """Open a store by memory-mapping its file; no pixel is read.

        Args:
            path: path of the file.
            content: content of the file, if this machine has it in memory and not on disk.

        Raises:
            UserError: if the file is missing, is not a patch store, or has another version.

        """
        header, clean, noisy = map_store(Path(path), content)
        return PatchStore(
            path=Path(path),
            names=header.names,
            counts=header.counts,
            fingerprint=header.fingerprint,
            meta=header.meta,
            clean=clean,
            noisy=noisy,
        )

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _reopen_checked, (self.path.absolute(), self.fingerprint)

    @cached_property
    def sequence_of(self) -> Int[np.ndarray, " points"]:
        """Index into ``names`` of each point's sequence."""
        return np.repeat(np.arange(len(self.names)), self.counts)

    @cached_property
    def starts(self) -> Int[np.ndarray, " sequences"]:
        """Index of the first point of each sequence."""
        return np.cumsum([0, *self.counts[:-1]])

    def split(
        self, name: str = "auto", *, validation_share: float = VALIDATION_SHARE, seed: int = 0
    ) -> TrialSplit:
        """Split ``name`` of this store's sequences; see ``split_for``."""
        split = split_for(
            self.names, name=name, test=self.meta.test, validation_share=validation_share, seed=seed
        )
        return replace(split, name=self.meta.split or "own") if split.name == "own" else split

    def part(self, split: TrialSplit, part: Part) -> "Patches":
        """All patches of one part of a split.

        Raises:
            UserError: if the part is empty or contains a sequence that is not in the store.

        """
        return self._subset(split.part(part))

    def select(self, names: Sequence[str], split: TrialSplit) -> "Patches":
        """Training patches of the given sequences.

        Raises:
            UserError: if one of them is a test sequence of the split, or is not in the store.

        """
        for name in names:
            if name in split.test:
                raise UserError(
                    f"{name!r} is a test sequence of split {split.name!r} and cannot be used for "
                    "training; remove it"
                )
        return self._subset(tuple(names))

    def verify(self) -> None:
        """Read all patches and compare them with the fingerprint.

        Raises:
            UserError: if the content has changed since the store was written.

        """
        check_columns(self.path)
        stops = np.cumsum(self.counts)
        parts = [
            SequenceDigests(pixel_digest(self.clean[a:b]), pixel_digest(self.noisy[a:b]))
            for a, b in zip(self.starts, stops, strict=True)
        ]
        if store_fingerprint(self.names, self.counts, parts) != self.fingerprint:
            raise corrupt_store_error(
                self.path, f"it differs from its fingerprint {self.fingerprint[:16]}"
            )

    def _subset(self, names: tuple[str, ...]) -> "Patches":
        missing = sorted(set(names) - set(self.names))
        if missing:
            raise UserError(
                f"{self.path} has no sequence {list_names(map(repr, missing), limit=3)}; it has "
                f"{list_names(self.names, limit=8)}"
            )
        at = [self.names.index(n) for n in dict.fromkeys(names)]
        points = [np.arange(self.starts[i], self.starts[i] + self.counts[i]) for i in at]
        return Patches(self, np.concatenate(points), tuple(self.names[i] for i in at))


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of some sequences of a store; local row = 16·(local point) + view.

    Pickled as the path of its store, so that it is cheap to send to workers.
    """

    store: PatchStore
    points: Int[np.ndarray, " points"]
    """Indices of the points in the store, in the order of the local points."""
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"Patches({len(self):,} points of {list_names(self.names, limit=8)} in {self.store})"

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of points of each sequence, in the order of ``names``."""
        return tuple(self.store.counts[self.store.names.index(n)] for n in self.names)

    @cached_property
    def sequence_of(self) -> Int[np.ndarray, " points"]:
        """Index into ``names`` of each local point's sequence."""
        return np.repeat(np.arange(len(self.names)), self.counts)

    def rows(self, local_rows: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Rows of the store for local rows."""
        point, view = np.divmod(local_rows, VIEWS)
        return VIEWS * self.points[point] + view

    def gather(self, rows: Int[np.ndarray, " n"], *, noisy: bool) -> UInt8[np.ndarray, "n 32 32"]:
        """Writable copies of the patches at local rows."""
        return self._pixels(noisy).reshape(-1, SIDE, SIDE).take(self.rows(rows), axis=0)

    def load_all(self, *, noisy: bool) -> UInt8[np.ndarray, "points 16 32 32"]:
        """Writable copy of all patches; 16 KiB per point."""
        return self._pixels(noisy).take(self.points, axis=0)

    def _pixels(self, noisy: bool) -> UInt8[np.ndarray, "points 16 32 32"]:
        return self.store.noisy if noisy else self.store.clean


def write_store(path: Path, sequences: Iterable[SequencePatches], *, meta: StoreMeta) -> PatchStore:
    """Write sequences to a store atomically, with one sequence in memory at a time.

    Raises:
        UserError: if there is no sequence, one is empty, two have the same name, or the disk
            reports an error.
    """
    write_streaming(Path(path), sequences, meta)
    return PatchStore.open(path)


def _reopen_checked(path: Path, expected: str) -> PatchStore:
    store = PatchStore.open(path)
    if store.fingerprint != expected:
        raise UserError(
            f"{path} has changed: fingerprint {store.fingerprint[:16]}, expected {expected[:16]}; "
            "use the same store on every machine"
        )
    return store
