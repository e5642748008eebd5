"""Patch store: patches in one Arrow file, memory-mapped."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hpsearch.data.arrow_header import (
    SCHEMA_VERSION,
    PointViews,
    SequenceDigests,
    StoreMeta,
    pixel_digest,
    store_fingerprint,
)
from hpsearch.data.arrow_reader import check_columns, corrupt_store_error, map_store
from hpsearch.data.arrow_writer import SequencePatches, write_streaming
from hpsearch.data.splits import Part, TrialSplit, split_for
from hpsearch.errors import UserError, list_names
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.shapes import Int, UInt8

__all__ = [
    "SCHEMA_VERSION",
    "VIEW_NAMES",
    "PatchStore",
    "Patches",
    "PointViews",
    "SequencePatches",
    "StoreMeta",
    "write_store",
]


@dataclass(frozen=True, eq=False)
class PatchStore:
    """Clean and noisy patches of named sequences, as read-only views of a memory-mapped file.

    Points have the 16 views of HPatches, with levels of jitter and noise, or numbers of views of
    their own, without levels.

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
    clean_rows: UInt8[np.ndarray, "rows 32 32"]
    """Patches, point after point."""
    noisy_rows: UInt8[np.ndarray, "rows 32 32"]
    views: list[PointViews] | None = None
    """Views of the points of each sequence; None if every point has the 16 of HPatches."""

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
        header, clean, noisy, views = map_store(Path(path), content)
        return PatchStore(
            path=Path(path),
            names=header.names,
            counts=header.counts,
            fingerprint=header.fingerprint,
            meta=header.meta,
            clean_rows=clean,
            noisy_rows=noisy,
            views=views,
        )

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _reopen_checked, (self.path.absolute(), self.fingerprint)

    @property
    def clean(self) -> UInt8[np.ndarray, "points 16 32 32"]:
        """Clean patches by point and view.

        Raises:
            UserError: if the points do not have 16 views each.
        """
        self.check_levels("this")
        return self.clean_rows.reshape(-1, VIEWS, SIDE, SIDE)

    @property
    def noisy(self) -> UInt8[np.ndarray, "points 16 32 32"]:
        """Noisy patches by point and view; raises what ``clean`` raises."""
        self.check_levels("this")
        return self.noisy_rows.reshape(-1, VIEWS, SIDE, SIDE)

    @property
    def has_levels(self) -> bool:
        """True if every point has the 16 views of HPatches."""
        return self.views is None

    def check_levels(self, what: str) -> None:
        """Check that every point has the 16 views of HPatches.

        Args:
            what: what needs them, in the error message.

        Raises:
            UserError: if they have numbers of views of their own.
        """
        if not self.has_levels:
            raise UserError(
                f"{what} needs the 16 views with levels (ref, e1 … t5) of every point, but the "
                f"points of {self.path} have other numbers of views; use a store of `hpsearch data "
                "import`, `photos` or `sequences`",
                code="no-levels",
            )

    @cached_property
    def first_rows(self) -> Int[np.ndarray, " points+1"]:
        """Row of the first patch of each point, and the number of rows."""
        if self.views is None:
            return VIEWS * np.arange(sum(self.counts) + 1)
        return np.cumsum([0, *np.concatenate([v.counts for v in self.views])])

    @cached_property
    def sequence_of(self) -> Int[np.ndarray, " points"]:
        """Index into ``names`` of each point's sequence."""
        return np.repeat(np.arange(len(self.names)), self.counts)

    @cached_property
    def starts(self) -> Int[np.ndarray, " sequences"]:
        """Index of the first point of each sequence."""
        return np.cumsum([0, *self.counts[:-1]])

    def split(self, name: str = "auto", **options: Any) -> TrialSplit:
        """Split ``name`` of this store's sequences; for the options see ``split_for``."""
        split = split_for(self.names, name=name, test=self.meta.test, **options)
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
        first, stops = self.first_rows, np.cumsum(self.counts)
        views = ("",) * len(stops) if self.views is None else (v.digest() for v in self.views)
        parts = [
            SequenceDigests(
                pixel_digest(self.clean_rows[a:b]), pixel_digest(self.noisy_rows[a:b]), v
            )
            for a, b, v in zip(first[self.starts], first[stops], views, strict=True)
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
    """Patches of some sequences of a store, in local rows, point after point.

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

    @property
    def num_rows(self) -> int:
        """Number of patches."""
        return VIEWS * len(self) if self.first_rows is None else int(self.first_rows[-1])

    @cached_property
    def first_rows(self) -> Int[np.ndarray, " points+1"] | None:
        """Local row of the first patch of each point, and the number of rows.

        None if every point has the 16 views of HPatches: local row = 16·point + view.
        """
        if self.store.has_levels:
            return None
        return np.cumsum([0, *np.diff(self.store.first_rows)[self.points]])

    @cached_property
    def pairs(self) -> Int[np.ndarray, "n 2"]:
        """Pairs of the data set for patch verification, as local rows; there may be none."""
        found, start = [np.empty((0, 2), np.int64)], 0
        if self.store.views is None:
            return found[0]
        for name in self.names:
            own = self.store.views[self.store.names.index(name)]
            found.append(own.pairs + start)
            start += int(own.counts.sum())
        return np.concatenate(found)

    def points_of(self, rows: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Local points of local rows."""
        return point_of(rows, self.first_rows)

    def rows(self, local_rows: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Rows of the store for local rows."""
        first = self.first_rows
        if first is None:
            point, view = np.divmod(local_rows, VIEWS)
            return VIEWS * self.points[point] + view
        point = self.points_of(local_rows)
        return self.store.first_rows[self.points[point]] + local_rows - first[point]

    def gather(self, rows: Int[np.ndarray, " n"], *, noisy: bool) -> UInt8[np.ndarray, "n 32 32"]:
        """Writable copies of the patches at local rows."""
        return self._pixels(noisy).take(self.rows(rows), axis=0)

    def load_all(self, *, noisy: bool) -> UInt8[np.ndarray, "rows 32 32"]:
        """Writable copy of all patches, 1 KiB each."""
        return self.gather(np.arange(self.num_rows), noisy=noisy)

    def _pixels(self, noisy: bool) -> UInt8[np.ndarray, "rows 32 32"]:
        return self.store.noisy_rows if noisy else self.store.clean_rows


def point_of(
    rows: Int[np.ndarray, "..."], first_rows: Int[np.ndarray, " points+1"] | None
) -> Int[np.ndarray, "..."]:
    """Points of rows; ``first_rows`` as ``Patches.first_rows``."""
    if first_rows is None:
        return rows // VIEWS
    return np.searchsorted(first_rows, rows, side="right") - 1


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
