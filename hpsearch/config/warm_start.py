"""Where a descriptor's weights come from before its own training."""

from pydantic import Field

from hpsearch.config.base import Setting
from hpsearch.config.losses import HardMargin, Triplet
from hpsearch.config.optimisers import SGD, Optimiser
from hpsearch.config.sampling import RandomTriplets


class WarmStart(Setting):
    """Weights of a descriptor trained on random triplets first, as R3 starts batch hard.

    They depend on this, the descriptor's shape, its input and the patches alone, so trials share
    them, and the trial's own budget is untouched.
    """

    patches: int = Field(default=20_000, ge=1)
    """Budget of the first training, in patches seen."""
    loss: Triplet = Triplet(distance="euclidean", margin=HardMargin())
    sampler: RandomTriplets = RandomTriplets()
    optimiser: Optimiser = SGD()
    seed: int = Field(default=0, ge=0)
