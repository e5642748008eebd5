"""Devices and numeric precision of training."""

import ctypes
import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
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
    """Array-like view (rows, 32, 32) of uint8 patches, read when it is indexed."""

    patches: Patches
    noisy: bool

    def __getitem__(self, rows: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 32 32"]:
        return self.patches.gather(rows, noisy=self.noisy)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self.patches.load_all(noisy=self.noisy)


GatherFn = Callable[[np.ndarray | Tensor], Float[Tensor, "n 1 32 32"]]
"""Function from row numbers (array, or tensor on the device) to patches on the device, gray levels
0…255."""

MALLOPT_SETTINGS = ((-4, 0), (-1, 2**31 - 1), (-2, 2**26))
"""Options of mallopt: M_MMAP_MAX (no mmap), M_TRIM_THRESHOLD (never trim), M_TOP_PAD (64 MiB)."""

Network = TypeVar("Network", bound=nn.Module)


class Indexable(Protocol):
    """Patches (n, 32, 32) of uint8, indexed by row numbers: an array, or ``LazyRows``."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...

    def __array__(self) -> np.ndarray: ...


def choose_device(name: str = "auto") -> torch.device:
    """Device by name; ``auto`` is CUDA if available, else the CPU.

    Raises:
        UserError: if the device is not available.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
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
    """Resolved compute settings of one machine: device, precision, compilation, graphs."""

    device: torch.device
    precision: Precision = "auto"
    compiled: bool = False
    graphed: bool | Literal["auto"] = "auto"
    deterministic: bool = False

    @classmethod
    def resolve(cls, config: ComputeConfig) -> "Compute":
        """Resolve compute settings on this machine.

        Raises:
            UserError: if the device or the required compiler is not available.
        """
        device = choose_device(config.device)
        if config.compiled and device.type == "cpu" and cpp_compiler() is None:
            raise UserError(
                "compiled=True needs a C++ compiler, but none was found; install g++, set the "
                "environment variable CXX to its path, or remove compiled"
            )
        if config.graphed is True and device.type != "cuda":
            raise UserError(
                f"graphed=True needs a CUDA device, but the device is {device.type}; remove graphed"
            )
        if config.deterministic and device.type == "cuda":
            # cuBLAS is deterministic only with workspaces of a fixed size, which torch requires.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        return cls(device=device, **config.model_dump(exclude={"device"}))

    def to_device(self, network: Network) -> Network:
        """Move a network to the device, with channels last where that is faster."""
        network = network.to(self.device)
        if self.device.type == "xla":  # XLA chooses layouts itself
            return network
        # The type stubs know memory_format for tensors only.
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """Forward function of a network for training steps, with precision and compilation."""
        kind, enabled = self.device.type, self.uses_bfloat16
        call: Callable[[Tensor], Tensor] = torch.compile(network) if self.compiled else network

        def run(x: Tensor) -> Tensor:
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=enabled):
                return call(x)

        return run if enabled else call

    def seed(self, number: int) -> None:
        """Seed torch's generator of the device, ten times faster than ``torch.manual_seed``."""
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
        """True if training steps are captured as CUDA graphs."""
        return self.device.type == "cuda" and self.graphed is not False

    def launcher(self) -> StepLauncher:
        """New launcher for the training steps of one network."""
        graphs = self.uses_graphs
        runner = CudaRunner(self.device, timed=not self.deterministic) if graphs else None
        return StepLauncher(self.device, runner)

    def without_graphs(self, reason: str) -> "Compute":
        """These settings without CUDA graphs, because ``reason`` cannot run in one.

        Raises:
            UserError: if graphs were asked for.
        """
        if self.graphed is True:
            raise UserError(f"{reason} cannot run in a CUDA graph; remove graphed")
        return replace(self, graphed=False)

    @property
    def uses_bfloat16(self) -> bool:
        """True if convolutions compute in bfloat16."""
        if self.precision == "auto":
            return self.device.type != "cpu"
        return self.precision == "bfloat16"

    @contextmanager
    def step(self) -> Iterator[None]:
        """Context of one training step: deterministic mode if set, and XLA's step mark."""
        with (
            deterministic_algorithms(compiled=self.compiled)
            if self.deterministic
            else nullcontext()
        ):
            yield
        mark_step(self.device)


@contextmanager
def deterministic_algorithms(*, compiled: bool) -> Iterator[None]:
    """Allow deterministic algorithms alone inside the block.

    ``torch.use_deterministic_algorithms`` imports the compiler, to set its mode too, which takes a
    second and is of use for compiled networks only.
    """
    before = torch.get_deterministic_debug_mode()
    if compiled:
        torch.use_deterministic_algorithms(True)
    torch.set_deterministic_debug_mode("error")
    try:
        yield
    finally:
        if compiled:
            torch.use_deterministic_algorithms(before > 0)
        torch.set_deterministic_debug_mode(before)


def mark_step(device: torch.device) -> None:
    """Execute the operations recorded since the last step on XLA; no effect on other devices."""
    if device.type == "xla":
        _import_xla().sync()


def device_resident(patches: Indexable, device: torch.device) -> GatherFn:
    """Gather function for patches: memory-mapped on the CPU, copied once to other devices."""
    if device.type == "cpu":
        return lambda rows: torch.from_numpy(patches[np.asarray(rows)]).unsqueeze(1).float()
    stored = torch.from_numpy(np.array(patches)).to(device)
    return lambda rows: stored[torch.as_tensor(rows, device=device)].unsqueeze(1).float()


def cpp_compiler() -> str | None:
    """C++ compiler of ``torch.compile`` for CPUs; None if none is installed."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Use so many torch threads on the CPU inside the block.

    The number decides in which order sums are added, and so the last bits of a training. For small
    networks one is also the fastest, by far if the machine is busy.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def tune_glibc_malloc() -> None:
    """Configure glibc's malloc to keep freed memory; no effect with other C libraries.

    Every layer frees and allocates maps of tens of megabytes, which the kernel otherwise reclaims
    and clears each time: a quarter of a step of L2-Net at width 1 on a CPU. It affects the main
    thread; for others, start the process with THP_MEM_ALLOC_ENABLE=1.
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
