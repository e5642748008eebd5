"""Import of a folder of photographs into a patch store."""

import hashlib
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from hpsearch.data.arrow_header import StoreMeta, StoreProgress
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.data_sources import reads
from hpsearch.data.detected_views import DetectedViewSettings, detected_sequence
from hpsearch.data.images import as_gray
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.data.photo_synthesis import PhotoSettings, photo_sequence
from hpsearch.data.process_pool import imap_ordered, usable_cores
from hpsearch.errors import UserError
from hpsearch.shapes import UInt8
from hpsearch.untrusted import is_clutter, reason

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
FORMATS = ("JPEG", "PNG", "WEBP")
"""Accepted formats; Pillow would also accept PostScript, and start Ghostscript for it."""
MIN_SIDE_PIXELS = 120
"""Minimum side of a photograph, in pixels; smaller ones leave no patches inside the border."""
MAX_SIDE_PIXELS = 1024
"""Maximum side in pixels, as in HPatches; larger photographs are reduced to it."""
MIN_PHOTO_STD = 10.0
"""Standard deviation in gray levels below which HPatches excludes patches from retrieval."""
MIN_POINTS = 16
"""Minimum number of non-flat patches of a photograph; others are skipped."""
MAX_PHOTO_WORKERS = 6


class PhotoImport(NamedTuple):
    """Result of an import of photographs: the store and the skipped files."""

    store: PatchStore
    skipped: dict[str, str]
    """Reason for each skipped file."""


class _Built(NamedTuple):
    photo: str
    """SHA-256 of the gray pixels."""
    patches: SequencePatches


@reads("photos")
def import_photos(
    folder: Path,
    out: Path,
    *,
    settings: PhotoSettings | DetectedViewSettings = PhotoSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: StoreProgress | None = None,
) -> PhotoImport:
    """Build a store from every JPEG, PNG and WebP file in ``folder``; equal files, equal store.

    Files are read in alphabetical order. A name that starts with ``i_`` or ``v_`` selects
    illumination or viewpoint targets; the others alternate. A picture that is unreadable, too
    small, flat, or a duplicate is skipped. The settings choose between the 16 views of the protocol
    and views that a detector makes.

    Raises:
        UserError: if the folder is missing or contains no usable picture.
    """
    names = _sequence_names(Path(folder))
    left_out: dict[str, str] = {}
    work = partial(_build_photo, settings=settings)
    workers = min(workers or usable_cores(), len(names), MAX_PHOTO_WORKERS)
    results = imap_ordered(work, names.items(), workers=workers)
    meta = StoreMeta(
        source=f"photographs in {Path(folder).name}", license="unknown", noise=settings.noise
    )
    chosen = _valid_results(names, results, left_out, progress)
    first = next(chosen, None)
    if first is None:
        file, why = next(iter(left_out.items()))
        raise UserError(f"no picture in {folder} is usable; the first, {file}, {why}")
    store = write_store(Path(out), _chain(first, chosen), meta=meta)
    return PhotoImport(store, left_out)


def load_gray(file: Path) -> UInt8[np.ndarray, "h w"]:
    """Gray picture, rotated by its EXIF tag and reduced to ``MAX_SIDE_PIXELS``.

    Raises:
        OSError, ValueError, SyntaxError: from Pillow, for files that it cannot decode.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Pillow, about large pictures and broken tags
        with Image.open(file, formats=FORMATS) as image:
            image.draft(
                "L", (2 * MAX_SIDE_PIXELS, 2 * MAX_SIDE_PIXELS)
            )  # faster: JPEG can be decoded at a reduced size
            upright = ImageOps.exif_transpose(image)
    gray = as_gray(upright)
    gray.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS), Image.Resampling.BOX)
    return np.asarray(gray)


def _sequence_names(folder: Path) -> dict[Path, str]:
    """A unique name for each picture, by file."""
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give a folder of photographs")
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in PHOTO_SUFFIXES
        and p.is_file()
        and not is_clutter(p.relative_to(folder))
    )
    if not files:
        raise UserError(f"{folder} contains no JPEG, PNG or WebP; give a folder of photographs")
    names: dict[Path, str] = {}
    for i, file in enumerate(files):
        stem = re.sub(r"\W+", "_", file.stem)
        name = stem if stem.startswith(("i_", "v_")) else f"{'iv'[i % 2]}_{stem}"
        while name in names.values():
            name = f"{name}_{i}"
        names[file] = name
    return names


def _build_photo(
    job: tuple[Path, str], *, settings: PhotoSettings | DetectedViewSettings
) -> _Built | str:
    """Patches of one picture, or the reason for skipping it."""
    file, name = job
    try:
        gray = load_gray(file)
    except Exception as e:  # a decoder of crafted bytes may raise anything
        return f"cannot be decoded ({reason(e)})"
    if min(gray.shape) < MIN_SIDE_PIXELS:
        return f"is too small ({gray.shape[1]}×{gray.shape[0]}, needs {MIN_SIDE_PIXELS})"
    try:
        if isinstance(settings, DetectedViewSettings):
            patches = detected_sequence(gray, name=name, settings=settings)
        else:
            patches = photo_sequence(gray, name=name, settings=settings)
    except UserError as e:
        return f"is flat ({e})"
    structured = int((_first_views(patches).std(axis=(1, 2)) > MIN_PHOTO_STD).sum())
    if structured < min(MIN_POINTS, settings.points):
        return f"is flat ({structured} patches with structure, needs {MIN_POINTS})"
    return _Built(hashlib.sha256(gray.tobytes()).hexdigest(), patches)


def _first_views(patches: SequencePatches) -> UInt8[np.ndarray, "points 32 32"]:
    if patches.views is None:
        return patches.clean[:, 0]
    return patches.clean[np.cumsum(patches.views.counts) - patches.views.counts]


def _valid_results(
    names: dict[Path, str],
    results: Iterator[_Built | str],
    skipped: dict[str, str],
    progress: StoreProgress | None,
) -> Iterator[SequencePatches]:
    """Yield the usable results; add the reasons for the others to ``skipped``."""
    seen: dict[str, str] = {}
    if progress:
        progress(0, len(names), "")
    for done, (file, result) in enumerate(zip(names, results, strict=True), start=1):
        if isinstance(result, str):
            skipped[str(file)] = result
        # One photograph in two sequences could be in training and test, and be its own distractor.
        elif result.photo in seen:
            skipped[str(file)] = f"is the same picture as {seen[result.photo]}"
        else:
            seen[result.photo] = str(file)
            yield result.patches
        if progress:
            progress(done, len(names), names[file])


def _chain(first: SequencePatches, rest: Iterator[SequencePatches]) -> Iterator[SequencePatches]:
    yield first
    yield from rest
