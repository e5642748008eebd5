"""Settings of descriptors, denoisers and inputs."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from hpsearch.config.base import FrozenConfig
from hpsearch.config.custom import CustomNetwork
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


class HeNormal(FrozenConfig):
    """He-normal initial weights, truncated at two standard deviations as in Keras."""

    kind: Literal["he_normal"] = "he_normal"


class Orthogonal(FrozenConfig):
    """Orthogonal initial weights times a gain, as HardNet starts (0.6 in its published code)."""

    kind: Literal["orthogonal"] = "orthogonal"
    gain: float = Field(default=0.6, gt=0, le=10)


class Stage(FrozenConfig):
    """Stage of a ``ConvNet``: blocks of equal width, the first of which may halve the map.

    A plain block is convolution, normalization and activation. A residual block has two of them
    and adds its input before the last activation (He et al., CVPR 2016); where width or side
    change, the input passes a 1×1 convolution with normalization.
    """

    channels: int = Field(ge=1, le=2048)
    """Feature maps, before the factor ``width`` of the network."""
    depth: int = Field(default=1, ge=1, le=8)
    """Number of blocks."""
    kernel: Literal[1, 3, 5, 7] = 3
    """Side of the kernels."""
    reduce: Literal["none", "stride", "max", "blur"] = "none"
    """Halving of the map in the first block: convolution with stride 2, or maximum or blur pooling
    after its activation. Blur pooling is anti-aliased (Zhang, ICML 2019)."""
    residual: bool = False
    activation: Literal["relu", "leaky_relu", "silu", "tlu"] = "relu"
    """``tlu`` is max(x, τ) with a learned τ for each map, made for norm ``frn``."""


class ConvNet(FrozenConfig):
    """Descriptor of convolutional stages, so that its architecture is searched like the rest.

    The defaults are HardNet's network, with 1,334,560 parameters; ``hpsearch.recipes.CONVNETS`` has
    more by name. Patches are rotated by 180° first, as in ``L2Net``, so the kernels of published
    weights must be rotated as well.

    Example:
        >>> ConvNet(stages=(Stage(channels=32), Stage(channels=64, reduce="blur", depth=2))).side
        16
    """

    kind: Literal["convnet"] = "convnet"
    stages: tuple[Stage, ...] = Field(
        default=(
            Stage(channels=32, depth=2),
            Stage(channels=64, depth=2, reduce="stride"),
            Stage(channels=128, depth=2, reduce="stride"),
        ),
        min_length=1,
        max_length=12,
    )
    width: float = Field(default=1.0, gt=0, le=4)
    """Factor on every hidden channel count; the dimension of the descriptor is independent."""
    norm: Literal["batch", "group", "frn"] = "batch"
    """Normalization: batch (Ioffe and Szegedy 2015), group (Wu and He 2018), or filter response
    (Singh and Krishnan 2020), which always has a learned scale and shift."""
    affine: bool = False
    """Learned scale and shift of batch or group normalization."""
    norm_eps: float = Field(default=1e-5, ge=1e-8, le=1e-1)
    """Number that batch or group normalization adds to the variance; ``frn`` adds 1e-6."""
    groups: int = Field(default=8, ge=1, le=256)
    """Groups of group normalization; the largest divisor of the channels that is no larger."""
    bias: bool = False
    """Biases of the convolutions of the stages; the last convolution has one if ``last_bias``."""
    last_bias: bool = False
    input_norm: Literal["none", "patch", "frn"] = "patch"
    """Normalization of the patch: none, minus its mean and divided by its standard deviation
    (HardNet), or filter response normalization with TLU (HyNet)."""
    head: Literal["covering", "pooled"] = "covering"
    """Last layer: a convolution that covers the map, or a linear layer on the mean of the map."""
    final_norm: bool = True
    """Append batch normalization without scale and shift to the last layer."""
    unit_norm: bool = True
    """Divide every descriptor by its Euclidean norm."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout probability of the last feature map in training."""
    bn_momentum: float = Field(default=0.1, gt=0, le=1)
    """Weight of one batch in the statistics that batch normalization uses when it describes."""
    init: Annotated[HeNormal | Orthogonal, Field(discriminator="kind")] = Orthogonal()
    """Initial weights of the convolutions; biases are 0."""
    descriptor_dim: int = Field(default=128, ge=2, le=1024)
    """Numbers in a descriptor."""

    @property
    def side(self) -> int:
        """Side of the last feature map of a 32×32 patch."""
        return 32 >> sum(stage.reduce != "none" for stage in self.stages)

    @model_validator(mode="after")
    def _map_is_left(self) -> "ConvNet":
        if self.side < 1:
            raise ValueError("at most 5 stages can halve a patch of 32×32 pixels")
        if self.side == 1 and any(stage.reduce == "blur" for stage in self.stages):
            raise ValueError("blur pooling needs a map of at least 2×2; halve 4 times at most")
        return self


def _kind_of_descriptor(values: Any) -> str:
    """Kind of a descriptor; ``l2net`` without one, as in configurations that were written first."""
    found = values.get("kind") if isinstance(values, Mapping) else getattr(values, "kind", None)
    return "l2net" if found is None else str(found)


Denoiser = ShallowUNet | UNet | DnCNN | DnCNNTransfer
StoredDescriptor = L2Net | ConvNet
"""Descriptor whose code is in the package."""
Descriptor = StoredDescriptor | CustomNetwork
AnyDenoiser = Annotated[Denoiser, Field(discriminator="kind")]
AnyStoredDescriptor = Annotated[
    Annotated[L2Net, Tag("l2net")] | Annotated[ConvNet, Tag("convnet")],
    Discriminator(_kind_of_descriptor),
]
AnyDescriptor = Annotated[
    Annotated[L2Net, Tag("l2net")]
    | Annotated[ConvNet, Tag("convnet")]
    | Annotated[CustomNetwork, Tag("custom")],
    Discriminator(_kind_of_descriptor),
]


class Compression(FrozenConfig):
    """Projection of descriptors on the principal directions of training patches, after training.

    Descriptors are scaled to unit length, centered, projected, and scaled again, as in HardNet8
    (Pultar 2020). It is part of the model; reports during training are without it.
    """

    descriptor_dim: int = Field(default=128, ge=2, le=1024)
    """Numbers in a compressed descriptor."""
    patches: int = Field(default=10_000, ge=2, le=1_000_000)
    """Training patches that the directions are computed from, at most."""


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
