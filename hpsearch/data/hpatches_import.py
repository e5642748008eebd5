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

from hpsearch.config.base import FrozenConfig
from hpsearch.data.arrow_header import (
    NoiseLevels,
    SequenceDigests,
    StoreMeta,
    StoreProgress,
    check_sequence_name,
)
from hpsearch.data.arrow_writer import StoreLayout, preallocated
from hpsearch.data.data_sources import actual_file, is_real_folder, reads
from hpsearch.data.images import SOURCE_SIDE, add_noise, area_downsample, decoding
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.process_pool import imap_ordered, usable_cores
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE, VIEW_NAMES, VIEWS
from hpsearch.shapes import UInt8
from hpsearch.untrusted import is_clutter

STRIP_SIDES = (SOURCE_SIDE, SIDE)
MODE_NAMES = {"1": "1-bit", "P": "palette", "RGB": "color", "RGBA": "color", "LA": "transparent"}


class StripKind(NamedTuple):
    """Patch width of the strips, and whether noisy patches are included."""

    side: int
    has_noisy: bool
    """True if the data set includes noisy patches (N-HPatches)."""

    def __str__(self) -> str:
        return f"{self.side} pixels wide {'with' if self.has_noisy else 'without'} noisy strips"


class SequenceFolder(NamedTuple):
    """Folder of a sequence whose strip headers have been checked."""

    path: Path
    points: int
    kind: StripKind

    @property
    def name(self) -> str:
        return self.path.name


def strip_file(folder: Path, view: int, *, noisy: bool) -> Path:
    return actual_file(folder / f"{VIEW_NAMES[view]}{'_noise' if noisy else ''}.png")


def check_headers(folder: Path) -> SequenceFolder:
    """Check the headers of a sequence's strips; no pixel is read.

    Raises:
        UserError: naming the file and the expected header.
    """
    has_noisy = any(strip_file(folder, v, noisy=True).exists() for v in range(VIEWS))
    files = [
        strip_file(folder, v, noisy=n)
        for n in ((False, True) if has_noisy else (False,))
        for v in range(VIEWS)
    ]
    width, height = _strip_size(files[0])
    if width not in STRIP_SIDES:
        raise UserError(f"{files[0]} is {width} pixels wide; expected 65 (HPatches) or 32")
    for file in files:
        if _strip_size(file) != (width, height):
            got = "×".join(map(str, _strip_size(file)))
            raise UserError(
                f"{file} has {got} pixels; expected {width}×{height} like {files[0].name}"
            )
    if height % width:
        raise UserError(f"{files[0]} is {height} pixels high; expected a multiple of {width}")
    return SequenceFolder(folder, height // width, StripKind(width, has_noisy))


def read_views(sequence: SequenceFolder, *, noisy: bool) -> UInt8[np.ndarray, "n 16 32 32"]:
    """All views of a sequence, downsampled to 32×32.

    Raises:
        UserError: naming the file, if one cannot be decoded.
    """
    patches = np.empty((sequence.points, VIEWS, SIDE, SIDE), np.uint8)
    for view in range(VIEWS):
        read = _read_strip(strip_file(sequence.path, view, noisy=noisy), sequence)
        patches[:, view] = read if sequence.kind.side == SIDE else area_downsample(read)
    return patches


def _strip_size(file: Path) -> tuple[int, int]:
    with _open_strip(file) as image:
        if image.mode != "L":
            depth = MODE_NAMES.get(
                image.mode, "16-bit" if image.mode.startswith("I") else image.mode
            )
            raise UserError(f"{file} is {depth}; expected 8-bit gray")
        return image.size


def _read_strip(file: Path, sequence: SequenceFolder) -> UInt8[np.ndarray, "n s s"]:
    side = sequence.kind.side
    with decoding(file, "expected a complete PNG"):
        content = file.read_bytes()
        _check_png_checksums(content)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    if pixels.shape != (side * sequence.points, side):
        raise UserError(f"{file} changed during the import; do not modify it, and retry")
    return pixels.reshape(-1, side, side)


def _check_png_checksums(png: bytes) -> None:
    """Compare the checksum of each chunk: Pillow decodes some damaged files without an error.

    Bytes after the last chunk are no part of the picture.
    """
    at, kind = 8, b""
    while kind != b"IEND":
        (length,) = struct.unpack_from(">I", png, at)
        kind = png[at + 4 : at + 8]
        (stored,) = struct.unpack_from(">I", png, at + 8 + length)
        if zlib.crc32(memoryview(png)[at + 4 : at + 8 + length]) != stored:
            raise ValueError("a checksum does not match")
        at += 12 + length


def _open_strip(file: Path) -> Image.Image:
    try:
        with decoding(file, "expected an 8-bit gray strip"):
            return Image.open(file, formats=["PNG"])
    except FileNotFoundError as e:
        raise UserError(f"{file} is missing; expected a strip for each of the 16 views") from e
    except UserError as e:
        if isinstance(e.__cause__, UnidentifiedImageError):
            raise UserError(f"{file} is not a readable PNG; expected an 8-bit gray strip") from e
        raise


MAX_IMPORT_WORKERS = 6
"""Maximum number of workers; each holds one sequence of up to 150 MB, 1 GB in all."""
HPATCHES_LICENSE = (
    "HPatches (Balntas et al., CVPR 2017): see the license of the release it was read from"
)


class ImportSettings(FrozenConfig):
    """Settings of an import: noise, seed, and handling of invalid sequences."""

    noise: NoiseLevels = NoiseLevels()
    """Seed of the noise that is added if the data set has no noisy patches."""
    seed: int = Field(default=0, ge=0)
    skip_invalid: bool = False
    """Skip a sequence with an invalid strip instead of failing."""


class ImportResult(NamedTuple):
    """Result of an import: the store and the skipped sequences."""

    store: PatchStore
    skipped: dict[str, str]
    """Reason for each skipped sequence, by name."""


class ScanResult(NamedTuple):
    """Valid and invalid sequences of a tree, by the headers of their strips."""

    valid: list[SequenceFolder]
    invalid: dict[str, str]


@reads("import")
def import_tree(
    path: Path,
    out: Path,
    *,
    settings: ImportSettings = ImportSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: StoreProgress | None = None,
) -> ImportResult:
    """Import the tree at ``path``, or in an archive, into a store, which is written atomically.

    ``workers`` processes convert sequences and write them at their offsets.

    Raises:
        UserError: if there are no sequences, the disk is full, or a strip is invalid (the message
            names the file and the expected content).
    """
    tree = scan(Path(path))
    skipped = dict(tree.invalid)
    while True:
        _raise_invalid(tree.valid, skipped, settings)
        store, invalid = _write_sequences(tree.valid, Path(out), settings, workers, progress)
        if store is not None:
            return ImportResult(store, skipped)
        # A strip with a valid header can still fail to decode; the next attempt skips it.
        skipped |= invalid
        tree = tree._replace(valid=[s for s in tree.valid if s.name not in skipped])


def scan(path: Path) -> ScanResult:
    """Find the sequences in ``path`` and check the headers of their strips.

    Raises:
        UserError: if there are no sequences.
    """
    valid, invalid = [], {}
    for folder in _sequence_folders(path):
        try:
            check_sequence_name(folder.name)
            valid.append(check_headers(folder))
        except ValueError as e:
            invalid[folder.name] = str(e)
    if valid:
        usual = Counter(s.kind for s in valid).most_common(1)[0][0]
        for s in valid:
            if s.kind != usual:
                invalid[s.name] = f"{s.path} has strips {s.kind}; expected {usual} like the others"
        valid = [s for s in valid if s.kind == usual]
    return ScanResult(valid, invalid)


def _sequence_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UserError(f"no folder at {path}; give the folder of the sequences")
    folders = (p for p in path.iterdir() if is_real_folder(p) and not is_clutter(Path(p.name)))
    inner = sorted(p for p in folders if not p.name.startswith("."))
    found = [p for p in inner if any(strip_file(p, v, noisy=False).exists() for v in range(VIEWS))]
    if not found and len(inner) == 1:
        return _sequence_folders(inner[0])  # archives often have a single top folder
    if not found:
        raise UserError(
            f"{path} contains no sequences; expected folders with ref.png, e1.png … t5.png"
        )
    return found


def _raise_invalid(
    valid: list[SequenceFolder], invalid: dict[str, str], settings: ImportSettings
) -> None:
    if invalid and (not settings.skip_invalid or not valid):
        first = next(iter(invalid.values()))
        more = f", and {len(invalid) - 1} more sequences are invalid" if len(invalid) > 1 else ""
        advice = "; correct it, or skip invalid sequences with --skip-invalid" if valid else ""
        raise UserError(first + more + advice)


def _write_sequences(
    sequences: list[SequenceFolder],
    out: Path,
    settings: ImportSettings,
    workers: int | None,
    progress: StoreProgress | None,
) -> tuple[PatchStore | None, dict[str, str]]:
    """Fingerprint of the finished store, or None and the cause for each invalid sequence."""
    names, counts = [s.name for s in sequences], [s.points for s in sequences]
    meta = _store_meta(sequences[0], settings)
    parts: list[SequenceDigests] = []
    invalid: dict[str, str] = {}
    with preallocated(out, names=names, counts=counts, meta=meta) as layout:
        work = partial(_convert_sequence, layout=layout, sequences=sequences, settings=settings)
        workers = min(workers or usable_cores(), len(sequences), MAX_IMPORT_WORKERS)
        results = imap_ordered(work, range(len(sequences)), workers=workers)
        for done, (name, result) in enumerate(zip(names, results, strict=True), start=1):
            if isinstance(result, SequenceDigests):
                parts.append(result)
            else:
                invalid[name] = result
                _raise_invalid(sequences, invalid, settings)
            if progress:
                progress(done, len(names), name)
        if invalid:
            return None, invalid
        layout.finalize(out, parts)
    return PatchStore.open(out), {}


def _convert_sequence(
    position: int, *, layout: StoreLayout, sequences: list[SequenceFolder], settings: ImportSettings
) -> SequenceDigests | str:
    """Write one sequence at its offset; return the cause if a strip is invalid."""
    sequence = sequences[position]
    try:
        pixels = read_views(sequence, noisy=False)
        clean = layout.write(position, pixels, noisy=False)
        if sequence.kind.has_noisy:
            pixels = read_views(sequence, noisy=True)
        else:
            pixels = add_noise(
                pixels, name=sequence.name, levels=settings.noise, seed=settings.seed, out=pixels
            )
    except UserError as e:
        return str(e)
    return SequenceDigests(clean, layout.write(position, pixels, noisy=True))


def _store_meta(sequence: SequenceFolder, settings: ImportSettings) -> StoreMeta:
    has_noisy = sequence.kind.has_noisy
    kind = "N-HPatches" if has_noisy else "HPatches"
    return StoreMeta(
        source=f"{kind}, strips {sequence.kind}",
        license=HPATCHES_LICENSE,
        noise=None if has_noisy else settings.noise,
    )
