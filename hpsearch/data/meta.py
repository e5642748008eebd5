"""What a patch store says about itself."""

from collections.abc import Callable

from pydantic import Field

from hpsearch.config.base import Setting

Progress = Callable[[int, int, str], None]
"""Called with how many sequences are done, of how many, and the name of the latest."""


class NoiseLevels(Setting):
    """Standard deviation of the white Gaussian noise by view, in grey levels.

    With the defaults a small U-Net reaches the error that was published for N-HPatches.
    """

    easy: float = Field(default=10.0, ge=0, le=128)
    """Of ``ref`` and ``e1..e5``."""
    hard: float = Field(default=20.0, ge=0, le=128)
    tough: float = Field(default=30.0, ge=0, le=128)


class StoreMeta(Setting):
    """Where the patches of a store come from and how they may be used."""

    source: str
    licence: str
    noise: NoiseLevels | None = None
    """None where the noisy patches came with the set."""
    split: str = ""
    """Name of the set's own split; empty where it has none."""
    test: tuple[str, ...] = ()
    """Test sequences of the set's own split."""
