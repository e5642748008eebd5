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

from hpsearch.data.arrow_header import (
    Header,
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
BYTES_PER_POINT = VIEWS * PIXELS_PER_PATCH
USER_ERRNOS = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EACCES EPERM EROFS EEXIST ENOTDIR EISDIR".split()  # noqa: SIM905
}


class SequencePatches(NamedTuple):
    """Clean and noisy patches of one sequence; views in the order of ``VIEW_NAMES``."""

    name: str
    clean: UInt8[np.ndarray, "n 16 32 32"]
    noisy: UInt8[np.ndarray, "n 16 32 32"]


@dataclass(frozen=True)
class StoreLayout:
    """Byte offsets of the pixels of each sequence in a preallocated file."""

    file: Path
    header: Header
    offsets: tuple[int, int]
    """Bytes from the start of the file to the first clean and the first noisy patch."""

    def write(self, position: int, pixels: UInt8[np.ndarray, "n 16 32 32"], *, noisy: bool) -> str:
        """Write one sequence's patches at their offset and return their SHA-256.

        Several processes may write concurrently.
        """
        assert pixels.shape == (self.header.counts[position], VIEWS, SIDE, SIDE)
        with self.file.open("r+b") as f:
            f.seek(self.offsets[noisy] + BYTES_PER_POINT * sum(self.header.counts[:position]))
            f.write(np.ascontiguousarray(pixels).data)
        return pixel_digest(pixels)

    def finalize(self, path: Path, parts: Sequence[SequenceDigests]) -> str:
        """Write the fingerprint, flush to disk, and move the file to its final name."""
        content = store_fingerprint(self.header.names, self.header.counts, parts)
        with self.file.open("r+b") as f:
            offsets = _write_metadata(f, self.header.model_copy(update={"fingerprint": content}))
            assert offsets == self.offsets, "a fingerprint never changes the layout"
            f.flush()
            os.fsync(f.fileno())
        self.file.replace(path)
        _sync_folder(path.parent)
        return content


@contextlib.contextmanager
def preallocated(
    path: Path, *, names: Sequence[str], counts: Sequence[int], meta: StoreMeta
) -> Iterator[StoreLayout]:
    """Yield the layout of a preallocated draft file, which is removed unless it is finalized."""
    header = Header(names=tuple(names), counts=tuple(map(int, counts)), meta=meta)
    with create_parent(path):
        _remove_leftovers(path)
        _check_disk_space(path, 2 * BYTES_PER_POINT * sum(counts))
        part = path.with_name(f"{_draft_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.part")
        try:
            with part.open("wb") as f:
                offsets = _write_metadata(f, header)
            yield StoreLayout(part, header, offsets)
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


def _remove_leftovers(path: Path) -> None:
    """Delete draft files of killed processes of this machine."""
    begin = _draft_prefix(path)
    for part in path.parent.iterdir():
        pid, _, end = part.name.removeprefix(begin).partition(".")
        is_draft = part.name.startswith(begin) and end.endswith(".part")
        if is_draft and pid.isdigit() and not _is_alive(int(pid)):
            part.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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


def _write_metadata(file, header: Header) -> tuple[int, int]:
    """Write everything but the pixels; return the offsets of clean and noisy pixels."""
    points = sum(header.counts)
    # Never accessed, so it uses address space and no memory.
    pixels = pa.py_buffer(np.zeros(points * BYTES_PER_POINT, np.uint8))
    patch = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(PIXELS_PER_PATCH), points * VIEWS, [None, pixels]
    )
    columns = {"clean": patch, "noisy": patch, **side_columns(header.names, header.counts)}
    batch = pa.RecordBatch.from_arrays(
        list(columns.values()), names=list(columns), metadata=to_metadata(header)
    )
    sink = _OffsetRecorder(file, pixels.size)
    with pa.PythonFile(sink, mode="w") as out, pa.ipc.new_file(out, batch.schema) as writer:
        writer.write_batch(batch)
    clean, noisy = sink.offsets
    return clean, noisy


def side_columns(names: Sequence[str], counts: Sequence[int]) -> dict[str, pa.Array]:
    """Columns with sequence, view and index of each row, for plain Arrow readers."""
    repeats = np.multiply(counts, VIEWS)
    sequence = np.repeat(np.arange(len(names), dtype=np.int16), repeats)
    index = np.concatenate([np.arange(c, dtype=np.int32) for c in counts])
    return {
        "sequence": pa.DictionaryArray.from_arrays(sequence, pa.array(names, pa.string())),
        "view": pa.array(np.tile(np.arange(VIEWS, dtype=np.int8), len(index))),
        "index": pa.array(np.repeat(index, VIEWS)),
    }


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
        names, counts = _fill_spool(spool, sequences)
        with preallocated(path, names=names, counts=counts, meta=meta) as layout:
            spool.seek(0)
            layout.finalize(path, [_copy_sequence(spool, layout, i) for i in range(len(names))])


def _fill_spool(
    spool: IO[bytes], sequences: Iterable[SequencePatches]
) -> tuple[list[str], list[int]]:
    names, counts = [], []
    for patches in sequences:
        if len(patches.clean) == 0:
            raise UserError(f"sequence {patches.name!r} has no patches; leave it out")
        if patches.name in names:
            raise UserError(f"two sequences are called {patches.name!r}; rename one")
        assert patches.clean.shape == patches.noisy.shape, "clean and noisy shapes differ"
        assert patches.clean.shape[1:] == (VIEWS, SIDE, SIDE)
        names.append(patches.name)
        counts.append(len(patches.clean))
        for pixels in patches[1:]:
            spool.write(np.ascontiguousarray(pixels, dtype=np.uint8).data)
    if not names:
        raise UserError("there is no sequence to write; give at least one")
    return names, counts


def _copy_sequence(spool, layout: StoreLayout, position: int) -> SequenceDigests:
    """Copy the next sequence of the spool to its offset."""
    pixels = np.empty((layout.header.counts[position], VIEWS, SIDE, SIDE), np.uint8)
    sums = []
    for noisy in (False, True):
        spool.readinto(pixels.data)
        sums.append(layout.write(position, pixels, noisy=noisy))
    return SequenceDigests(*sums)
