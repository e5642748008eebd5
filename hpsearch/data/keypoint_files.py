"""Keypoints of other programs: OpenCV's and COLMAP's layouts, read and written.

OpenCV's layout is x, y, size, angle: integers are the centers of pixels, the size is 2 σ, the angle
is in degrees from the x axis toward the y axis, and -1 means that there is none. COLMAP's text file
has a line with the number of features and 128, and one line a feature: x, y, scale σ, orientation
in radians, 128 numbers in 0…255; (0.5, 0.5) is the center of the first pixel, as everywhere here.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.photo_keypoints import Keypoints
from hpsearch.errors import UserError
from hpsearch.shapes import Float, Int, UInt8
from hpsearch.untrusted import check_is_file, load_npy

COLMAP_HEADER = re.compile(r"\s*(\d+)\s+(\d+)\s*")
COLMAP_DIMENSIONS = 128
COLMAP_COLUMNS = 4
LAYOUT = "give rows of x, y, size, angle as OpenCV, or COLMAP's text file of features"


def read_keypoints(file: Path) -> Keypoints:
    """Keypoints of a text file in OpenCV's or COLMAP's layout, or of a ``.npy`` array in OpenCV's.

    Numbers are separated by commas or blanks; one line of names may come first.

    Raises:
        UserError: naming the file and the line, if it is neither.
    """
    check_is_file(file)
    if file.suffix == ".npy":
        return as_keypoints(load_npy(file, LAYOUT), source=str(file))
    lines = file.read_text(errors="replace").splitlines()
    if lines and (header := COLMAP_HEADER.fullmatch(lines[0])):
        return _from_colmap(lines[1:], int(header[1]), file)
    start = 1 if lines and re.match(r"\s*[A-Za-z_]", lines[0]) else 0
    rows = [
        _numbers(line, file, number)
        for number, line in enumerate(lines[start:], start=start + 1)
        if line.strip()
    ]
    return as_keypoints(rows, source=str(file))


def as_keypoints(keypoints: Any, *, source: str = "keypoints") -> Keypoints:
    """Keypoints of an array (n, 4) in OpenCV's layout, or of a sequence of OpenCV's ``KeyPoint``.

    Args:
        keypoints: the array or sequence.
        source: name of it in an error message.

    Raises:
        UserError: if a number is missing, not finite, or a size is not positive.
    """
    if isinstance(keypoints, Keypoints):
        return keypoints
    if (
        not isinstance(keypoints, np.ndarray)
        and len(keypoints)
        and all(hasattr(k, "pt") for k in keypoints)
    ):
        keypoints = [(*k.pt, k.size, k.angle) for k in keypoints]
    try:
        rows = np.asarray(keypoints, float)
    except (TypeError, ValueError) as error:
        raise UserError(f"{source} are not rows of numbers; {LAYOUT}") from error
    if not rows.size:
        raise UserError(f"{source} has no keypoints; {LAYOUT}")
    if rows.ndim != 2 or rows.shape[1] != COLMAP_COLUMNS:
        raise UserError(f"{source} has the shape {rows.shape}; {LAYOUT}")
    wrong = np.flatnonzero(~np.isfinite(rows).all(1) | (rows[:, 2] <= 0))
    if len(wrong):
        raise UserError(
            f"keypoint {wrong[0] + 1} of {source} is {rows[wrong[0]].tolist()}; sizes must be "
            "positive, and all numbers finite"
        )
    angle = np.where(rows[:, 3] == -1, 0, np.deg2rad(rows[:, 3]))
    return Keypoints(rows[:, :2] + 0.5, rows[:, 2] / 2, angle)


def opencv_rows(keypoints: Keypoints) -> Float[np.ndarray, "n 4"]:
    """Keypoints in OpenCV's layout."""
    degrees = np.rad2deg(keypoints.angle) % 360
    return np.column_stack([keypoints.xy - 0.5, 2 * keypoints.sigma, degrees])


def colmap_features(keypoints: Keypoints, descriptors: Float[np.ndarray, "n 128"]) -> str:
    """Text of COLMAP's ``feature_importer``.

    Raises:
        UserError: if descriptors have another dimension than COLMAP's 128.
    """
    if descriptors.shape[1] != COLMAP_DIMENSIONS:
        raise UserError(
            f"COLMAP takes descriptors of {COLMAP_DIMENSIONS} numbers, but this model's have "
            f"{descriptors.shape[1]}; use another model"
        )
    places = np.column_stack([keypoints.xy, keypoints.sigma, keypoints.angle])
    lines = [f"{len(places)} {COLMAP_DIMENSIONS}"]
    for place, levels in zip(places, to_bytes(descriptors), strict=True):
        lines.append(" ".join([*(f"{x:.6f}" for x in place), *map(str, levels.tolist())]))
    return "\n".join(lines) + "\n"


def to_bytes(descriptors: Float[np.ndarray, "n d"]) -> UInt8[np.ndarray, "n d"]:
    """Descriptors in 0…255: those without negative numbers from 0, others with 0 at 128."""
    largest = max(float(np.abs(descriptors).max(initial=0)), 1e-12)
    if (descriptors >= 0).all():
        return np.rint(255 * descriptors / largest).astype(np.uint8)
    return np.rint(128 + 127 * descriptors / largest).astype(np.uint8)


def colmap_matches(names: Sequence[str], matches: Int[np.ndarray, "m 2"]) -> str:
    """Text of COLMAP's ``matches_importer`` for one pair: names of pictures, pairs of numbers."""
    lines = [f"{names[0]} {names[1]}", *(f"{i} {j}" for i, j in matches.tolist())]
    return "\n".join(lines) + "\n\n"


def _from_colmap(lines: Sequence[str], count: int, file: Path) -> Keypoints:
    found = [line for line in lines if line.strip()]
    if len(found) != count:
        raise UserError(f"{file} promises {count} features, but has {len(found)}; {LAYOUT}")
    numbers = [_numbers(line, file, n)[:COLMAP_COLUMNS] for n, line in enumerate(found, start=2)]
    for n, row in enumerate(numbers, start=2):
        if len(row) < COLMAP_COLUMNS or not np.isfinite(row).all() or row[2] <= 0:
            raise UserError(f"{file}, line {n} has no x, y, positive scale, orientation; {LAYOUT}")
    rows = np.array(numbers).reshape(-1, COLMAP_COLUMNS)
    if not len(rows):
        raise UserError(f"{file} has no keypoints; {LAYOUT}")
    return Keypoints(rows[:, :2], rows[:, 2], rows[:, 3])


def _numbers(line: str, file: Path, number: int) -> list[float]:
    try:
        found = [float(word) for word in re.split(r"[,;\s]+", line.strip())]
    except ValueError as error:
        raise UserError(f"{file}, line {number} is not a row of numbers; {LAYOUT}") from error
    if len(found) < COLMAP_COLUMNS:
        raise UserError(f"{file}, line {number} has {len(found)} numbers; {LAYOUT}")
    return found
