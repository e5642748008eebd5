"""Additive white Gaussian noise by level, as measured on genuine N-HPatches patches."""

from functools import cache
from statistics import NormalDist

import numpy as np

from hpsearch.data.arrow_header import NoiseLevels
from hpsearch.patch_views import VIEW_NAMES
from hpsearch.rng import rng_for
from hpsearch.shapes import Int, UInt8

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
