"""How a trial computes, which is no part of what it computes."""

from typing import Literal

from hpsearch.config.base import Setting

Device = Literal["auto", "cpu", "cuda", "xla"]
"""``auto`` is CUDA where the machine has it, else the CPU."""

Precision = Literal["auto", "float32", "bfloat16"]
"""What convolutions of a descriptor in training compute in; ``auto`` is bfloat16 on accelerators.

Weights, losses, denoisers and all that is scored stay in float32: 8 bits of mantissa are coarser
than a grey level. On a CPU without bfloat16 units bfloat16 is many times slower.
"""


class Computing(Setting):
    """Where and in which numbers networks compute; the same for all trials of a search."""

    device: Device = "auto"
    """Found anew on every machine that runs a trial."""
    precision: Precision = "auto"
    compiled: bool = False
    """Compile the descriptor's training (``torch.compile``): tens of seconds for the first trial on
    a machine, fewer for the next, which find what was compiled in ``TORCHINDUCTOR_CACHE_DIR`` (by
    default a folder in the machine's temporary one). So it is for long budgets."""
    deterministic: bool = False
    """Refuse operations whose result varies from run to run on one machine."""


AS_FOUND = Computing()
"""What suits the machine."""
