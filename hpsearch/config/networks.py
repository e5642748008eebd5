"""Denoisers and descriptors."""

from typing import Annotated, Literal

from pydantic import Field

from hpsearch.config.base import Setting


class ShallowUNet(Setting):
    """The baseline denoiser of N-HPatches; 59,777 parameters at width 1."""

    kind: Literal["shallow_unet"] = "shallow_unet"
    width: float = Field(1.0, gt=0, le=4)
    """Factor on every hidden channel count."""


class L2Net(Setting):
    """The baseline descriptor of N-HPatches; 1,336,032 trainable parameters at width 1."""

    kind: Literal["l2net"] = "l2net"
    width: float = Field(1.0, gt=0, le=4)
    """Factor on every hidden channel count; the descriptor keeps its 128 numbers."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of the last feature map that is dropped while training."""
    unit_norm: bool = False
    """Divide every descriptor by its Euclidean norm."""
    patch_norm: bool = False
    """Subtract each patch's mean and divide by its standard deviation first (as HardNet does)."""


Denoiser = ShallowUNet
Descriptor = L2Net
AnyDenoiser = Annotated[Denoiser, Field()]
AnyDescriptor = Annotated[Descriptor, Field()]
