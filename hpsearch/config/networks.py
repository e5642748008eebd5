"""Settings of descriptors, denoisers and inputs."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.losses import Restoration
from hpsearch.config.optimizers import Adam, Constant, Optimizer, Schedule


class ShallowUNet(FrozenConfig):
    """Shallow U-Net, the baseline denoiser of N-HPatches; 59,777 parameters at width 1."""

    kind: Literal["shallow_unet"] = "shallow_unet"
    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on every hidden channel count."""


class UNet(FrozenConfig):
    """A U-Net of 3×3 convolutions that doubles its channels at every level.

    The defaults are the deep U-Net of R1, table 3: 3,787,713 parameters, although
    its text states 1.3M. One more level has 15,324,097, where R1 states 13M for its deeper one
    (``channels=59`` gives 13,023,602). ``convolutions=2`` is the block of Ronneberger et al., as
    R3 describes its network of 3 levels (7,696,705 at 64 channels) and R2 its own of 4; neither
    gives widths or counts.
    """

    kind: Literal["unet"] = "unet"
    levels: int = Field(default=3, ge=1, le=5)
    """Number of times that the map is halved and doubled again."""
    channels: int = Field(default=64, ge=1, le=256)
    """Feature maps at full resolution; each level down has twice as many."""
    convolutions: Literal[1, 2] = 1
    """3×3 convolutions per level, in the encoder and in the decoder."""


class DnCNN(FrozenConfig):
    """DnCNN: a chain of 3×3 convolutions that predicts the noise (Zhang et al. 2017).

    556,096 trainable parameters at depth 17. R2 used it.
    """

    kind: Literal["dncnn"] = "dncnn"
    depth: int = Field(default=17, ge=3, le=30)
    """Number of convolutions."""
    channels: int = Field(default=64, ge=1, le=256)
    """Feature maps between them."""


class DnCNNTransfer(FrozenConfig):
    """Frozen, trained DnCNN followed by a trainable one of a few layers (R2)."""

    kind: Literal["dncnn_transfer"] = "dncnn_transfer"
    front: DnCNN = DnCNN()
    """Shape of the frozen network."""
    weights: str = Field(min_length=1)
    """File of the frozen network's state dict, readable on every worker: saved by ``torch.save``,
    or the artifact of a DnCNN that was trained by hpsearch."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Expected SHA-256 of the file; set it if the file may change, because a trained denoiser is
    shared by all trials with equal settings."""
    head: DnCNN = DnCNN(depth=5)
    """Shape of the trainable network."""


class L2Net(FrozenConfig):
    """L2-Net, the baseline descriptor of N-HPatches; 1,336,032 trainable parameters at width 1.

    With ``final_norm`` and ``unit_norm`` its last layers are those of the original L2-Net and
    HardNet.

    Example:
        >>> L2Net(width=0.25, unit_norm=True).width
        0.25
    """

    former_names: ClassVar[Mapping[str, str]] = {
        "input_norm": "patch_norm",
        "bn_momentum": "norm_momentum",
        "descriptor_dim": "dimensions",
    }

    kind: Literal["l2net"] = "l2net"
    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on every hidden channel count; the dimension of the descriptor is independent."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout probability of the last feature map in training."""
    unit_norm: bool = False
    """Divide every descriptor by its Euclidean norm."""
    input_norm: bool = False
    """Subtract each patch's mean and divide by its standard deviation first (as HardNet does)."""
    final_norm: bool = False
    """Append batch normalization without scale and shift to the last convolution."""
    bn_momentum: float = Field(default=0.01, gt=0, le=1)
    """Weight of one batch in the statistics that batch normalization uses when it describes.

    The baseline's 0.01 still has half of the initial value after 70 batches; with budgets of a few
    hundred steps 0.1 describes better. Training itself is not changed.
    """
    descriptor_dim: int = Field(default=128, ge=2, le=1024)
    """Numbers in a descriptor."""


Denoiser = ShallowUNet | UNet | DnCNN | DnCNNTransfer
Descriptor = L2Net
AnyDenoiser = Annotated[Denoiser, Field(discriminator="kind")]
AnyDescriptor = Annotated[Descriptor, Field()]


class DenoiserTraining(FrozenConfig):
    """Training of a denoiser on (noisy, clean) pairs.

    The denoiser depends only on these settings and the patches, so that trials share it.
    """

    former_names: ClassVar[Mapping[str, str]] = {"optimizer": "optimiser"}

    network: AnyDenoiser = ShallowUNet()
    loss: Restoration = "mae"
    optimizer: Optimizer = Adam()
    schedule: Schedule = Constant()
    batch: int = Field(default=64, ge=1, le=8192)
    """Patches per step."""
    patches: int = Field(default=20_000, ge=1)
    """Training budget in patches seen."""
    seed: int = Field(default=0, ge=0)


class Clean(FrozenConfig):
    """Input of clean patches, without a denoiser."""

    kind: Literal["clean"] = "clean"


class Noisy(FrozenConfig):
    """Input of noisy patches, without a denoiser."""

    kind: Literal["noisy"] = "noisy"


class Mixed(FrozenConfig):
    """Input of clean and noisy patches, without a denoiser, for a descriptor that meets both.

    Which patches of the training set are noisy is drawn once by ``seed``, so that a step depends on
    its row numbers alone.
    """

    kind: Literal["mixed"] = "mixed"
    noisy_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the training patches that are noisy."""
    seed: int = Field(default=0, ge=0)


class Denoised(FrozenConfig):
    """Input through a denoiser in front of the descriptor."""

    former_names: ClassVar[Mapping[str, str]] = {"clean_warmup": "clean_first"}

    kind: Literal["denoised"] = "denoised"
    denoiser: DenoiserTraining = DenoiserTraining()
    train_on: Literal["denoised", "clean"] = "denoised"
    """Training patches of the descriptor; R2 found clean best, R1 denoised slightly better."""
    clean_warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the budget on clean patches before denoised ones (R1's fine-tuning)."""

    @model_validator(mode="after")
    def _fine_tuned_on_denoised(self) -> "Denoised":
        if self.clean_warmup and self.train_on == "clean":
            raise ValueError("clean_warmup is for train_on 'denoised'; leave it out")
        return self


Input = Annotated[Clean | Noisy | Mixed | Denoised, Field(discriminator="kind")]
