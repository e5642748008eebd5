"""Import of picture sequences with known homographies, such as HPatches' full images.

A sequence is a folder with a reference, five targets, and a homography from the reference to each.
HPatches writes ``1.ppm`` … ``6.ppm`` and ``H_1_2`` … ``H_1_6``, Oxford's affine covariant regions
``img1.png`` … and ``H1to2p`` …. Homographies map pixel coordinates whose integers are the centers
of pixels; here pixel i covers [i, i + 1].
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from hpsearch.data.arrow_header import StoreMeta, StoreProgress
from hpsearch.data.arrow_writer import SequencePatches
from hpsearch.data.data_sources import is_real_folder, reads
from hpsearch.data.images import as_gray, decoding
from hpsearch.data.patch_store import PatchStore, write_store
from hpsearch.data.photo_keypoints import detect
from hpsearch.data.photo_synthesis import (
    BORDER_PIXELS,
    JITTER_OF_LEVEL,
    NUM_PHOTO_TARGETS,
    PhotoSettings,
    cut_views,
    inside,
    project,
    view_maps,
)
from hpsearch.data.process_pool import imap_ordered, usable_cores
from hpsearch.errors import UserError
from hpsearch.patch_views import VIEW_NAMES
from hpsearch.shapes import Bool, Float, UInt8

NUM_IMAGES = NUM_PHOTO_TARGETS + 1
PICTURE = re.compile(r"(?:img)?([1-9])\.(ppm|pgm|png|jpg|jpeg|webp|bmp|tif|tiff)", re.IGNORECASE)
FORMATS = ("PPM", "PNG", "JPEG", "WEBP", "BMP", "TIFF")
HOMOGRAPHY_NAMES = ("H_1_{}", "H1to{}p")
DETECTED_PER_POINT = 4
"""Number of detected points for each that is wanted; many leave the targets."""
MAX_CONDITION = 1e15
"""Condition number above which a homography counts as singular; pixels make 1e6 usual."""
IGNORED = ("__MACOSX",)
LICENSE = (
    "HPatches: research use, see its README"
    "; other sequences: under the terms of their source. Not checked by hpsearch"
)
NO_SEQUENCE = "no sequence: needs 1.ppm … 6.ppm and H_1_2 … H_1_6, or img1.png … and H1to2p …"


class SequenceSettings(PhotoSettings):
    """Settings of the patches of picture sequences."""

    points: int = Field(default=1000, ge=1, le=5000)
    """Maximum number of points of a sequence."""


class SequenceImport(NamedTuple):
    """Result of an import of sequences: the store and what was skipped."""

    store: PatchStore
    skipped: dict[str, str]
    """Reason for each skipped file or folder."""


class ImageSequence(NamedTuple):
    """Gray pictures of a sequence, and homographies from the first to each of the others."""

    pictures: list[UInt8[np.ndarray, "h w"]]
    homographies: list[Float[np.ndarray, "3 3"]]
    """For coordinates in which pixel i covers [i, i + 1]."""


@reads("sequences")
def import_sequences(
    folder: Path,
    out: Path,
    *,
    settings: SequenceSettings = SequenceSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: StoreProgress | None = None,
) -> SequenceImport:
    """Build a store for testing from picture sequences; equal files, equal store.

    Points are detected in the reference, and those are kept whose jittered patches lie inside every
    target. Patches are cut with the sequence's own homographies and jittered as HPatches does.

    Args:
        folder: a folder of sequences, or one sequence.
        out: the store to write.
        settings: number of points, noise and seed.
        workers: number of processes; None takes all cores.
        progress: called after each sequence.

    Raises:
        UserError: if there is no sequence, a picture or homography is missing or invalid, or no
            point lies in all pictures of a sequence.
    """
    found, skipped = find_sequences(Path(folder))
    if not found:
        raise UserError(f"{folder} contains {NO_SEQUENCE}")
    work = partial(sequence_patches, settings=settings)
    workers = min(workers or usable_cores(), len(found))
    results = imap_ordered(work, found.items(), workers=workers)
    meta = StoreMeta(
        source=f"picture sequences in {Path(folder).resolve().name}", license=LICENSE,
        noise=settings.noise, split="sequences", test=tuple(found.values()),
    )  # fmt: skip
    return SequenceImport(
        write_store(Path(out), _with_progress(results, len(found), progress), meta=meta), skipped
    )


def find_sequences(folder: Path) -> tuple[dict[Path, str], dict[str, str]]:
    """Names of the sequences in a folder, by their own folders, and what else there is.

    Raises:
        UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"no folder at {folder}; give a folder of picture sequences")
    if _reference(folder):
        return {folder: _name(folder.resolve().name)}, {}
    found: dict[Path, str] = {}
    skipped: dict[str, str] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in IGNORED:
            continue
        inner = find_sequences(entry)[0] if is_real_folder(entry) else {}
        if not inner:
            skipped[str(entry)] = NO_SEQUENCE
        for path, name in inner.items():
            found[path] = name if name not in found.values() else f"{name}_{len(found)}"
    return found, skipped


def load_sequence(folder: Path) -> ImageSequence:
    """Pictures and homographies of one sequence.

    Raises:
        UserError: if a file is missing or invalid, or a homography maps the reference outside its
            target, as one for pictures of another size does.
    """
    files = _pictures(folder)
    missing = [n for n in range(1, NUM_IMAGES + 1) if n not in files]
    if missing:
        raise UserError(
            f"{folder} lacks picture {missing[0]} of {NUM_IMAGES}; complete or remove the sequence"
        )
    pictures = [load_stored_gray(files[n]) for n in range(1, NUM_IMAGES + 1)]
    homographies = []
    for target in range(2, NUM_IMAGES + 1):
        file = _homography_file(folder, target)
        homographies.append(load_homography(file))
        if not maps_into(homographies[-1], pictures[0], pictures[target - 1]):
            raise UserError(
                f"{file} maps {files[1].name} outside {files[target].name}; give the homography "
                "for pictures of this size"
            )
    return ImageSequence(pictures, homographies)


def sequence_patches(job: tuple[Path, str], *, settings: SequenceSettings) -> SequencePatches:
    """Patches of one sequence; a pure function of its files and of the settings.

    Raises:
        UserError: as ``load_sequence``, or if no patch lies in all pictures.
    """
    folder, name = job
    reference, *targets = (sequence := load_sequence(folder)).pictures
    found = detect(reference.astype(np.float32), limit=DETECTED_PER_POINT * settings.points)
    maps = view_maps(found, name, settings.seed)
    maps = maps[_inside_all(maps, sequence)][: settings.points]
    if not len(maps):
        raise UserError(f"no patch of {folder} lies in all pictures; remove the sequence")
    pairs = zip(targets, sequence.homographies, strict=True)
    return cut_views(reference, pairs, maps, name=name, settings=settings)


def _inside_all(
    maps: Float[np.ndarray, "n 16 3 3"], sequence: ImageSequence
) -> Bool[np.ndarray, " n"]:
    """Mask of the points whose 16 patches lie inside the pictures in which they are cut."""
    reference, *targets = sequence.pictures
    kept = inside(maps[:, 0], *reference.shape[::-1], margin=BORDER_PIXELS)
    for k, (target, h) in enumerate(zip(targets, sequence.homographies, strict=True), start=1):
        views = [VIEW_NAMES.index(f"{level}{k}") for level in JITTER_OF_LEVEL]
        kept &= inside(h @ maps[:, views], *target.shape[::-1], margin=BORDER_PIXELS).all(1)
    return kept


def _with_progress(
    results: Iterator[SequencePatches], total: int, progress: StoreProgress | None
) -> Iterator[SequencePatches]:
    for done, patches in enumerate(results, start=1):
        yield patches
        if progress:
            progress(done, total, patches.name)


def _reference(folder: Path) -> bool:
    return 1 in _pictures(folder)


def _pictures(folder: Path) -> dict[int, Path]:
    """Picture files of a folder by their number."""
    return {
        int(match[1]): path
        for path in sorted(folder.iterdir())
        if (match := PICTURE.fullmatch(path.name)) and path.is_file()
    }


def _name(folder: str) -> str:
    """Name of a sequence: viewpoint unless its folder begins with i_."""
    stem = re.sub(r"\W+", "_", folder)
    return stem if stem.startswith(("i_", "v_")) else f"v_{stem}"


def load_stored_gray(file: Path) -> UInt8[np.ndarray, "h w"]:
    """Gray levels as stored: a turn by an EXIF tag would not fit homographies.

    Raises:
        UserError: if the file is no picture, or too large.
        FileNotFoundError: if there is none.
    """
    advice = "give a PPM, PNG, JPEG, WebP, BMP or TIFF picture"
    with decoding(file, advice), Image.open(file, formats=FORMATS) as picture:
        return np.asarray(as_gray(picture))


def _homography_file(folder: Path, target: int) -> Path:
    files = [folder / name.format(target) for name in HOMOGRAPHY_NAMES]
    for file in files:
        if file.is_file():
            return file
    raise UserError(f"{folder} lacks the homography {files[0].name} (or {files[1].name}); add it")


def load_homography(file: Path) -> Float[np.ndarray, "3 3"]:
    """Homography of a file, for coordinates in which pixel i covers [i, i + 1].

    Raises:
        UserError: if the file does not hold nine numbers of an invertible matrix.
    """
    try:
        numbers = np.array(file.read_text(errors="replace").split(), float)
    except ValueError as error:
        raise UserError(
            f"{file} is no homography; give a text file with nine numbers, row by row"
        ) from error
    if numbers.size != 9 or not np.isfinite(numbers).all():
        raise UserError(f"{file} holds {numbers.size} numbers; give nine finite ones")
    h = numbers.reshape(3, 3)
    if not np.linalg.cond(h) < MAX_CONDITION:
        raise UserError(f"the homography in {file} is singular; give one that can be inverted")
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    h = half @ h @ np.linalg.inv(half)
    return h / h[2, 2] if h[2, 2] else h


def maps_into(
    h: Float[np.ndarray, "3 3"],
    reference: UInt8[np.ndarray, "h w"],
    target: UInt8[np.ndarray, "h w"],
) -> bool:
    """True if some part of the reference lies inside the target."""
    (height, width), (there_height, there_width) = reference.shape, target.shape
    x, y = np.meshgrid(np.linspace(0, width, 33), np.linspace(0, height, 33))
    points = np.column_stack([x.ravel(), y.ravel()])
    visible = (np.column_stack([points, np.ones(len(points))]) @ h[2]) > 0
    there = project(h, points[visible])
    return bool(((there >= 0) & (there <= [there_width, there_height])).all(1).any())
