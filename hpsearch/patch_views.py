"""The 16 views of a point, in the axis order of every array of patches or descriptors."""

import numpy as np

from hpsearch.shapes import Int

SIDE = 32
"""Height and width of a patch, in pixels."""

LEVELS = ("easy", "hard", "tough")
"""Levels of geometric jitter (and of noise): views e1..e5, h1..h5, t1..t5."""

IMAGES_PER_LEVEL = 5
"""Target images of a sequence; image 0 is the reference."""

VIEW_NAMES = (
    "ref",
    *(f"{level[0]}{image}" for level in LEVELS for image in range(1, IMAGES_PER_LEVEL + 1)),
)
"""``ref, e1..e5, h1..h5, t1..t5``: names of the official strips and descriptor files."""

VIEWS = len(VIEW_NAMES)
"""Number of views of a point: 16."""

TASKS = ("verification", "matching", "retrieval")
"""Tasks of the benchmark, each scored by mAP."""


def view_of(image: Int[np.ndarray, " n"], *, level: int) -> Int[np.ndarray, " n"]:
    """Index into ``VIEW_NAMES`` of images 0..5 at a level 0..2; image 0 is always ``ref``.

    Example:
        >>> view_of(np.array([0, 1, 5]), level=2).tolist()
        [0, 11, 15]
    """
    return np.where(image == 0, 0, IMAGES_PER_LEVEL * level + image)
