"""Import of one's own correspondences: arrays of patches with the point of each.

Any source of tracks fits, such as the 3-D points of COLMAP or the depth maps of MegaDepth: a patch
is cut around each observation of a point.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
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
from hpsearch.data.images import SOURCE_SIDE, add_mixed_noise, area_downsample, halve
from hpsearch.data.patch_store import PatchStore
from hpsearch.data.phototour import PATCH_SIDE, order_by_point
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE
from hpsearch.rng import rng_for
from hpsearch.shapes import Int, UInt8
from hpsearch.untrusted import load_npy

SIDES = (SIDE, PATCH_SIDE, SOURCE_SIDE)
CHUNK_PATCHES = 4096
"""Patches in memory at once, 4 MiB of 32×32."""


class ArraySettings(FrozenConfig):
    """Settings of an import: noise and seed."""

    noise: NoiseLevels = NoiseLevels()
    """Noise that is added; each patch draws the level of one of HPatches' 16 views."""
    seed: int = Field(default=0, ge=0)


class ArraySequence(NamedTuple):
    """Patches of one sequence."""

    name: str
    rows: Int[np.ndarray, " patches"]
    """Rows of the array in the order of the store, where the patches of a point are adjacent."""
    counts: Int[np.ndarray, " points"]


def import_arrays(
    patches: Path,
    out: Path,
    *,
    points: Path,
    sequences: Path | None = None,
    settings: ArraySettings = ArraySettings(),  # noqa: B008  frozen
    progress: StoreProgress | None = None,
) -> PatchStore:
    """Build a store from arrays; patches of one point in one sequence are its views.

    Args:
        patches: .npy file of patches (n, s, s), uint8, s = 32, 64 or 65; read in pieces.
        out: the store to write.
        points: .npy file of n whole numbers or texts, one per point.
        sequences: .npy file of n names; sequences are trained, validated and tested as a whole.
            None makes one, named as the file of the patches.
        settings: noise and seed.
        progress: called after each sequence.

    Raises:
        UserError: naming the file, if an array is missing, has another shape or type, or a name
            cannot be that of a sequence.
    """
    pixels = _load(patches)
    if pixels.ndim != 3 or pixels.shape[1:] not in [(s, s) for s in SIDES] or not len(pixels):
        shape = "×".join(map(str, pixels.shape))
        raise UserError(
            f"{patches} has the shape {shape}; give patches of n×32×32, n×64×64 or n×65×65"
        )
    if pixels.dtype != np.uint8:
        raise UserError(f"{patches} holds {pixels.dtype}; give gray levels 0 to 255 as uint8")
    found = _group(
        _load_labels(points, len(pixels), "points"),
        None if sequences is None else _load_labels(sequences, len(pixels), "sequences"),
        re.sub(r"\W+", "_", patches.stem),
    )
    meta = StoreMeta(source=f"arrays in {patches.name}", license="unknown", noise=settings.noise)
    with preallocated(
        Path(out),
        names=[sequence.name for sequence in found],
        counts=[len(sequence.counts) for sequence in found],
        views=[PointViews(sequence.counts) for sequence in found],
        meta=meta,
    ) as layout:
        for position, sequence in enumerate(found):
            _write_sequence(pixels, sequence, position, layout, settings)
            if progress:
                progress(position + 1, len(found), sequence.name)
        layout.finalize(Path(out), [layout.digests(i) for i in range(len(found))])
    return PatchStore.open(out)


def _load(file: Path) -> np.ndarray[Any, Any]:
    return load_npy(file, "write it with numpy.save, without objects")


def _load_labels(file: Path, count: int, option: str) -> np.ndarray[Any, Any]:
    labels = _load(file)
    if labels.shape != (count,):
        shape = "×".join(map(str, labels.shape)) or "no"
        raise UserError(
            f"{file} has {shape} values, but there are {count:,} patches; give one value for each "
            f"patch to --{option}"
        )
    if labels.dtype.kind not in ("US" if option == "sequences" else "iuUS"):
        wanted = "names" if option == "sequences" else "whole numbers or texts"
        raise UserError(f"{file} holds {labels.dtype}; give {wanted} to --{option}")
    return np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else labels


def _group(points: np.ndarray, names: np.ndarray | None, default: str) -> list[ArraySequence]:
    """Sequences in the order of their first patches."""
    if names is None:
        names = np.full(len(points), default)
    unique, first, label = np.unique(names, return_index=True, return_inverse=True)
    found = []
    for index in np.argsort(first):
        name = str(unique[index])
        try:
            check_sequence_name(name)
        except ValueError as error:
            raise UserError(str(error)) from error
        rows = np.flatnonzero(label.ravel() == index)
        order, counts = order_by_point(np.unique(points[rows], return_inverse=True)[1].ravel())
        found.append(ArraySequence(name, rows[order], counts))
    return found


def _write_sequence(
    pixels: UInt8[np.ndarray, "n s s"],
    sequence: ArraySequence,
    position: int,
    layout: StoreLayout,
    settings: ArraySettings,
) -> None:
    for number, start in enumerate(range(0, len(sequence.rows), CHUNK_PATCHES)):
        clean = _downsample(np.asarray(pixels[sequence.rows[start : start + CHUNK_PATCHES]]))
        rng = rng_for(settings.seed, f"noise {sequence.name}", number)
        noisy = add_mixed_noise(clean, levels=settings.noise, rng=rng)
        layout.write_rows(position, start, clean, noisy=False)
        layout.write_rows(position, start, noisy, noisy=True)


def _downsample(patches: UInt8[np.ndarray, "n s s"]) -> UInt8[np.ndarray, "n 32 32"]:
    match patches.shape[1]:
        case 64:
            return halve(patches)
        case 65:
            return area_downsample(patches)
        case _:
            return patches
