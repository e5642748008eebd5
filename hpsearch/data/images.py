"""Pictures and patches from files: untrusted decoding, area downsampling, HPatches' noise."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import NormalDist

import numpy as np
from PIL import Image

from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.errors import UserError
from hpsearch.patch_views import SIDE, VIEW_NAMES
from hpsearch.rng import rng_for
from hpsearch.shapes import Int, UInt8
from hpsearch.untrusted import reason


def as_gray(picture: Image.Image) -> Image.Image:
    """Picture of 8-bit gray levels; one of 16 bits is scaled, which Pillow would clip."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture, np.uint32) >> 8).astype(np.uint8))
    return picture.convert("L")


SOURCE_SIDE = 65
"""Side of a patch in the HPatches release, in pixels."""
BLOCK_ROWS = (
    48  # patches whose intermediate sums stay in a core's cache: four times faster than all
)


def area_downsample(patches: UInt8[np.ndarray, "n 65 65"]) -> UInt8[np.ndarray, "n 32 32"]:
    """Downsample by area: a new pixel is the mean of the area it covers, rounded half up.

    A new pixel i covers 65/32 old ones from 2i + i/32 on: a share 1 - i/32 of pixel 2i, all of
    2i + 1 and (i + 1)/32 of 2i + 2. In 32nds the weights are whole, so the result is exact.
    """
    small = np.empty((len(patches), SIDE, SIDE), np.uint8)
    for start in range(0, len(patches), BLOCK_ROWS):
        small[start : start + BLOCK_ROWS] = _downsample_block(patches[start : start + BLOCK_ROWS])
    return small


def _downsample_block(patches: UInt8[np.ndarray, "n 65 65"]) -> Int[np.ndarray, "n 32 32"]:
    before = np.arange(SIDE, 0, -1)
    after = np.arange(1, SIDE + 1)
    first, last = before.astype(np.uint16)[:, None], after.astype(np.uint16)[:, None]
    high = patches[:, 0:-1:2] * first
    high += patches[:, 1::2] * np.uint16(SIDE)
    high += patches[:, 2::2] * last
    both = high[..., 0:-1:2] * before.astype(np.uint32)
    both += high[..., 1::2] * np.uint32(SIDE)
    both += high[..., 2::2] * after.astype(np.uint32)
    both += SOURCE_SIDE**2 // 2
    both //= SOURCE_SIDE**2
    return both


@contextmanager
def decoding(file: Path, remedy: str) -> Iterator[None]:
    """Decode an untrusted picture inside the block.

    Pictures above Pillow's limit (89 million pixels) are rejected before they are decoded.

    Args:
        file: the picture.
        remedy: expected content, or advice to the user, in the error message.

    Raises:
        UserError: naming the file and the cause.
        FileNotFoundError: if the file is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (UserError, FileNotFoundError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{file} has too many pixels according to its header; {remedy}") from error
    except Exception as error:  # a decoder of crafted bytes may raise anything
        raise UserError(f"{file} cannot be decoded ({reason(error)}); {remedy}") from error


NUM_QUANTILES = 1 << 16


def add_noise(
    clean: UInt8[np.ndarray, "n 16 32 32"],
    *,
    name: str,
    levels: NoiseLevels,
    seed: int = 0,
    out: UInt8[np.ndarray, "n 16 32 32"] | None = None,
) -> UInt8[np.ndarray, "n 16 32 32"]:
    """Noisy versions of a sequence's patches, rounded and clipped to 0..255.

    The noise depends on the seed, the name of the sequence and the view, not on the pixels.
    ``out`` may be ``clean`` itself.
    """
    noisy = np.empty_like(clean) if out is None else out
    for view, view_name in enumerate(VIEW_NAMES):
        rng = rng_for(seed, f"noise {name}", view)
        gray = _sample_noise(deviation(levels, view_name), clean[:, view].shape, rng)
        gray += clean[:, view]
        noisy[:, view] = gray.clip(0, 255, out=gray)
    return noisy


def add_mixed_noise(
    clean: UInt8[np.ndarray, "n 32 32"], *, levels: NoiseLevels, rng: np.random.Generator
) -> UInt8[np.ndarray, "n 32 32"]:
    """Noisy versions of patches without levels, rounded and clipped to 0..255.

    Each patch draws the level of one of HPatches' 16 views, so all have HPatches' mixture.
    """
    sigmas = np.array([deviation(levels, name) for name in VIEW_NAMES])
    drawn, noisy = sigmas[rng.integers(len(sigmas), size=len(clean))], np.empty_like(clean)
    for sigma in np.unique(drawn):
        chosen = drawn == sigma
        gray = _sample_noise(float(sigma), clean[chosen].shape, rng) + clean[chosen]
        noisy[chosen] = gray.clip(0, 255)
    return noisy


def halve(patches: UInt8[np.ndarray, "n 64 64"]) -> UInt8[np.ndarray, "n 32 32"]:
    """Downsample by area: the mean of 2×2 pixels, rounded half up.

    At a factor of two this is also what OpenCV's bilinear ``resize`` computes, by which HardNet and
    its successors reduce PhotoTour.
    """
    n, height, width = patches.shape
    blocks = patches.reshape(n, height // 2, 2, width // 2, 2)
    return ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)


def deviation(levels: NoiseLevels, view_name: str) -> float:
    """Standard deviation of one view's noise, in gray levels."""
    return {"h": levels.hard, "t": levels.tough}.get(view_name[0], levels.easy)


def _sample_noise(
    sigma: float, shape: tuple[int, ...], rng: np.random.Generator
) -> Int[np.ndarray, "..."]:
    """Gaussian noise rounded to whole gray levels; pixels are whole, so the sum rounds alike."""
    count = int(np.prod(shape))
    raw = rng.bit_generator.random_raw(-(-count // 4)).view(np.uint16)[:count]
    return _noise_quantiles(sigma).take(raw).reshape(shape)


@cache
def _noise_quantiles(sigma: float) -> Int[np.ndarray, " quantiles"]:
    """Rounded Gaussian quantiles: four times faster than drawing normals, exact within 2^-17."""
    half = NormalDist().inv_cdf
    upper = np.array([half(0.5 + (i + 0.5) / NUM_QUANTILES) for i in range(NUM_QUANTILES // 2)])
    return np.rint(sigma * np.concatenate([-upper[::-1], upper])).astype(np.int16)
