"""Writer of patch stores, in parallel or sequence by sequence."""

import contextlib
import errno
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from hpsearch.atomic_files import is_alive
from hpsearch.data.arrow_header import (
    Header,
    PointViews,
    SequenceDigests,
    StoreMeta,
    pixel_digest,
    store_fingerprint,
    to_metadata,
)
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE, VIEWS
from hpsearch.shapes import UInt8

PIXELS_PER_PATCH = SIDE * SIDE
USER_ERRNOS = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EACCES EPERM EROFS EEXIST ENOTDIR EISDIR".split()  # noqa: SIM905
}


class SequencePatches(NamedTuple):
    """Clean and noisy patches of one sequence.

    Points have the 16 views of ``VIEW_NAMES`` (n×16×32×32), or, with ``views``, a number of their
    own, point after point (n×32×32).
    """

    name: str
    clean: UInt8[np.ndarray, "n *views 32 32"]
    noisy: UInt8[np.ndarray, "n *views 32 32"]
    views: PointViews | None = None


@dataclass(frozen=True)
class StoreLayout:
    """Byte offsets of the pixels of each sequence in a preallocated file."""

    file: Path
    header: Header
    offsets: tuple[int, int]
    """Bytes from the start of the file to the first clean and the first noisy patch."""
    views: Sequence[PointViews] | None = None

    def write(
        self, position: int, pixels: UInt8[np.ndarray, "n *views 32 32"], *, noisy: bool
    ) -> str:
        """Write one sequence's patches at their offset and return their SHA-256.

        Several processes may write concurrently.
        """
        assert pixels.size == PIXELS_PER_PATCH * self.header.rows[position]
        self.write_rows(position, 0, pixels, noisy=noisy)
        return pixel_digest(pixels)

    def write_rows(
        self, position: int, row: int, pixels: UInt8[np.ndarray, "n *views 32 32"], *, noisy: bool
    ) -> None:
        """Write some patches of a sequence, from one of its rows on."""
        first = sum(self.header.rows[:position]) + row
        with self.file.open("r+b") as f:
            f.seek(self.offsets[noisy] + PIXELS_PER_PATCH * first)
            f.write(np.ascontiguousarray(pixels).data)

    def written(self, position: int, *, noisy: bool) -> UInt8[np.ndarray, "n 32 32"]:
        """Patches of a sequence as they are in the file, memory-mapped."""
        rows = self.header.rows
        offset = self.offsets[noisy] + PIXELS_PER_PATCH * sum(rows[:position])
        return np.memmap(self.file, np.uint8, "r", offset, (rows[position], SIDE, SIDE))

    def digests(self, position: int) -> SequenceDigests:
        """Digests of a sequence that was written in parts."""
        clean, noisy = (self.written(position, noisy=noisy) for noisy in (False, True))
        return SequenceDigests(pixel_digest(clean), pixel_digest(noisy))

    def _views_digest(self, position: int) -> str:
        return "" if self.views is None else self.views[position].digest()

    def finalize(self, path: Path, parts: Sequence[SequenceDigests]) -> str:
        """Write the fingerprint, flush to disk, and move the file to its final name."""
        parts = [p._replace(views=self._views_digest(i)) for i, p in enumerate(parts)]
        content = store_fingerprint(self.header.names, self.header.counts, parts)
        with self.file.open("r+b") as f:
            header = self.header.model_copy(update={"fingerprint": content})
            offsets = _write_metadata(f, header, self.views)
            assert offsets == self.offsets, "a fingerprint never changes the layout"
            f.flush()
            os.fsync(f.fileno())
        self.file.replace(path)
        _sync_folder(path.parent)
        return content


@contextlib.contextmanager
def preallocated(
    path: Path,
    *,
    names: Sequence[str],
    counts: Sequence[int],
    meta: StoreMeta,
    views: Sequence[PointViews] | None = None,
) -> Iterator[StoreLayout]:
    """Yield the layout of a preallocated draft file, which is removed unless it is finalized.

    Args:
        path: path of the store.
        names: names of the sequences.
        counts: number of points of each sequence.
        meta: source, license, noise and split.
        views: views of the points of each sequence; None for the 16 views of HPatches.
    """
    patches = None if views is None else tuple(int(v.counts.sum()) for v in views)
    header = Header(names=tuple(names), counts=tuple(map(int, counts)), patches=patches, meta=meta)
    with create_parent(path):
        remove_leftovers(path)
        _check_disk_space(path, 2 * PIXELS_PER_PATCH * sum(header.rows))
        part = draft_path(path)
        try:
            with part.open("wb") as f:
                offsets = _write_metadata(f, header, views)
            yield StoreLayout(part, header, offsets, views)
        finally:
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def create_parent(path: Path) -> Iterator[None]:
    """Create the folder of ``path``; errors of the disk inside the block become ``UserError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        if e.errno not in USER_ERRNOS:
            raise
        raise UserError(
            f"cannot write {path} ({e.strerror}); free some space or choose another folder"
        ) from e


def _draft_prefix(path: Path) -> str:
    """Name prefix of this machine's unfinished files for ``path``."""
    return f".{path.name}.{platform.node()}."


def draft_path(path: Path) -> Path:
    """New name of a file or folder next to ``path`` that is removed if this process is killed."""
    return path.with_name(f"{_draft_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.part")


def remove_leftovers(path: Path) -> None:
    """Delete draft files and folders of killed processes of this machine."""
    begin = _draft_prefix(path)
    for part in path.parent.iterdir():
        pid, _, end = part.name.removeprefix(begin).partition(".")
        is_draft = part.name.startswith(begin) and end.endswith(".part")
        if is_draft and pid.isdigit() and not is_alive(int(pid)):
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _check_disk_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise UserError(
            f"the store needs {needed / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB; "
            "free some space or choose another folder"
        )


class _OffsetRecorder:
    """File object that records the offsets of pixel buffers instead of writing them."""

    closed = False

    def __init__(self, file, pixel_bytes: int) -> None:
        self.file, self.pixel_bytes, self.offsets = file, pixel_bytes, []

    def write(self, data) -> int:
        size = len(data)
        if size == self.pixel_bytes:
            self.offsets.append(self.file.tell())
            self.file.seek(size, os.SEEK_CUR)
        else:
            self.file.write(data)
        return size

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.closed = True


def _write_metadata(
    file, header: Header, views: Sequence[PointViews] | None = None
) -> tuple[int, int]:
    """Write everything but the pixels; return the offsets of clean and noisy pixels."""
    rows = sum(header.rows)
    # Never accessed, so it uses address space and no memory.
    pixels = pa.py_buffer(np.zeros(rows * PIXELS_PER_PATCH, np.uint8))
    patch = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS_PER_PATCH), rows, [None, pixels])
    columns = {"clean": patch, "noisy": patch, **side_columns(header.names, header.counts, views)}
    batch = pa.RecordBatch.from_arrays(
        list(columns.values()), names=list(columns), metadata=to_metadata(header)
    )
    sink = _OffsetRecorder(file, pixels.size)
    with pa.PythonFile(sink, mode="w") as out, pa.ipc.new_file(out, batch.schema) as writer:
        writer.write_batch(batch)
    clean, noisy = sink.offsets
    return clean, noisy


def side_columns(
    names: Sequence[str], counts: Sequence[int], views: Sequence[PointViews] | None = None
) -> dict[str, pa.Array]:
    """Columns with sequence, view and index of each row, for plain Arrow readers.

    If points have numbers of views of their own, column ``pairs`` lists the rows with which each
    row is paired for patch verification.
    """
    index = np.concatenate([np.arange(c, dtype=np.int32) for c in counts])
    if views is None:
        rows, own = np.multiply(counts, VIEWS), np.full(len(index), VIEWS)
        view = np.tile(np.arange(VIEWS, dtype=np.int8), len(index))
    else:
        rows, own = [v.counts.sum() for v in views], np.concatenate([v.counts for v in views])
        first = np.repeat(np.cumsum(own) - own, own)
        view = np.arange(len(first), dtype=np.int32) - first.astype(np.int32)
    sequence = np.repeat(np.arange(len(names), dtype=np.int16), rows)
    columns = {
        "sequence": pa.DictionaryArray.from_arrays(sequence, pa.array(names, pa.string())),
        "view": pa.array(view),
        "index": pa.array(np.repeat(index, own)),
    }
    return columns if views is None else {**columns, "pairs": _pair_column(views)}


def _pair_column(views: Sequence[PointViews]) -> pa.Array:
    """List of the partners of each row of the store."""
    rows = [int(v.counts.sum()) for v in views]
    starts = np.cumsum([0, *rows[:-1]])
    pairs = np.concatenate([v.sorted_pairs() + s for v, s in zip(views, starts, strict=True)])
    ends = np.searchsorted(pairs[:, 0], np.arange(sum(rows) + 1))
    return pa.ListArray.from_arrays(
        pa.array(ends.astype(np.int32)), pa.array(pairs[:, 1].astype(np.int32))
    )


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk so that a rename survives a power failure, where supported."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_streaming(path: Path, sequences: Iterable[SequencePatches], meta: StoreMeta) -> None:
    """Write sequences from an iterator of unknown length to a store at ``path``."""
    # Offsets depend on the number of points, so sequences are spooled until all are known.
    with create_parent(path), tempfile.TemporaryFile(dir=path.parent) as spool:
        names, counts, views = _fill_spool(spool, sequences)
        with preallocated(path, names=names, counts=counts, meta=meta, views=views) as layout:
            spool.seek(0)
            layout.finalize(path, [_copy_sequence(spool, layout, i) for i in range(len(names))])


def _fill_spool(
    spool: IO[bytes], sequences: Iterable[SequencePatches]
) -> tuple[list[str], list[int], list[PointViews] | None]:
    names, counts, views = list[str](), list[int](), list[PointViews | None]()
    for patches in sequences:
        if len(patches.clean) == 0:
            raise UserError(f"sequence {patches.name!r} has no patches; leave it out")
        if patches.name in names:
            raise UserError(f"two sequences are called {patches.name!r}; rename one")
        names.append(patches.name)
        counts.append(_num_points(patches))
        views.append(patches.views)
        for pixels in (patches.clean, patches.noisy):
            spool.write(np.ascontiguousarray(pixels, dtype=np.uint8).data)
    if not names:
        raise UserError("there is no sequence to write; give at least one")
    own = [v for v in views if v is not None]
    assert len(own) in (0, len(views)), "some sequences have 16 views and some others"
    return names, counts, own or None


def _num_points(patches: SequencePatches) -> int:
    assert patches.clean.shape == patches.noisy.shape, "clean and noisy shapes differ"
    if patches.views is None:
        assert patches.clean.shape[1:] == (VIEWS, SIDE, SIDE)
        return len(patches.clean)
    views, rows = patches.views.counts, len(patches.clean)
    assert patches.clean.shape[1:] == (SIDE, SIDE)
    assert views.min() > 0
    assert views.sum() == rows, "the views are not as many as the patches"
    assert ((patches.views.pairs >= 0) & (patches.views.pairs < rows)).all()
    return len(views)


def _copy_sequence(spool, layout: StoreLayout, position: int) -> SequenceDigests:
    """Copy the next sequence of the spool to its offset."""
    pixels = np.empty((layout.header.rows[position], SIDE, SIDE), np.uint8)
    sums = []
    for noisy in (False, True):
        spool.readinto(pixels.data)
        sums.append(layout.write(position, pixels, noisy=noisy))
    return SequenceDigests(*sums)
