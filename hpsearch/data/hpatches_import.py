"""Import of HPatches and N-HPatches trees of strips."""

import io
import struct
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.data.arrow_header import (
    Digests,
    NoiseLevels,
    Progress,
    StoreMeta,
    check_sequence_name,
)
from hpsearch.data.arrow_writer import Layout, planned
from hpsearch.data.decoding import decoding
from hpsearch.data.noise import add_noise
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.process_pool import in_order, usable_cores
from hpsearch.data.resize import SOURCE_SIDE, shrink
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.shapes import UInt8

SIDES = (SOURCE_SIDE, SIDE)
DEPTHS = {"1": "1-bit", "P": "palette", "RGB": "colour", "RGBA": "colour", "LA": "transparent"}


class Kind(NamedTuple):
    """What tells the sets apart."""

    side: int
    twins: bool
    """Whether the noisy patches come with the set."""

    def __str__(self) -> str:
        return f"{self.side} pixels wide {'with' if self.twins else 'without'} noisy twins"


class SequenceFolder(NamedTuple):
    """A folder whose strips have been checked from the outside."""

    path: Path
    points: int
    kind: Kind

    @property
    def name(self) -> str:
        return self.path.name


def strip(folder: Path, view: int, *, noisy: bool) -> Path:
    return folder / f"{VIEW_NAMES[view]}{'_noise' if noisy else ''}.png"


def inspect(folder: Path) -> SequenceFolder:
    """Check the headers of a sequence's strips; no pixel is read.

    Raises:
        UserError: naming the file and what was expected of it.
    """
    twins = any(strip(folder, v, noisy=True).exists() for v in range(VIEWS))
    files = [
        strip(folder, v, noisy=n)
        for n in ((False, True) if twins else (False,))
        for v in range(VIEWS)
    ]
    width, height = _size(files[0])
    if width not in SIDES:
        raise UserError(f"{files[0]} is {width} pixels wide; expected 65 (HPatches) or 32")
    for file in files:
        if _size(file) != (width, height):
            got = "×".join(map(str, _size(file)))
            raise UserError(
                f"{file} has {got} pixels; expected {width}×{height} like {files[0].name}"
            )
    if height % width:
        raise UserError(f"{files[0]} is {height} pixels high; expected a multiple of {width}")
    return SequenceFolder(folder, height // width, Kind(width, twins))


def read_views(sequence: SequenceFolder, *, noisy: bool) -> UInt8[np.ndarray, "n 16 32 32"]:
    """Every view of a sequence at 32×32.

    Raises:
        UserError: naming the file, if one cannot be decoded.
    """
    patches = np.empty((sequence.points, VIEWS, SIDE, SIDE), np.uint8)
    for view in range(VIEWS):
        read = _read(strip(sequence.path, view, noisy=noisy), sequence)
        patches[:, view] = read if sequence.kind.side == SIDE else shrink(read)
    return patches


def _size(file: Path) -> tuple[int, int]:
    with _open(file) as image:
        if image.mode != "L":
            depth = DEPTHS.get(image.mode, "16-bit" if image.mode.startswith("I") else image.mode)
            raise UserError(f"{file} is {depth}; expected 8-bit grey")
        return image.size


def _read(file: Path, sequence: SequenceFolder) -> UInt8[np.ndarray, "n s s"]:
    side = sequence.kind.side
    with decoding(file, "expected a whole PNG"):
        content = file.read_bytes()
        _check_sums(content)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    if pixels.shape != (side * sequence.points, side):
        raise UserError(f"{file} changed while it was read; leave the folder alone and try again")
    return pixels.reshape(-1, side, side)


def _check_sums(png: bytes) -> None:
    """Compare the checksum of each chunk: Pillow decodes some damaged files without a word."""
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        (stored,) = struct.unpack_from(">I", png, at + 8 + length)
        if zlib.crc32(memoryview(png)[at + 4 : at + 8 + length]) != stored:
            raise ValueError("a checksum does not fit")
        at += 12 + length


def _open(file: Path) -> Image.Image:
    try:
        with decoding(file, "expected an 8-bit grey strip"):
            return Image.open(file, formats=["PNG"])
    except FileNotFoundError as e:
        raise UserError(f"{file} is missing; expected a strip for each of the 16 views") from e
    except UserError as e:
        if isinstance(e.__cause__, UnidentifiedImageError):
            raise UserError(f"{file} is no readable PNG; expected an 8-bit grey strip") from e
        raise


MAX_WORKERS = 6
"""A worker holds one sequence, up to 150 MB; more of them could pass 1 GB together."""
LICENCE = "HPatches (Balntas et al., CVPR 2017): see the licence of the release it was read from"


class ImportSettings(Setting):
    """How a tree is read."""

    noise: NoiseLevels = NoiseLevels()
    """Of the noisy patches, where the set has none."""
    seed: int = Field(default=0, ge=0)
    skip_bad: bool = False
    """Leave a sequence with a bad strip out instead of giving up."""


class Imported(NamedTuple):
    """A finished import."""

    store: PatchStore
    left_out: dict[str, str]
    """What was wrong, by sequence."""


class Tree(NamedTuple):
    """The sequences of a tree, told good from bad by the headers of their strips."""

    good: list[SequenceFolder]
    bad: dict[str, str]


def import_tree(
    path: Path,
    out: Path,
    *,
    settings: ImportSettings = ImportSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Read the tree at ``path`` into a store at ``out``, which appears whole or not at all.

    Sequences are shared among ``workers`` processes, which write them straight into their places.

    Raises:
        UserError: if there are no sequences, the disk has no room, or a strip is bad (its message
            names the file and what was expected).
    """
    tree = scan(Path(path))
    left_out = dict(tree.bad)
    while True:
        _give_up(tree.good, left_out, settings)
        store, bad = _write(tree.good, Path(out), settings, workers, progress)
        if store is not None:
            return Imported(store, left_out)
        # A strip that looks whole from outside shows its damage late; the next store lacks it.
        left_out |= bad
        tree = tree._replace(good=[s for s in tree.good if s.name not in left_out])


def scan(path: Path) -> Tree:
    """Find the sequences under ``path`` and check the headers of their strips.

    Raises:
        UserError: if there are none.
    """
    good, bad = [], {}
    for folder in _sequence_folders(path):
        try:
            check_sequence_name(folder.name)
            good.append(inspect(folder))
        except ValueError as e:
            bad[folder.name] = str(e)
    if good:
        usual = Counter(s.kind for s in good).most_common(1)[0][0]
        for s in good:
            if s.kind != usual:
                bad[s.name] = f"{s.path} has strips {s.kind}; expected {usual} like the others"
        good = [s for s in good if s.kind == usual]
    return Tree(good, bad)


def _sequence_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"no folder at {path}; give the folder that holds the sequences")
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [p for p in inner if any(strip(p, v, noisy=False).exists() for v in range(VIEWS))]
    if not found and len(inner) == 1:
        return _sequence_folders(inner[0])  # archives wrap everything into one folder
    if not found:
        raise UserError(
            f"{path} holds no sequences; expected folders with ref.png, e1.png … t5.png"
        )
    return found


def _give_up(good: list[SequenceFolder], bad: dict[str, str], settings: ImportSettings) -> None:
    if bad and (not settings.skip_bad or not good):
        first = next(iter(bad.values()))
        more = f", and {len(bad) - 1} more sequences are bad" if len(bad) > 1 else ""
        advice = "" if not good else "; mend it, or leave such sequences out with --skip-bad"
        raise UserError(first + more + advice)


def _write(
    sequences: list[SequenceFolder],
    out: Path,
    settings: ImportSettings,
    workers: int | None,
    progress: Progress | None,
) -> tuple[PatchStore | None, dict[str, str]]:
    """The sealed store, or none and what was wrong with which sequence."""
    names, counts = [s.name for s in sequences], [s.points for s in sequences]
    meta = _meta(sequences[0], settings)
    parts: list[Digests] = []
    bad: dict[str, str] = {}
    with planned(out, names=names, counts=counts, meta=meta) as layout:
        work = partial(_convert, layout=layout, sequences=sequences, settings=settings)
        workers = min(workers or usable_cores(), len(sequences), MAX_WORKERS)
        results = in_order(work, range(len(sequences)), workers=workers)
        for done, (name, result) in enumerate(zip(names, results, strict=True), start=1):
            if isinstance(result, Digests):
                parts.append(result)
            else:
                bad[name] = result
                _give_up(sequences, bad, settings)
            if progress:
                progress(done, len(names), name)
        if bad:
            return None, bad
        layout.seal(out, parts)
    return PatchStore.open(out), {}


def _convert(
    position: int, *, layout: Layout, sequences: list[SequenceFolder], settings: ImportSettings
) -> Digests | str:
    """Write one sequence into its place; a bad strip comes back as what is wrong with it."""
    sequence = sequences[position]
    try:
        pixels = read_views(sequence, noisy=False)
        clean = layout.write(position, pixels, noisy=False)
        if sequence.kind.twins:
            pixels = read_views(sequence, noisy=True)
        else:
            pixels = add_noise(
                pixels, name=sequence.name, levels=settings.noise, seed=settings.seed, out=pixels
            )
    except UserError as e:
        return str(e)
    return Digests(clean, layout.write(position, pixels, noisy=True))


def _meta(sequence: SequenceFolder, settings: ImportSettings) -> StoreMeta:
    twins = sequence.kind.twins
    kind = "N-HPatches" if twins else "HPatches"
    return StoreMeta(
        source=f"{kind}, strips {sequence.kind}",
        licence=LICENCE,
        noise=None if twins else settings.noise,
    )
