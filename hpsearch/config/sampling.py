"""Which patches make a batch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import Setting

VIEWS = 16
"""Patches of one point: ref, e1..e5, h1..h5, t1..t5."""


class RandomTriplets(Setting):
    """Anchor and positive are two views of one point, the negative any view of another.

    ``tough_until=1`` is R2's tough positive, ``far_from=0`` its far negative, and 0.2 with 0.9 its
    curriculum (10 epochs tough, 35 regular, 5 far).
    """

    kind: Literal["random_triplets"] = "random_triplets"
    batch: int = Field(default=50, ge=1, le=8192)
    """Triplets a batch; a batch is three times as many patches."""
    tough_until: float = Field(default=0.0, ge=0, le=1)
    """Share of the budget, in patches seen, during which positives are tough views (t1..t5)."""
    far_from: float = Field(default=1.0, ge=0, le=1)
    """Share of the budget from which on negatives are of another sequence."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return 3 * self.batch


class Pairs(Setting):
    """Two distinct views of each of n distinct points."""

    kind: Literal["pairs"] = "pairs"
    batch: int = Field(default=128, ge=2, le=4096)
    """Pairs a batch; a batch is twice as many patches."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return 2 * self.batch


class SxK(Setting):
    """S distinct points, K distinct views of each."""

    kind: Literal["sxk"] = "sxk"
    groups: int = Field(default=32, ge=2, le=2048)
    """S, points a batch."""
    views: int = Field(default=4, ge=2, le=VIEWS)
    """K, views of each point."""

    @property
    def patches(self) -> int:
        """Patches a batch."""
        return self.groups * self.views

    @model_validator(mode="after")
    def _fits(self) -> "SxK":
        if self.patches > 4096:
            raise ValueError(f"S·K must be at most 4096 patches, got {self.patches}")
        return self


Sampler = Annotated[RandomTriplets | Pairs | SxK, Field(discriminator="kind")]
