"""Roofline model: measured rates of a GPU, and the minimum cost of a training step.

Work is counted by torch (multiplications and additions of every product, forward and backward).
Bytes are those of the layers' operators, each of which reads its inputs once and writes its outputs
once: a convolution, its two gradients, and, where there is batch normalization, that with its ReLU
and the gradient of both. What else is done to single numbers is taken to be free, as part of these.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

SIDE = 8192
COPIED = 2**31
"""Bytes of the copy that bandwidth is measured with, read once and written once."""
ADAM = 7 * 4
"""Bytes that a step of Adam moves for each weight: reads 4 numbers, writes 3."""


@dataclass(frozen=True)
class Ceilings:
    """Measured rates of products and of memory."""

    products: float
    """FLOP a second of a bfloat16 matrix product."""
    tf32: float
    bandwidth: float
    """Bytes a second, read and written."""


@dataclass(frozen=True)
class Need:
    """Operations and bytes of one training step."""

    flop: float
    moved: float

    def floor(self, ceilings: Ceilings) -> float:
        """Seconds: the slower of products and bytes."""
        return max(self.flop / ceilings.products, self.moved / ceilings.bandwidth)


def ceilings(device: torch.device, *, toy: bool = False) -> Ceilings:
    """Measure them on random numbers."""
    side, size = (256, 2**20) if toy else (SIDE, COPIED)
    x, y = (torch.randn(side, side, device=device) for _ in range(2))
    a, b = x.bfloat16(), y.bfloat16()
    source = torch.randint(256, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    tf32 = seconds(lambda: x @ y, device)
    torch.set_float32_matmul_precision(before)
    work = 2 * side**3
    return Ceilings(
        products=work / seconds(lambda: a @ b, device),
        tf32=work / tf32,
        bandwidth=2 * size / seconds(lambda: target.copy_(source), device),
    )


def need(network: nn.Module, batch: int, *, bytes_each: int) -> Need:
    """Count the operations and bytes of a step of ``network`` on (batch, 1, 32, 32)."""
    few = 8
    moved = 0
    x = 255 * torch.rand(few, 1, 32, 32)
    normed = any(isinstance(m, nn.BatchNorm2d) for m in network.modules())

    def add(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        nonlocal moved
        into, out = given[0].numel(), made.numel()
        first = given[0].shape[1] == 1 and not given[0].requires_grad
        # forward, gradient by weights, gradient by inputs (not of the first layer)
        moved += (into + out) * (2 if first else 3)
        moved += 5 * out if normed else 0

    hooks = [m.register_forward_hook(add) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with FlopCounterMode(display=False) as counter:
        network(x).square().mean().backward()
    for hook in hooks:
        hook.remove()
    weights = sum(weight.numel() for weight in network.parameters())
    return Need(
        flop=counter.get_total_flops() / few * batch,
        moved=moved / few * batch * bytes_each + ADAM * weights,
    )


def seconds(work: Callable[[], object], device: torch.device, *, rounds: int = 5) -> float:
    """Median of several rounds, each long enough to time."""
    wait(device)
    started = time.perf_counter()
    work()
    wait(device)
    work()
    wait(device)
    once = (time.perf_counter() - started) / 2
    count = max(1, min(50, int(0.05 / max(once, 1e-6))))
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(count):
            work()
        wait(device)
        found.append((time.perf_counter() - started) / count)
    return sorted(found)[rounds // 2]


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
