"""HPatches-like sequences from photographs: one photograph, five targets, sixteen views a point.

The reference is the photograph itself. Names starting with ``v_`` get targets from other
viewpoints, all others targets in another light. Patches are cut at 65×65 and reduced to 32×32.
"""

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.data.area import shrink
from hpsearch.data.layout import SIDE, VIEW_NAMES, VIEWS, SequencePatches
from hpsearch.data.meta import NoiseLevels
from hpsearch.data.noise import add_noise
from hpsearch.data.photo_detect import Keypoints, detect
from hpsearch.data.photo_geometry import JITTER, inside, jitters, squares
from hpsearch.data.photo_render import cut, illumination_target, viewpoint_target
from hpsearch.data.streams import stream
from hpsearch.errors import UserError
from hpsearch.shapes import Float, UInt8

TARGETS = 5
MARGIN = 3.0
"""Pixels that a patch keeps from the border, where warps and blurs see beyond the photograph."""
EASIEST = 0.35
"""Severity of the first target; the last has 1."""


class PhotoSettings(Setting):
    """How patches are made from photographs."""

    points: int = Field(default=300, ge=1, le=2000)
    """Points a photograph at most."""
    noise: NoiseLevels = NoiseLevels()
    seed: int = Field(default=0, ge=0)


def photo_sequence(
    photo: UInt8[np.ndarray, "h w"], *, name: str, settings: PhotoSettings
) -> SequencePatches:
    """The patches of one grey photograph; a pure function of its arguments.

    Raises:
        UserError: if no patch fits into the photograph.

    """
    found = detect(photo.astype(np.float32), limit=2 * settings.points)
    maps = _view_maps(found, name, settings.seed)
    height, width = photo.shape
    fits = inside(maps, width, height, margin=MARGIN).all(1)
    maps = maps[fits][: settings.points]
    if not len(maps):
        raise UserError(f"no patch fits into {name!r} ({width}×{height}); give a larger picture")
    clean = np.empty((len(maps), VIEWS, SIDE, SIDE), np.uint8)
    clean[:, 0] = shrink(cut(photo, maps[:, 0]))
    for k, (target, homography) in enumerate(_targets(photo, name, settings.seed), start=1):
        for view in (VIEW_NAMES.index(f"{level}{k}") for level in JITTER):
            clean[:, view] = shrink(cut(target, homography @ maps[:, view]))
    noisy = add_noise(clean, name=name, levels=settings.noise, seed=settings.seed)
    return SequencePatches(name, clean, noisy)


def _view_maps(points: Keypoints, name: str, seed: int) -> Float[np.ndarray, "n 16 3 3"]:
    """For each view, the map from [-1, 1]² to the disturbed patch in the reference."""
    n = len(points.sigma)
    upright = squares(points)
    maps = [upright]
    for view, view_name in enumerate(VIEW_NAMES[1:], start=1):
        rng = stream(seed, f"jitter {name}", view)
        maps.append(upright @ jitters(n, JITTER[view_name[0]], rng))
    return np.stack(maps, axis=1)


def _targets(
    photo: UInt8[np.ndarray, "h w"], name: str, seed: int
) -> Iterator[tuple[UInt8[np.ndarray, "h2 w2"], Float[np.ndarray, "3 3"]]]:
    for k, severity in enumerate(np.linspace(EASIEST, 1, TARGETS), start=1):
        rng = stream(seed, f"target {name}", k)
        if name.startswith("v_"):
            yield viewpoint_target(photo, severity=float(severity), rng=rng)
        else:
            yield illumination_target(photo, severity=float(severity), rng=rng), np.eye(3)
