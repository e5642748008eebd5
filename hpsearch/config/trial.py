"""One trial as one value."""

from typing import Literal

from pydantic import Field, model_validator

from hpsearch.config.base import Setting
from hpsearch.config.inputs import Input, Noisy
from hpsearch.config.losses import BatchHard, Loss, Triplet
from hpsearch.config.networks import AnyDescriptor, L2Net
from hpsearch.config.optimisers import SGD, Optimiser
from hpsearch.config.sampling import RandomTriplets, Sampler, SxK

ACCEPTS: dict[type, tuple[type, ...]] = {Triplet: (RandomTriplets,), BatchHard: (SxK,)}
"""Which samplers make batches that a loss can read."""


class TrialConfig(Setting):
    """Everything that decides what a trial computes; the defaults are the coursework's baseline."""

    input: Input = Noisy()
    descriptor: AnyDescriptor = L2Net()
    loss: Loss = Triplet()
    sampler: Sampler = RandomTriplets()
    optimiser: Optimiser = SGD()
    patches: int = Field(100_000, ge=1)
    """Budget in patches seen by the descriptor."""
    evaluate_on: Literal["noisy", "clean"] = "noisy"
    """Raw patches that the pipeline is scored on; keep it fixed within one search."""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _loss_reads_batches(self) -> "TrialConfig":
        accepted = ACCEPTS[type(self.loss)]
        if not isinstance(self.sampler, accepted):
            names = " or ".join(kind.__name__ for kind in accepted)
            raise ValueError(
                f"loss {self.loss.kind!r} needs a sampler of type {names}, got {self.sampler.kind!r}"
            )
        return self
