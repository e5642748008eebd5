"""A patch store from any folder of photographs."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from hpsearch.data.arrow_header import Progress, StoreMeta
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.data.photo_synthesis import PhotoSettings, photo_sequence
from hpsearch.data.process_pool import in_order, usable_cores
from hpsearch.errors import UserError
from hpsearch.shapes import UInt8
from hpsearch.untrusted import reason

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
FORMATS = ("JPEG", "PNG", "WEBP")
"""Pillow would also take PostScript, and start Ghostscript for it."""
SMALLEST_SIDE = 120
"""Pixels; below, hardly a patch keeps its distance from the border."""
LONGEST_SIDE = 1024
"""Pixels, about the size of HPatches' pictures; larger photographs are reduced to it."""
FLAT_STD = 10.0
"""Grey levels; HPatches keeps patches below this out of its retrieval lists."""
FEWEST_POINTS = 16
"""A photograph with fewer patches that are not flat is left out."""
MAX_WORKERS = 6


class PhotoImport(NamedTuple):
    """A finished store of photographs."""

    store: PatchStore
    left_out: dict[str, str]
    """Why, by file."""


class _Built(NamedTuple):
    photo: str
    """SHA-256 of the grey pixels."""
    patches: SequencePatches


def import_photos(
    folder: Path,
    out: Path,
    *,
    settings: PhotoSettings = PhotoSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: Progress | None = None,
) -> PhotoImport:
    """Make patches of every JPEG, PNG and WebP under ``folder``; the same files, the same store.

    Files are taken in alphabetical order. A name that starts with ``i_`` or ``v_`` chooses light
    or viewpoint targets; the others take turns. A picture that is unreadable, too small, flat, or
    the same as one before is left out.

    Raises:
        UserError: if there is no such folder, or no picture in it that can be used.
    """
    names = _sequence_names(Path(folder))
    left_out: dict[str, str] = {}
    work = partial(_build, settings=settings)
    workers = min(workers or usable_cores(), len(names), MAX_WORKERS)
    results = in_order(work, names.items(), workers=workers)
    meta = StoreMeta(
        source=f"photographs in {Path(folder).name}", licence="unknown", noise=settings.noise
    )
    chosen = _usable(names, results, left_out, progress)
    first = next(chosen, None)
    if first is None:
        file, why = next(iter(left_out.items()))
        raise UserError(f"no picture in {folder} can be used; the first, {file}, {why}")
    store = write_store(Path(out), _chain(first, chosen), meta=meta)
    return PhotoImport(store, left_out)


def load_grey(file: Path) -> UInt8[np.ndarray, "h w"]:
    """A picture upright by its EXIF tag, in grey, at most ``LONGEST_SIDE`` long.

    Raises:
        OSError, ValueError, SyntaxError: as Pillow does for files that it cannot decode.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about large pictures and broken tags
        with Image.open(file, formats=FORMATS) as image:
            image.draft("L", (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # JPEG decodes reduced, faster
            upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits; Pillow would clip instead of scaling
        upright = Image.fromarray((np.asarray(upright, np.uint32) >> 8).astype(np.uint8))
    grey = upright.convert("L")
    grey.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BOX)
    return np.asarray(grey)


def _sequence_names(folder: Path) -> dict[Path, str]:
    """A unique name for each picture, by file."""
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give a folder of photographs")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UserError(f"{folder} holds no JPEG, PNG or WebP; give a folder of photographs")
    names: dict[Path, str] = {}
    for i, file in enumerate(files):
        stem = re.sub(r"\W+", "_", file.stem)
        name = stem if stem.startswith(("i_", "v_")) else f"{'iv'[i % 2]}_{stem}"
        while name in names.values():
            name = f"{name}_{i}"
        names[file] = name
    return names


def _build(job: tuple[Path, str], *, settings: PhotoSettings) -> _Built | str:
    """The patches of one picture, or why it is left out."""
    file, name = job
    try:
        grey = load_grey(file)
    except Exception as e:  # a decoder of crafted bytes may raise anything
        return f"cannot be decoded ({reason(e)})"
    if min(grey.shape) < SMALLEST_SIDE:
        return f"is too small ({grey.shape[1]}×{grey.shape[0]}, needs {SMALLEST_SIDE})"
    try:
        patches = photo_sequence(grey, name=name, settings=settings)
    except UserError as e:
        return f"is flat ({e})"
    structured = int((patches.clean[:, 0].std(axis=(1, 2)) > FLAT_STD).sum())
    if structured < min(FEWEST_POINTS, settings.points):
        return f"is flat ({structured} patches with structure, needs {FEWEST_POINTS})"
    return _Built(hashlib.sha256(grey.tobytes()).hexdigest(), patches)


def _usable(
    names: dict[Path, str],
    results: Iterator[_Built | str],
    left_out: dict[str, str],
    progress: Progress | None,
) -> Iterator[SequencePatches]:
    """The good ones; what is wrong with the others is written into ``left_out``."""
    seen: dict[str, str] = {}
    for done, (file, result) in enumerate(zip(names, results, strict=True), start=1):
        if isinstance(result, str):
            left_out[str(file)] = result
        # One photograph in two sequences could train and test, and would distract from itself.
        elif result.photo in seen:
            left_out[str(file)] = f"is the same picture as {seen[result.photo]}"
        else:
            seen[result.photo] = str(file)
            yield result.patches
        if progress:
            progress(done, len(names), names[file])


def _chain(first: SequencePatches, rest: Iterator[SequencePatches]) -> Iterator[SequencePatches]:
    yield first
    yield from rest
