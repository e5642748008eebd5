"""Networks and what they are given: descriptors, denoisers, inputs."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.losses import Restoration
from hpsearch.config.optimizers import Adam, Constant, Optimizer, Schedule


class ShallowUNet(FrozenConfig):
    """The baseline denoiser of N-HPatches; 59,777 parameters at width 1."""

    kind: Literal["shallow_unet"] = "shallow_unet"
    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on every hidden channel count."""


class UNet(FrozenConfig):
    """A U-Net of 3×3 convolutions that doubles its channels at every level.

    The defaults are the deep U-Net that R1 prints in its table 3: 3,787,713 parameters, although
    its text says 1.3M. One level more has 15,324,097, where R1 says 13M for its deeper one
    (``channels=59`` gives 13,023,602). ``convolutions=2`` is the block of Ronneberger et al., as
    R3 describes its network of 3 levels (7,696,705 at 64 channels) and R2 its own of 4; neither
    gives widths or counts.
    """

    kind: Literal["unet"] = "unet"
    levels: int = Field(default=3, ge=1, le=5)
    """Times the map is halved and doubled again."""
    channels: int = Field(default=64, ge=1, le=256)
    """Feature maps at full resolution; each level down has twice as many."""
    convolutions: Literal[1, 2] = 1
    """3×3 convolutions a level, on the way down and on the way up."""


class DnCNN(FrozenConfig):
    """A chain of 3×3 convolutions that predicts the noise (Zhang et al. 2017).

    556,096 trainable parameters at depth 17. R2 used it.
    """

    kind: Literal["dncnn"] = "dncnn"
    depth: int = Field(default=17, ge=3, le=30)
    """D, convolutions from input to output."""
    channels: int = Field(default=64, ge=1, le=256)
    """Feature maps between them."""


class DnCNNTransfer(FrozenConfig):
    """A trained DnCNN, frozen with its statistics, then a trainable one of a few layers (R2)."""

    kind: Literal["dncnn_transfer"] = "dncnn_transfer"
    front: DnCNN = DnCNN()
    """Shape of the frozen network."""
    weights: str = Field(min_length=1)
    """File of the frozen network's state dict, readable wherever the trial runs: saved by
    ``torch.save``, or the artifact of a DnCNN that was trained here."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Checked against the file where given; say it if the file may ever change, because a trained
    denoiser is shared by all trials of equal settings."""
    head: DnCNN = DnCNN(depth=5)
    """Shape of the trainable network."""


class L2Net(FrozenConfig):
    """The baseline descriptor of N-HPatches; 1,336,032 trainable parameters at width 1.

    With ``final_norm`` and ``unit_norm`` it ends as the original L2-Net and HardNet do.
    """

    kind: Literal["l2net"] = "l2net"
    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on every hidden channel count; the descriptor's length stays."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the last feature map that is dropped while training."""
    unit_norm: bool = False
    """Divide every descriptor by its Euclidean norm."""
    patch_norm: bool = False
    """Subtract each patch's mean and divide by its standard deviation first (as HardNet does)."""
    final_norm: bool = False
    """Batch normalization without scale and shift after the last convolution."""
    norm_momentum: float = Field(default=0.01, gt=0, le=1)
    """Weight of one batch in the statistics that batch normalization uses when it describes.

    The baseline's 0.01 still remembers half of its start after 70 batches; with budgets of a few
    hundred steps 0.1 describes better. Training itself is not changed.
    """
    dimensions: int = Field(default=128, ge=2, le=1024)
    """Numbers in a descriptor."""


Denoiser = ShallowUNet | UNet | DnCNN | DnCNNTransfer
Descriptor = L2Net
AnyDenoiser = Annotated[Denoiser, Field(discriminator="kind")]
AnyDescriptor = Annotated[Descriptor, Field()]


class DenoiserTraining(FrozenConfig):
    """How one denoiser is trained on (noisy, clean) pairs.

    A denoiser depends on this, the seed and the patches alone, so trials share it.
    """

    network: AnyDenoiser = ShallowUNet()
    loss: Restoration = "mae"
    optimiser: Optimizer = Adam()
    schedule: Schedule = Constant()
    batch: int = Field(default=64, ge=1, le=8192)
    """Patches a step."""
    patches: int = Field(default=20_000, ge=1)
    """Training budget in patches seen."""
    seed: int = Field(default=0, ge=0)


class Clean(FrozenConfig):
    """Train the descriptor on clean patches, with no denoiser in front."""

    kind: Literal["clean"] = "clean"


class Noisy(FrozenConfig):
    """Train the descriptor on noisy patches, with no denoiser in front."""

    kind: Literal["noisy"] = "noisy"


class Denoised(FrozenConfig):
    """Put a denoiser in front of the descriptor."""

    kind: Literal["denoised"] = "denoised"
    denoiser: DenoiserTraining = DenoiserTraining()
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
