"""A training step as one launch: captured as a CUDA graph after a few steps, then replayed.

A step of L2-Net is some two hundred kernels of a few microseconds each, and Python needs longer to
launch them than a GPU to run them. A graph launches them together.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Steps that run kernel by kernel before a capture: they choose algorithms, compile, and make the
optimizer's state, none of which a capture allows."""

Body = Callable[[Sequence[Tensor]], tuple[Tensor, ...]]
"""A step: from its inputs on the device to its results, with no other number from the host."""


class Runner(Protocol):
    """Streams and capture of a device."""

    def warm_up(self, body: Body, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Run ``body`` kernel by kernel, where a later capture will run it."""
        ...

    def capture(
        self, body: Body, inputs: Sequence[Tensor]
    ) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
        """Record ``body`` without running it; what runs it again, and where its results appear."""
        ...


@dataclass(eq=False)
class CudaRunner:
    """Warms up and captures on one side stream, as CUDA graphs demand.

    Random numbers are those of the same step kernel by kernel: a replay starts from the seed that
    torch's generator has then.

    Args:
        device: a CUDA device.
        timed: let cuDNN time its algorithms for each convolution and take the fastest; which one
            that is, and so the last bits of a result, can vary from run to run.
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
        """Record ``body``; other threads of this process may use the GPU meanwhile."""
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
    """Runs training steps, and replays them as one launch where that is asked for.

    Steps of one ``kind`` have inputs of equal shapes and take the same branches in Python. A new
    kind is warmed up and captured afresh; only the latest graph is kept, since each holds the
    memory of a step.

    Args:
        device: where steps run.
        runner: how steps are captured; None runs every step kernel by kernel.
    """

    device: torch.device
    runner: Runner | None = None
    _kind: Hashable = None
    _warm: int = 0
    _inputs: list[Tensor] = field(default_factory=list)
    _replay: Callable[[], None] | None = None
    _results: tuple[Tensor, ...] = ()

    def __call__(self, kind: Hashable, body: Body, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The results of one step; ``inputs`` are on the host."""
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
            # From pinned memory, so that the host does not wait; torch keeps it until it is read.
            pinned = given.pin_memory() if self.device.type == "cuda" else given
            ours.copy_(pinned, non_blocking=True)
        self._replay()
        return tuple(result.clone() for result in self._results)

    def forget(self) -> None:
        """Drop the graph: the tensors that it works on are no longer the ones in use."""
        self._kind, self._warm = None, 0
        self._inputs, self._replay, self._results = [], None, ()
