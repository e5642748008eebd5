"""Strips of patches as HPatches stores them: one 8-bit grey PNG a view, patches one below another.

The release has strips 65 pixels wide; N-HPatches has 32 and a noisy twin ``X_noise.png`` of each.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from hpsearch.data.area import SOURCE_SIDE, shrink
from hpsearch.data.layout import SIDE, VIEW_NAMES, VIEWS
from hpsearch.errors import UserError
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
    try:
        content = file.read_bytes()
        _check_sums(content)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error) as e:
        raise UserError(f"{file} cannot be decoded ({e}); expected a whole PNG") from e
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
        return Image.open(file, formats=["PNG"])
    except FileNotFoundError as e:
        raise UserError(f"{file} is missing; expected a strip for each of the 16 views") from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as e:
        raise UserError(f"{file} is no readable PNG; expected an 8-bit grey strip") from e
