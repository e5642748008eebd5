"""Several small trials on one GPU: packed in one process, in many, or batched into one program."""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_roofline import seconds, wait
from gpu_steps import Stepping, pixels, trial, warm
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap

from hpsearch.config import HardMargin, L2Net, PKSampler, TrialConfig
from hpsearch.data.samplers import sample
from hpsearch.losses.metric_losses import batch_hard_loss
from hpsearch.models import build_descriptor
from hpsearch.rng import rng_for
from hpsearch.training.devices import Compute, device_resident

WARM_UP = 5
"""Rounds of steps before one is timed."""


def packed(compute: Compute, *, count: int, batch: int, points: int) -> float:
    """Patches a second of ``count`` trials in one process, each on a stream of its own."""
    gather = device_resident(pixels(points), compute.device)
    trials = [
        Stepping(trial(width=0.25, batch=batch, seed=seed), points, gather, compute)
        for seed in range(count)
    ]
    cuda = compute.device.type == "cuda"
    streams = [torch.cuda.Stream(compute.device) if cuda else None for _ in trials]

    def round_() -> None:
        for one, lane in zip(trials, streams, strict=True):
            with torch.cuda.stream(lane):
                one()

    for _ in range(WARM_UP):
        round_()
        wait(compute.device)
    return count * batch / seconds(round_, compute.device)


def in_turn(
    compute: Compute, *, count: int, batch: int, points: int, rounds: int
) -> tuple[float, float]:
    """Seconds of one step of each trial, one after another and as one program; medians.

    Both take turns, so that other work on the machine meets both; on a CPU it is processor time.
    """
    dropout = _mappable_dropout(compute)
    gather = device_resident(pixels(points), compute.device)
    alone = [
        Stepping(trial(width=0.25, batch=batch, seed=n, dropout=dropout), points, gather, compute)
        for n in range(count)
    ]
    ways: tuple[Callable[[], object], Callable[[], object]] = (
        lambda: [step() for step in alone],
        batched_of(compute, count, batch, points),
    )
    on_cpu = compute.device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    found: tuple[list[float], list[float]] = [], []
    for number in range(WARM_UP + rounds):
        for way, times in zip(ways, found, strict=True):
            begun = clock()
            way()
            wait(compute.device)
            if number >= WARM_UP:
                times.append(clock() - begun)
    return statistics.median(found[0]), statistics.median(found[1])


def in_processes(
    compute: Compute,
    counts: Sequence[int],
    batches: Sequence[int],
    *,
    points: int,
    for_s: float,
) -> Iterator[tuple[int, int, float]]:
    """Batch, number and patches a second of processes that train at the same time."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for seed in range(max(counts)):
        here, there = context.Pipe()
        configs = [trial(width=0.25, batch=batch, seed=seed) for batch in batches]
        process = context.Process(
            target=_serve, args=(compute, configs, points, for_s, there), daemon=True
        )
        process.start()
        pipes.append(here)
        processes.append(process)
    try:
        for pipe in pipes:
            _answer(pipe)
        for number, batch in enumerate(batches):
            for count in counts:
                for pipe in pipes[:count]:
                    pipe.send(number)
                yield batch, count, batch * sum(_answer(pipe) for pipe in pipes[:count])
        for pipe in pipes:
            pipe.send(None)
    finally:
        for process in processes:
            process.join(timeout=10)
            process.kill()


def _answer(pipe: Connection) -> float:
    if not pipe.poll(120):
        raise TimeoutError("a process did not answer in two minutes")
    return pipe.recv()


def _serve(
    compute: Compute, configs: Sequence[TrialConfig], points: int, for_s: float, pipe: Connection
) -> None:
    torch.set_num_threads(1)
    gather = device_resident(pixels(points), compute.device)
    steps = [Stepping(config, points, gather, compute) for config in configs]
    for step in steps:
        for _ in range(5):
            step()
    wait(compute.device)
    pipe.send(0.0)
    while (number := pipe.recv()) is not None:
        began, done = time.perf_counter(), 0
        while (now := time.perf_counter()) < began + for_s:
            for _ in range(8):
                steps[number]()
            wait(compute.device)
            done += 8
        pipe.send(done / (now - began))


@contextmanager
def mps() -> Iterator[bool]:
    """NVIDIA's multi-process service around the body; whether there is one."""
    control = shutil.which("nvidia-cuda-mps-control")
    if control is None:
        yield False
        return
    names = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            os.environ[name] = str(Path(folder))
        started = subprocess.run([control, "-d"], capture_output=True, timeout=30)
        try:
            yield started.returncode == 0
        finally:
            subprocess.run([control], input=b"quit\n", capture_output=True, timeout=30)
            for name in names:
                os.environ.pop(name)


def rates(count: int) -> list[float]:
    """Learning rate of each of several trials."""
    return torch.logspace(-4, -3, count).tolist()


def margins(count: int) -> list[float]:
    """Margin of each of several trials."""
    return torch.linspace(0.5, 1.5, count).tolist()


class Batched:
    """Trials of one shape as one program: weights stacked, the step mapped over them.

    Each has its own seed, learning rate and margin. Adam is written out, because torch's has one
    rate for a group of weights.
    """

    def __init__(
        self, compute: Compute, *, count: int, batch: int, points: int, dropout: float = 0.3
    ) -> None:
        self.compute, self.batch, self.points, self.count = compute, batch, points, count
        self.gather = device_resident(pixels(points), compute.device)
        settings = L2Net(width=0.25, dropout=dropout)
        # not channels last: vmap does not know batch normalization in that order
        networks = [
            build_descriptor(settings, seed=seed).to(compute.device) for seed in range(count)
        ]
        weights, statistics = stack_module_state(networks)
        self.names = list(weights)
        self.weights = [weight.detach().requires_grad_() for weight in weights.values()]
        self.statistics = statistics
        self.rates, self.margins = (
            torch.tensor(values, device=compute.device) for values in (rates(count), margins(count))
        )
        self.first, self.second = (
            [torch.zeros_like(weight) for weight in self.weights] for _ in range(2)
        )
        self.number = torch.zeros((), device=compute.device)
        template = networks[0]
        call = partial(_call, template)
        mapped = vmap(call, randomness="different")
        plain = replace(compute, compiled=False)
        self.forward = torch.compile(mapped) if compute.compiled else mapped
        self.autocast = partial(
            torch.autocast,
            compute.device.type,
            dtype=torch.bfloat16,
            enabled=plain.uses_bfloat16,
        )
        self.launcher = compute.launcher()
        self.sequence_of = np.arange(points) * 8 // points
        self.done = 0

    def __call__(self) -> Tensor:
        """One step of all trials; their losses."""
        sampler = PKSampler(groups=self.batch // 4, views=4)
        rows = [
            sample(sampler, self.sequence_of, rng_for(seed, "batch", self.done)).rows[0]
            for seed in range(self.count)
        ]
        torch.manual_seed(self.done)
        self.done += 1
        (losses,) = self.launcher(None, self._train, [torch.from_numpy(np.stack(rows))])
        return losses

    def _train(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        (rows,) = inputs
        x = self.gather(rows.flatten()).view(self.count, -1, 1, 32, 32)
        weights = dict(zip(self.names, self.weights, strict=True))
        with self.autocast():
            found = self.forward(weights, self.statistics, x)
        losses = vmap(_loss)(found.float(), self.margins)
        slopes = torch.autograd.grad(losses.sum(), self.weights)
        self._move(slopes)
        return (losses.detach(),)

    @torch.no_grad()
    def _move(self, slopes: Sequence[Tensor], *, b1: float = 0.9, b2: float = 0.999) -> None:
        """Adam, with a rate for each trial."""
        self.number += 1
        torch._foreach_lerp_(self.first, list(slopes), 1 - b1)
        torch._foreach_mul_(self.second, b2)
        torch._foreach_addcmul_(self.second, list(slopes), list(slopes), 1 - b2)
        roots = torch._foreach_sqrt(self.second)
        torch._foreach_mul_(roots, torch.rsqrt(1 - b2**self.number))
        torch._foreach_add_(roots, 1e-8)
        moves = torch._foreach_div(self.first, roots)
        rates = self.rates / (1 - b1**self.number)
        shaped = [rates.view(-1, *[1] * (move.ndim - 1)) for move in moves]
        torch._foreach_mul_(moves, shaped)
        torch._foreach_sub_(self.weights, moves)


def _call(template: torch.nn.Module, weights: Any, statistics: Any, x: Tensor) -> Tensor:
    return functional_call(template, (weights, statistics), (x,))


def _loss(found: Tensor, margin: Tensor) -> Tensor:
    """Batch hard, whose margin is a tensor here."""
    hinge = HardMargin.model_construct(alpha=margin)
    return batch_hard_loss(found[None], views=4, distance="euclidean", margin=hinge)


def batched_of(compute: Compute, count: int, batch: int, points: int) -> Callable[[], object]:
    """A step of trials that are mapped over; on a CPU their dropout cannot be."""
    dropout = _mappable_dropout(compute)
    return Batched(compute, count=count, batch=batch, points=points, dropout=dropout)


def _mappable_dropout(compute: Compute) -> float:
    return 0.3 if compute.device.type == "cuda" else 0.0


def batched(compute: Compute, count: int, batch: int, points: int) -> float:
    """Patches a second of all trials."""
    return count * batch / warm(batched_of(compute, count, batch, points), compute.device)
