"""From the file of a patch store to arrays on its memory map."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hpsearch.data.header import SCHEMA_VERSION, Header, from_metadata, version_of
from hpsearch.data.layout import SIDE, VIEWS, side_columns
from hpsearch.errors import UserError
from hpsearch.shapes import UInt8


class Mapped(NamedTuple):
    """A store as it lies on the disk; the arrays are read-only views on the file."""

    header: Header
    clean: UInt8[np.ndarray, "points 16 32 32"]
    noisy: UInt8[np.ndarray, "points 16 32 32"]


def map_store(path: Path, content: pa.Buffer | None = None) -> Mapped:
    """Map the file; no pixel is read.

    Args:
        path: of the file.
        content: what the file holds, where this machine has it in memory and not on disk.

    Raises:
        UserError: if there is no such file, it is no whole patch store, or of another version.
    """
    if content is None and not path.is_file():
        raise UserError(
            f"no patch store at {path}; make one with `hpsearch data import` or `data photos`"
        )
    with _telling(path):
        header, batch = _read(path, content)
        shape = (sum(header.counts), VIEWS, SIDE, SIDE)
        clean, noisy = (
            np.frombuffer(batch.column(name).buffers()[1], np.uint8).reshape(shape)
            for name in ("clean", "noisy")
        )
    return Mapped(header, clean, noisy)


def check_columns(path: Path) -> None:
    """Compare the columns beside the pixels with what the header says.

    Raises:
        UserError: if they differ.
    """
    with _telling(path):
        header, batch = _read(path)
        for name, column in side_columns(header.names, header.counts).items():
            if not batch.column(name).equals(column):
                raise ValueError(f"its column {name!r} has changed")


def damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a usable patch store ({why}); delete it and build or import it again"
    )


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes Arrow, JSON or us stumble over is told as damage."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as e:
        raise damaged(path, str(e).partition("\n")[0]) from e


def _read(path: Path, content: pa.Buffer | None = None) -> tuple[Header, pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)) if content is None else content)
    metadata = reader.schema.metadata or {}
    version = version_of(metadata)
    if version is None:
        raise ValueError("it holds no patches")
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}; "
            "build or import it again"
        )
    return from_metadata(metadata), reader.get_batch(0)
