"""CUDA graphs: a training step is captured after a few steps, then replayed as one launch.

A step of L2-Net has about two hundred kernels of a few microseconds each, and Python needs longer
to launch them than a GPU to run them. A graph launches them together.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Number of steps that run kernel by kernel before a capture: they choose algorithms, compile, and
create the optimizer's state, none of which is possible during a capture."""

Body = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
"""Step function from inputs on the device to results, without other values from the host."""


class Runner(Protocol):
    """Interface for warm-up and capture of steps on a device."""

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run ``body`` kernel by kernel, on the stream of a later capture."""
        ...

    def capture(
        self, body: Body, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Capture ``body`` without running it; returns its replay function and result tensors."""
        ...


@dataclass(eq=False)
class CudaRunner:
    """Runner for CUDA, which warms up and captures on one side stream, as CUDA graphs require.

    Random numbers are equal to those of the same step kernel by kernel: a replay starts from the
    current seed of torch's generator.

    Args:
        device: a CUDA device.
        timed: True if cuDNN measures its algorithms for each convolution and uses the fastest; the
            choice, and so the last bits of a result, can vary from run to run.
    """

    device: torch.device
    timed: bool = True

    def __post_init__(self) -> None:
        self.stream = torch.cuda.Stream(self.device)

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run ``body`` on the side stream."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream), self._algorithms():
            results = body(inputs)
        current.wait_stream(self.stream)
        return results

    def capture(
        self, body: Body, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Capture ``body``; other threads of this process may use the GPU meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with (
            self._algorithms(),
            torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"),
        ):
            results = body(inputs)
        return graph.replay, results

    @contextmanager
    def _algorithms(self) -> Iterator[None]:
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.timed
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before


@dataclass(eq=False)
class StepLauncher:
    """Launcher of training steps, which replays captured graphs if a runner is given.

    Steps of one ``kind`` have inputs of equal shapes and take the same branches in Python. A new
    kind is warmed up and captured again; only the latest graph is kept, because each keeps the
    memory of a step.

    Args:
        device: device of the steps.
        runner: runner for captures; None runs every step kernel by kernel.
    """

    device: torch.device
    runner: Runner | None = None
    _kind: Hashable = None
    _warm: int = 0
    _inputs: list[Tensor] = field(default_factory=list)
    _replay: Callable[[], None] | None = None
    _results: tuple[Tensor, ...] = ()

    def __call__(self, kind: Hashable, body: Body, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run one step and return its results; ``inputs`` are on the host."""
        if self.runner is None:
            return body([x.to(self.device) for x in inputs])
        if kind != self._kind:
            self.forget()
            self._kind = kind
        if self._warm < WARM_UP_STEPS:
            self._warm += 1
            return self.runner.warm_up(body, [x.to(self.device) for x in inputs])
        if self._replay is None:
            self._inputs = [x.to(self.device, copy=True) for x in inputs]
            self._replay, self._results = self.runner.capture(body, self._inputs)
        for ours, given in zip(self._inputs, inputs, strict=True):
            # Pinned memory, so that the host does not wait; torch keeps it until it is read.
            pinned = given.pin_memory() if self.device.type == "cuda" else given
            ours.copy_(pinned, non_blocking=True)
        self._replay()
        return tuple(result.clone() for result in self._results)

    def forget(self) -> None:
        """Drop the graph, because the tensors that it uses have been replaced."""
        self._kind, self._warm = None, 0
        self._inputs, self._replay, self._results = [], None, ()
