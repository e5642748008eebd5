"""What the descriptor is given: clean, noisy or denoised patches."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import Setting
from hpsearch.config.losses import Restoration
from hpsearch.config.networks import AnyDenoiser, ShallowUNet
from hpsearch.config.optimisers import Adam, Optimiser
from hpsearch.config.schedules import Constant, Schedule


class DenoiserTrial(Setting):
    """How one denoiser is trained on (noisy, clean) pairs.

    A denoiser depends on this, the seed and the patches alone, so trials share it.
    """

    network: AnyDenoiser = ShallowUNet()
    loss: Restoration = "mae"
    optimiser: Optimiser = Adam()
    schedule: Schedule = Constant()
    batch: int = Field(default=64, ge=1, le=8192)
    """Patches a step."""
    patches: int = Field(default=20_000, ge=1)
    """Training budget in patches seen."""
    seed: int = Field(default=0, ge=0)


class Clean(Setting):
    """Train the descriptor on clean patches, with no denoiser in front."""

    kind: Literal["clean"] = "clean"


class Noisy(Setting):
    """Train the descriptor on noisy patches, with no denoiser in front."""

    kind: Literal["noisy"] = "noisy"


class Denoised(Setting):
    """Put a denoiser in front of the descriptor."""

    kind: Literal["denoised"] = "denoised"
    denoiser: DenoiserTrial = DenoiserTrial()
    train_on: Literal["denoised", "clean"] = "denoised"
    """What the descriptor sees in training; R2 found clean best, R1 denoised slightly better."""
    clean_first: float = Field(default=0.0, ge=0, lt=1)
    """Share of the budget on clean patches before denoised ones (R1's fine-tuning)."""

    @model_validator(mode="after")
    def _fine_tuned_on_denoised(self) -> "Denoised":
        if self.clean_first and self.train_on == "clean":
            raise ValueError("clean_first is for train_on 'denoised'; leave it out")
        return self


Input = Annotated[Clean | Noisy | Denoised, Field(discriminator="kind")]
