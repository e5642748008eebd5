"""From a stream of sequences to a sealed store, with one sequence in memory at a time."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from hpsearch.data.header import Digests
from hpsearch.data.layout import SIDE, VIEWS, Layout, SequencePatches, planned, writing
from hpsearch.data.meta import StoreMeta
from hpsearch.errors import UserError


def spool_sequences(path: Path, sequences: Iterable[SequencePatches], meta: StoreMeta) -> None:
    """Write ``sequences`` to a store at ``path``."""
    # Offsets depend on how many points there are, so sequences wait in a spool until all are known.
    with writing(path), tempfile.TemporaryFile(dir=path.parent) as spool:
        names, counts = _fill(spool, sequences)
        with planned(path, names=names, counts=counts, meta=meta) as layout:
            spool.seek(0)
            layout.seal(path, [_copy(spool, layout, i) for i in range(len(names))])


def _fill(spool: IO[bytes], sequences: Iterable[SequencePatches]) -> tuple[list[str], list[int]]:
    names, counts = [], []
    for patches in sequences:
        if len(patches.clean) == 0:
            raise UserError(f"sequence {patches.name!r} has no patches; leave it out")
        if patches.name in names:
            raise UserError(f"two sequences are called {patches.name!r}; rename one")
        assert patches.clean.shape == patches.noisy.shape, "clean and noisy are twins"
        assert patches.clean.shape[1:] == (VIEWS, SIDE, SIDE)
        names.append(patches.name)
        counts.append(len(patches.clean))
        for pixels in patches[1:]:
            spool.write(np.ascontiguousarray(pixels, dtype=np.uint8).data)
    if not names:
        raise UserError("there is no sequence to write; give at least one")
    return names, counts


def _copy(spool, layout: Layout, position: int) -> Digests:
    """The next sequence of the spool, into its place."""
    pixels = np.empty((layout.header.counts[position], VIEWS, SIDE, SIDE), np.uint8)
    sums = []
    for noisy in (False, True):
        spool.readinto(pixels.data)
        sums.append(layout.write(position, pixels, noisy=noisy))
    return Digests(*sums)
