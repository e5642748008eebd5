"""How training patches are varied."""

from typing import Literal

from pydantic import Field

from hpsearch.config.base import Setting


class Augmentation(Setting):
    """Random changes of training patches; the default changes nothing."""

    turns: Literal["none", "patch", "point"] = "none"
    """Flips and 90° rotations: each patch its own, or all patches of a point alike.

    R3: each patch its own nearly doubled the loss; alike for a point was proposed and not tried.
    """
    crop: float = Field(default=0.0, ge=0, le=0.5)
    """Largest share of the side that is cut off, before what is left is scaled up again."""
    brightness: float = Field(default=0.0, ge=0, le=128)
    """Largest shift, in grey levels."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Largest |log| of the factor on the deviation from the patch's mean."""
