"""Import of UBC PhotoTour, also called Brown: Liberty, Notre Dame, Yosemite, and their variants.

A scene is a folder of sheets of 16×16 patches of 64×64 pixels, ``patches0000.bmp`` …; ``info.txt``,
with a line for each patch, row after row of each sheet, whose first number is the patch's 3-D
point; and lists of pairs, ``m50_N_N_0.txt``, with patch, point, an unused number, patch, point and
unused numbers in a line. The last sheet may end with empty patches. All scenes have this format:
those of DoG keypoints, those of Harris keypoints (``liberty_harris``), and those of 2007.

Source: Winder and Brown, CVPR 2007; Brown, Hua and Winder, PAMI 2010; checked against the readers
of torchvision and of HardNet.
"""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.data.arrow_header import (
    NoiseLevels,
    PointViews,
    StoreMeta,
    StoreProgress,
    check_sequence_name,
)
from hpsearch.data.arrow_writer import StoreLayout, preallocated
from hpsearch.data.data_sources import (
    DESCRIPTIONS,
    SHEET,
    actual_file,
    classified_folders,
    reads,
)
from hpsearch.data.images import add_mixed_noise, as_gray, decoding, halve
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.process_pool import imap_ordered, usable_cores
from hpsearch.errors import UserError
from hpsearch.rng import rng_for
from hpsearch.shapes import Int, UInt8
from hpsearch.untrusted import reading

PATCH_SIDE, SHEET_COLUMNS = 64, 16
SHEET_SIDE = PATCH_SIDE * SHEET_COLUMNS
PATCHES_PER_SHEET = SHEET_COLUMNS**2
PAIR_LIST = re.compile(r"m50_(\d+)_\1_0\.txt", re.IGNORECASE)
STANDARD_PAIRS = 100_000
"""List of pairs by which the literature reports the false positive rate at 95 % recall."""
MAX_TEXT_BYTES = 500_000_000
"""Maximum size of a list; the largest official one has 16 MB."""
LICENSE = (
    "UBC PhotoTour (Winder, Brown; pictures of the Photo Tourism project): research use, see its "
    "page. Not checked by hpsearch"
)
MAX_SHEET_WORKERS = 6


class PhototourSettings(FrozenConfig):
    """Settings of an import: noise, seed, and the list of pairs."""

    noise: NoiseLevels = NoiseLevels()
    """Noise that is added; each patch draws the level of one of HPatches' 16 views."""
    seed: int = Field(default=0, ge=0)
    pairs: int | None = Field(default=None, ge=1)
    """Number in the name of the list of pairs; None for 100000, else the longest there is."""


class PhototourImport(NamedTuple):
    """Result of an import: the store and what was skipped."""

    store: PatchStore
    skipped: dict[str, str]
    """Reason for each skipped folder."""


class Scene(NamedTuple):
    """Scene whose lists have been read."""

    name: str
    sheets: list[Path]
    views: PointViews
    row_of: Int[np.ndarray, " patches"]
    """Row of each patch in the store, where the patches of a point are adjacent."""


@reads("phototour")
def import_phototour(
    folder: Path,
    out: Path,
    *,
    settings: PhototourSettings = PhototourSettings(),  # noqa: B008  frozen
    workers: int | None = None,
    progress: StoreProgress | None = None,
) -> PhototourImport:
    """Build a store from the scenes in a folder, one sequence a scene; equal files, equal store.

    Args:
        folder: folder or archive of one scene or several, at any depth.
        out: the store to write.
        settings: noise, seed and list of pairs.
        workers: number of processes; None takes all cores.
        progress: called after every sheet.

    Raises:
        UserError: naming the file, if a list or sheet is missing, damaged, or contradicts another.
    """
    scenes = find_scenes(Path(folder), settings)
    meta = StoreMeta(
        source=f"PhotoTour scenes {', '.join(scene.name for scene in scenes)}",
        license=LICENSE,
        noise=settings.noise,
    )
    total, done = sum(len(scene.sheets) for scene in scenes), 0
    views = [scene.views for scene in scenes]
    with preallocated(
        Path(out),
        names=[scene.name for scene in scenes],
        counts=[len(v.counts) for v in views],
        views=views,
        meta=meta,
    ) as layout:
        for position, scene in enumerate(scenes):
            for _ in _write_scene(scene, position, layout, settings, workers):
                done += 1
                if progress:
                    progress(done, total, scene.name)
        layout.finalize(Path(out), [layout.digests(i) for i in range(len(scenes))])
    return PhototourImport(PatchStore.open(out), {})


def find_scenes(folder: Path, settings: PhototourSettings) -> list[Scene]:
    """Scenes in a folder, with their lists; no sheet is read.

    Raises:
        UserError: if there is none, or a list is missing, damaged or contradicts the sheets.
    """
    found = [part.path for part in classified_folders(folder) if part.kind == "phototour"]
    if not found:
        raise UserError(f"{folder} contains no {DESCRIPTIONS['phototour']}")
    scenes: dict[str, Scene] = {}
    for path in found:
        name = re.sub(r"\W+", "_", path.resolve().name)
        try:
            check_sequence_name(name)
        except ValueError as error:
            raise UserError(f"{path}: {error}; rename it") from error
        if name in scenes:
            raise UserError(f"{folder} contains two scenes {name!r}; rename one, or remove it")
        scenes[name] = _read_scene(path, name, settings)
    return list(scenes.values())


def _read_scene(folder: Path, name: str, settings: PhototourSettings) -> Scene:
    info = actual_file(folder / "info.txt")
    point_of = _read_numbers(info, 1)[:, 0]
    sheets = _sheets(folder)
    needed = -(-len(point_of) // PATCHES_PER_SHEET)
    if len(sheets) != needed:
        raise UserError(
            f"{info} lists {len(point_of):,} patches, which fill {needed:,} sheets, but there are "
            f"{len(sheets):,}; unpack the scene again"
        )
    order, counts = order_by_point(point_of)
    row_of = np.empty_like(order)
    row_of[order] = np.arange(len(order))
    pairs = _read_pairs(folder, point_of, settings.pairs)
    return Scene(name, sheets, PointViews(counts, row_of[pairs]), row_of)


def order_by_point(
    point_of: Int[np.ndarray, " patches"],
) -> tuple[Int[np.ndarray, " patches"], Int[np.ndarray, " points"]]:
    """Patches ordered by point, points in order of their first patch; and patches of each point."""
    _, first, label, counts = np.unique(
        point_of, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.argsort(first, kind="stable")
    rank = np.empty_like(place)
    rank[place] = np.arange(len(place))
    return np.argsort(rank[label.ravel()], kind="stable"), counts[place]


def _sheets(folder: Path) -> list[Path]:
    """Sheets in order.

    Raises:
        UserError: if one is missing between others.
    """
    numbered = {
        int(match[1]): path
        for path in sorted(folder.iterdir())
        if (match := SHEET.fullmatch(path.name)) and path.is_file()
    }
    missing = set(range(len(numbered))) - numbered.keys()
    if missing:
        raise UserError(
            f"{folder} lacks the sheet patches{min(missing):04d}.bmp; unpack the scene again"
        )
    return [numbered[number] for number in sorted(numbered)]


def _read_pairs(
    folder: Path, point_of: Int[np.ndarray, " patches"], wanted: int | None
) -> Int[np.ndarray, "n 2"]:
    """Official pairs of patches; none if the scene has no list.

    Raises:
        UserError: if the list that is wanted is missing, or contradicts ``info.txt``.
    """
    lists = {
        int(match[1]): path
        for path in sorted(folder.iterdir())
        if (match := PAIR_LIST.fullmatch(path.name)) and path.is_file()
    }
    if wanted is not None and wanted not in lists:
        there = ", ".join(str(number) for number in sorted(lists)) or "none"
        raise UserError(
            f"{folder} has no list of pairs m50_{wanted}_{wanted}_0.txt (there: {there}); correct "
            "--pairs"
        )
    if not lists:
        return np.empty((0, 2), np.int64)
    number = wanted or (STANDARD_PAIRS if STANDARD_PAIRS in lists else max(lists))
    found = _read_numbers(lists[number], 6)
    patches, points = found[:, [0, 3]], found[:, [1, 4]]
    outside = ((patches < 0) | (patches >= len(point_of))).any(axis=1)
    if outside.any():
        line = int(outside.argmax())
        raise UserError(
            f"{lists[number]}, line {line + 1}, names patch {patches[line].max()}, but info.txt "
            f"lists patches 0 to {len(point_of) - 1}; unpack the scene again"
        )
    differs = (point_of[patches] != points).any(axis=1)
    if differs.any():
        raise UserError(
            f"{lists[number]}, line {int(differs.argmax()) + 1}, gives another point to a patch "
            "than info.txt; unpack the scene again"
        )
    return patches


def _read_numbers(file: Path, columns: int) -> Int[np.ndarray, "n c"]:
    """First whole numbers of each line.

    Raises:
        UserError: if a line has fewer, or anything else in their place.
    """
    remedy = "unpack the scene again"
    with reading(file, "list of PhotoTour", remedy):
        if file.stat().st_size > MAX_TEXT_BYTES:
            raise ValueError("it is larger than any list")
        lines = file.read_text("ascii", errors="replace").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    numbers = np.empty((len(lines), columns), np.int64)
    for number, line in enumerate(lines):
        try:
            numbers[number] = [int(word) for word in line.split(None, columns)[:columns]]
        except (ValueError, OverflowError) as error:
            raise UserError(
                f"{file}, line {number + 1}, is {line[:40]!r}; expected {columns} whole "
                f"{'number' if columns == 1 else 'numbers'}; {remedy}"
            ) from error
    if not len(numbers):
        raise UserError(f"{file} is empty; {remedy}")
    return numbers


def _write_scene(
    scene: Scene,
    position: int,
    layout: StoreLayout,
    settings: PhototourSettings,
    workers: int | None,
) -> Iterator[None]:
    """Write the patches of a scene, yielding after every sheet."""
    work = partial(_read_sheet, scene=scene.name, settings=settings)
    workers = min(workers or usable_cores(), len(scene.sheets), MAX_SHEET_WORKERS)
    results = imap_ordered(work, enumerate(scene.sheets), workers=workers)
    for number, (clean, noisy) in enumerate(results):
        start = number * PATCHES_PER_SHEET
        rows = scene.row_of[start : start + PATCHES_PER_SHEET]
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            layout.write_rows(position, int(rows[run[0]]), clean[run], noisy=False)
            layout.write_rows(position, int(rows[run[0]]), noisy[run], noisy=True)
        yield


def _read_sheet(
    job: tuple[int, Path], *, scene: str, settings: PhototourSettings
) -> tuple[UInt8[np.ndarray, "256 32 32"], UInt8[np.ndarray, "256 32 32"]]:
    """Clean and noisy patches of a sheet; a pure function of its file, its number and the settings.

    Raises:
        UserError: if it cannot be decoded, or has another size.
    """
    number, file = job
    with (
        decoding(file, "unpack the scene again"),
        Image.open(file, formats=["BMP", "PNG"]) as image,
    ):
        if image.size != (SHEET_SIDE, SHEET_SIDE):
            got = "×".join(map(str, image.size))
            raise UserError(
                f"{file} has {got} pixels; expected {SHEET_SIDE}×{SHEET_SIDE}, 16×16 patches of "
                "64×64; unpack the scene again"
            )
        pixels = np.asarray(as_gray(image))
    grid = pixels.reshape(SHEET_COLUMNS, PATCH_SIDE, SHEET_COLUMNS, PATCH_SIDE).swapaxes(1, 2)
    clean = halve(grid.reshape(-1, PATCH_SIDE, PATCH_SIDE))
    rng = rng_for(settings.seed, f"noise {scene}", number)
    return clean, add_mixed_noise(clean, levels=settings.noise, rng=rng)
