"""Measurements of a GPU, in one run of at most eight minutes.

First whether it gives what the CPU gives, then how fast: steps of L2-Net kernel by kernel, compiled
and as one launch, epochs of the denoiser, description and evaluation at the official size, and
several trials on one card. It needs torch, numpy, pyarrow and pydantic alone, and writes one
markdown file and the same as JSON.

    python benchmarks/gpu.py [--out benchmarks/gpu] [--only checks,descriptor] [--toy --device cpu]
"""

import argparse
import multiprocessing
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import gpu_steps as steps
import gpu_trials as trials
import numpy as np
import torch
from gpu_checks import checks
from gpu_results import DENOISER, STEPS, TRIALS, Results, bars, head, log
from gpu_roofline import Ceilings, Need, ceilings, need

from hpsearch.config import DenoiserTraining, L2Net
from hpsearch.evaluation import OFFICIAL_SIZES, evaluate, sample_tasks
from hpsearch.evaluation.tasks import TaskSizes
from hpsearch.models import Pipeline, build_denoiser, build_descriptor, describe
from hpsearch.training.devices import Compute, choose_device, cpp_compiler

EPOCH = 100_000
"""Patches of a denoiser's epoch."""
R3_EPOCHS = {64: "125, 41, 43", 512: "124, 40, 19", 1024: "123, 40, 10", 4096: "123, –, 10"}
"""Seconds an epoch on each device by batch, in R3's table."""
LIMIT_S = 450
"""A section that would begin after this many seconds is left out, which the table notes."""


@dataclass(frozen=True)
class Plan:
    """Sizes of everything."""

    widths: Sequence[float] = (0.25, 0.5, 1.0)
    batches: Sequence[int] = (128, 512, 1024, 4096)
    denoiser_batches: Sequence[int] = (64, 512, 1024, 4096)
    counts: Sequence[int] = (1, 2, 4, 8, 16)
    trial_batches: Sequence[int] = (128, 512)
    points: int = 6250
    sequences: int = 40
    described: int = 40 * 1350 * 16
    on_cpu: int = 8192
    for_s: float = 1.5
    rounds: int = 15
    steps: int = 12
    sizes: TaskSizes = OFFICIAL_SIZES


TOY = Plan(
    widths=(0.125,), batches=(16,), denoiser_batches=(8,), counts=(1, 2), trial_batches=(16,),
    points=32, sequences=4, described=4 * 8 * 16, on_cpu=64, for_s=0.05, rounds=3, steps=4,
    sizes=TaskSizes(pairs=40, queries=8, distractors=8, shrinks=True),
)  # fmt: skip


def main() -> None:
    options = parse()
    device, plan = choose_device(options.device), TOY if options.toy else Plan()
    results = Results(options.out, head(device))
    limits = ceilings(device, toy=options.toy)
    results.add(
        "Ceilings",
        **{
            "bf16 product, TFLOP/s": limits.products / 1e12,
            "TF32 product, TFLOP/s": limits.tf32 / 1e12,
            "copy, TB/s": limits.bandwidth / 1e12,
        },
    )
    bench = Bench(device, plan, limits, results)
    started = time.perf_counter()
    for section in options.only.split(","):
        if time.perf_counter() - started > LIMIT_S:
            results.failed[section] = "no time was left"
            continue
        try:
            getattr(bench, section)()
        except Exception as error:  # the other sections are still worth having
            traceback.print_exc()
            results.failed[section] = f"{type(error).__name__}: {error}".splitlines()[0]
        log(f"{section}: done after {time.perf_counter() - started:.0f} s")
    for row in bars(results.tables):
        results.add("Bars", **row)
    results.head["seconds in all"] = f"{time.perf_counter() - started:.0f}"
    results.write()
    sys.exit(1 if results.failed or not bench.sound else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true", help="sizes that a CPU manages")
    parser.add_argument(
        "--only", default="prepare,checks,descriptor,denoiser,packed,batched,evaluation"
    )
    return parser.parse_args()


@dataclass
class Bench:
    """The sections; each adds rows to one table or more."""

    device: torch.device
    plan: Plan
    limits: Ceilings
    results: Results
    sound: bool = True

    def prepare(self) -> None:
        """Compile everything at once, in processes that leave it in torch's cache."""
        compute = self._ways().get("compiled")
        if compute is None:
            return
        plan = self.plan
        jobs: list[steps.Job] = [
            *(
                (steps.step_of, (compute, w, b, plan.points))
                for w in plan.widths
                for b in plan.batches
            ),
            *((steps.denoiser_of, (compute, b, plan.points)) for b in plan.denoiser_batches),
            *(
                (trials.batched_of, (compute, count, b, plan.points))
                for count in (1, plan.counts[-1])
                for b in plan.trial_batches
            ),
        ]
        with multiprocessing.get_context("spawn").Pool(min(len(jobs), 16)) as pool:
            pool.map(steps.once, jobs, chunksize=1)

    def checks(self) -> None:
        """Comparison of the device with the CPU."""
        for check in checks(self.device, steps=self.plan.steps):
            self.sound &= check.passed
            passed = "yes" if check.passed else "NO"
            self.results.add(
                "Checks", check=check.name, found=check.found, bound=check.bound, passed=passed
            )

    def descriptor(self) -> None:
        """Steps of L2-Net: batch hard, Adam, dropout."""
        for width in self.plan.widths:
            for batch in self.plan.batches:
                network = build_descriptor(L2Net(width=width), seed=0)
                floor = need(network, batch, bytes_each=self._bytes_each())
                times = {way: self._step(way, width, batch) for way in self._ways()}
                self._describe_row(floor, times, width=width, batch=batch)

    def denoiser(self) -> None:
        """Epochs of the shallow U-Net, in float32 (convolutions in TF32, as torch has it)."""
        for batch in self.plan.denoiser_batches:
            floor = need(build_denoiser(DenoiserTraining().network, seed=0), batch, bytes_each=4)
            times = {way: self._denoise(way, batch) for way in self._ways()}
            best = min(times.values())
            self.results.add(
                DENOISER,
                batch=batch,
                **{way: s * EPOCH / batch for way, s in times.items()},
                **{"roofline, s": floor.floor(self.limits) * EPOCH / batch},
                **{"share of roofline": floor.floor(self.limits) / best},
                **{"R3: CPU, GPU, TPU": R3_EPOCHS.get(batch, "")},
                **self._memory(),
            )

    def packed(self) -> None:
        """Trials of width 0.25 that share the device, each its own program."""
        ways = {way: compute for way, compute in self._ways().items() if "graphed" in way}
        for batch in self.plan.trial_batches:
            for way, compute in ways.items():
                for count in self.plan.counts:
                    steps.reset(self.device)
                    rate = trials.packed(compute, count=count, batch=batch, points=self.plan.points)
                    self._trials(f"one process, {way}", count, batch, rate)
        with trials.mps() as there:
            for way, compute in ways.items() if there else ():
                self._in_processes(f"processes, MPS, {way}", compute, self.plan.counts)
        self._in_processes("processes, graphed", ways["graphed"], self.plan.counts[-1:])

    def batched(self) -> None:
        """Trials of one shape as one program (``torch.func.vmap``)."""
        for batch in self.plan.trial_batches:
            for way, compute in self._ways().items():
                for count in (1, self.plan.counts[-1]) if "graphed" in way else ():
                    steps.reset(self.device)
                    rate = trials.batched(compute, count, batch, self.plan.points)
                    self._trials(f"vmap, {way}", count, batch, rate)
        for batch in self.plan.trial_batches:
            # without the compiler, whose minutes are not to be spent on every number of trials
            self._in_turn("graphed" if self.device.type == "cuda" else "eager", batch)

    def _in_turn(self, way: str, batch: int) -> None:
        for count in self.plan.counts[-1:] if way == "graphed" else self.plan.counts[1:]:
            steps.reset(self.device)
            alone, together = trials.in_turn(
                self._ways()[way],
                count=count,
                batch=batch,
                points=self.plan.points,
                rounds=self.plan.rounds,
            )
            self.results.add(
                "Trials of width 0.25, one after another and as one program (vmap)",
                **{"way": way, "batch": batch, "trials": count},
                **{"ms one after another": 1e3 * alone, "ms as one": 1e3 * together},
                **{"gain": alone / together},
            )

    def evaluation(self) -> None:
        """Description of the official test patches, then the protocol on random descriptors."""
        pixels = steps.pixels(self.plan.described // 16)
        cpu = torch.device("cpu")
        for where, count, batch in (
            (cpu, self.plan.on_cpu, 1024),
            (self.device, self.plan.described, 1024),
            (self.device, self.plan.described, 8192),
        ):
            network = Compute(device=where).to_device(build_descriptor(L2Net(), seed=0))
            pipeline = Pipeline(denoiser=None, descriptor=network)
            describe(pipeline, pixels[:batch], batch=batch, device=where)
            begun = time.perf_counter()
            describe(pipeline, pixels[:count], batch=batch, device=where)
            rate = count / (time.perf_counter() - begun)
            row = {"device": where.type, "batch": batch, "patches": count, "patches/s": rate}
            self.results.add("Description, L2-Net width 1, float32", **row)
        per_sequence = self.plan.described // 16 // self.plan.sequences
        names = [f"{'iv'[i % 2]}_{i:02}" for i in range(self.plan.sequences)]
        tasks = sample_tasks(names, [per_sequence] * len(names), sizes=self.plan.sizes, seed=0)
        found = {}
        for where in (cpu, self.device):
            drawn = [drawn_descriptors(i, per_sequence) for i in range(len(names))]
            begun = time.perf_counter()
            found[where.type] = evaluate(drawn, tasks, device=where).flat()
            spent = time.perf_counter() - begun
            apart = max(abs(found[where.type][k] - v) for k, v in found["cpu"].items())
            row = {"device": where.type, "seconds": spent, "largest difference to CPU": apart}
            self.results.add(
                f"Evaluation, official protocol, {torch.get_num_threads()} CPU threads", **row
            )

    def _ways(self) -> dict[str, Compute]:
        plain = Compute(device=self.device, graphed=False)
        ways = {"eager": plain}
        if self.device.type == "cpu" and cpp_compiler() is None:
            return ways
        if self.device.type == "cuda":
            ways["compiled"] = replace(plain, compiled=True)
            ways["graphed"] = replace(plain, graphed=True)
            ways["compiled, graphed"] = replace(plain, graphed=True, compiled=True)
        else:
            ways["graphed"] = plain  # as a rehearsal of the sections that leave eager out
        return ways

    def _bytes_each(self) -> int:
        return 2 if self.device.type == "cuda" else 4

    def _step(self, way: str, width: float, batch: int) -> float:
        steps.reset(self.device)
        return steps.warm(
            steps.step_of(self._ways()[way], width, batch, self.plan.points), self.device
        )

    def _denoise(self, way: str, batch: int) -> float:
        steps.reset(self.device)
        return steps.warm(
            steps.denoiser_of(self._ways()[way], batch, self.plan.points), self.device
        )

    def _describe_row(
        self, floor: Need, times: dict[str, float], *, width: float, batch: int
    ) -> None:
        best = min(times.values())
        self.results.add(
            STEPS,
            width=width,
            batch=batch,
            **{way: 1e3 * s for way, s in times.items()},
            **{"patches/s": batch / best, "TFLOP/s": floor.flop / best / 1e12},
            **{"share of bf16 product": floor.flop / best / self.limits.products},
            **{"products, ms": 1e3 * floor.flop / self.limits.products},
            **{"bytes, ms": 1e3 * floor.moved / self.limits.bandwidth},
            **{"share of roofline": floor.floor(self.limits) / best},
            **{"× eager": times["eager"] / best},
            **self._memory(),
        )

    def _in_processes(self, name: str, compute: Compute, counts: Sequence[int]) -> None:
        for batch, count, rate in trials.in_processes(
            compute,
            counts,
            self.plan.trial_batches,
            points=self.plan.points,
            for_s=self.plan.for_s,
        ):
            self._trials(name, count, batch, rate, memory=False)

    def _trials(
        self, way: str, count: int, batch: int, rate: float, *, memory: bool = True
    ) -> None:
        self.results.add(
            TRIALS,
            **{"way": way, "batch": batch, "trials": count, "patches/s of all": rate},
            **(self._memory() if memory else {}),
        )

    def _memory(self) -> dict[str, float]:
        if self.device.type != "cuda":
            return {}
        return {"peak GiB": torch.cuda.max_memory_allocated(self.device) / 2**30}


def drawn_descriptors(seed: int, points: int) -> np.ndarray:
    """Unit descriptors of a sequence, of 128 numbers: a direction a point, and noise."""
    rng = np.random.default_rng(seed)
    point = rng.standard_normal((points, 1, 128), dtype=np.float32)
    views = point + 1.5 * rng.standard_normal((points, 16, 128), dtype=np.float32)
    return views / np.linalg.norm(views, axis=2, keepdims=True)


if __name__ == "__main__":
    main()
