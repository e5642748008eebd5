"""Where tensors live and how networks compute; chosen once, at the edge."""

import ctypes
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.config import ComputeConfig, Precision
from hpsearch.data.patch_store import Patches
from hpsearch.errors import UserError
from hpsearch.shapes import Float, Int, UInt8
from hpsearch.training.cuda_graphs import CudaRunner, StepLauncher


@dataclass(frozen=True)
class LazyRows:
    """Looks like a (rows, 32, 32) array of uint8 to whoever indexes it by row numbers."""

    patches: Patches
    noisy: bool

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 32 32"]:
        return self.patches.gather(rows, noisy=self.noisy)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.patches.load_all(noisy=self.noisy).reshape(-1, 32, 32)


GatherFn = Callable[[np.ndarray | Tensor], Float[Tensor, "n 1 32 32"]]
"""Row numbers (an array, or a tensor on the device) in, patches on the device in gray levels 0…255
out."""

MALLOPT_SETTINGS = ((-4, 0), (-1, 2**31 - 1), (-2, 2**26))
"""M_MMAP_MAX: nothing by mmap; M_TRIM_THRESHOLD: return nothing; M_TOP_PAD: grow by 64 MiB."""

Network = TypeVar("Network", bound=nn.Module)


class Indexable(Protocol):
    """Patches (n, 32, 32) of uint8, indexed by row numbers: an array, or rows of a mapped store."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...

    def __array__(self) -> np.ndarray: ...


def choose_device(name: str = "auto") -> torch.device:
    """A device by name: ``auto`` takes CUDA where there is one.

    Raises:
        UserError: if the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda", "xla"):
        raise UserError(f"unknown device {name!r}; choose auto, cpu, cuda or xla")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is visible to torch; use --device cpu")
    if name == "xla":
        return torch.device(_import_xla().device())
    return torch.device(name)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How a network computes in training."""

    device: torch.device
    precision: Precision = "auto"
    compiled: bool = False
    graphed: bool | Literal["auto"] = "auto"
    deterministic: bool = False

    @classmethod
    def resolve(cls, config: ComputeConfig) -> "Compute":
        """What ``config`` means on this machine.

        Raises:
            UserError: if the device, or the compiler that it asks for, is not there.
        """
        device = choose_device(config.device)
        if config.compiled and device.type == "cpu" and cpp_compiler() is None:
            raise UserError(
                "compiled=True needs a C++ compiler, and there is none; install g++, say where "
                "one is in the environment variable CXX, or leave compiled out"
            )
        if config.graphed is True and device.type != "cuda":
            raise UserError(
                f"graphed=True needs a CUDA device, and this is {device.type}; leave graphed out"
            )
        if config.deterministic and device.type == "cuda":
            # cuBLAS is repeatable only with workspaces of a fixed size, and torch insists on it.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        return cls(device=device, **config.model_dump(exclude={"device"}))

    def to_device(self, network: Network) -> Network:
        """Move a network to the device, channels last in memory where convolutions like it."""
        network = network.to(self.device)
        if self.device.type == "xla":  # XLA lays out tensors itself
            return network
        # The stubs want a channel order for tensors, not modules.
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """The network as a training step calls it, in the chosen numbers."""
        kind, enabled = self.device.type, self.uses_bfloat16
        call: Callable[[Tensor], Tensor] = torch.compile(network) if self.compiled else network

        def run(x: Tensor) -> Tensor:
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled):
                return call(x)

        return run if enabled else call

    def seed(self, number: int) -> None:
        """Seed torch's generator of the device; a tenth of the time of ``torch.manual_seed``."""
        match self.device.type:
            case "cpu":
                torch.default_generator.manual_seed(number)
            case "cuda":
                index = torch.cuda.current_device()
                own = self.device.index
                torch.cuda.default_generators[index if own is None else own].manual_seed(number)
            case _:
                torch.manual_seed(number)

    @property
    def uses_graphs(self) -> bool:
        """Whether training steps are captured as CUDA graphs."""
        return self.device.type == "cuda" and self.graphed is not False

    def launcher(self) -> StepLauncher:
        """What runs the training steps of one network."""
        graphs = self.uses_graphs
        runner = CudaRunner(self.device, timed=not self.deterministic) if graphs else None
        return StepLauncher(self.device, runner)

    @property
    def uses_bfloat16(self) -> bool:
        """Whether convolutions compute in bfloat16."""
        if self.precision == "auto":
            return self.device.type != "cpu"
        return self.precision == "bfloat16"

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one training step: determinism if asked for, and the end of a graph for XLA."""
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(self.deterministic or before)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
        mark_step(self.device)


def mark_step(device: torch.device) -> None:
    """On XLA, compute what has been written down since the last step; elsewhere it is done."""
    if device.type == "xla":
        _import_xla().sync()


def device_resident(patches: Indexable, device: torch.device) -> GatherFn:
    """Keep patches where they are used: mapped in memory for the CPU, copied once elsewhere."""
    if device.type == "cpu":
        return lambda rows: torch.from_numpy(patches[np.asarray(rows)]).unsqueeze(1).float()
    stored = torch.from_numpy(np.array(patches)).to(device)
    return lambda rows: stored[torch.as_tensor(rows, device=device)].unsqueeze(1).float()


def cpp_compiler() -> str | None:
    """The C++ compiler that ``torch.compile`` calls for a CPU; None if there is none."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


def tune_glibc_malloc() -> None:
    """Let this process keep memory that it frees, where its C library is glibc.

    Every layer frees and asks again for maps of tens of megabytes, which the kernel otherwise
    takes back and clears each time: a quarter of a step of L2-Net at width 1 on a CPU. It works for
    the main thread; in others, start the process with THP_MEM_ALLOC_ENABLE=1 for as much.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for option, value in MALLOPT_SETTINGS:
        mallopt(option, value)


def _import_xla() -> Any:
    try:
        return importlib.import_module("torch_xla")
    except ImportError as error:
        raise UserError("device 'xla' needs torch_xla; install it, or choose auto") from error
