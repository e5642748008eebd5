"""Training speed against the way a researcher would write it, in rounds that take turns.

The plain way: a DataLoader over the same patches in memory, pytorch-metric-learning's sampler,
batch-hard miner and triplet loss, L2-Net as a Sequential, eager, Adam as torch has it. Without that
package its miner and loss are reimplemented here, and the table states it. Ours: ``Learner.step``,
as every trial runs it, eager and compiled.

Also: the share of the measured matrix-product rate that training reaches, the share of a step that
loss and mining of a 1024-patch batch take, and patches per second of the denoiser. On a GPU where
there is one.

    python benchmarks/training.py [--folder data] [--threads 2] [--batch 512] [--rounds 5]
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from hpsearch.config import Adam, BatchHard, DenoiserTraining, L2Net, Noisy, PKSampler, TrialConfig
from hpsearch.data.builtin_sets import open_builtin
from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.samplers import sample
from hpsearch.losses import build_loss
from hpsearch.models import build_denoiser, build_descriptor
from hpsearch.patch_views import VIEWS
from hpsearch.rng import rng_for
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.denoiser_training import DenoiserTask
from hpsearch.training.descriptor_trainer import DescriptorTrainer
from hpsearch.training.devices import (
    Compute,
    LazyRows,
    choose_device,
    device_resident,
    tune_glibc_malloc,
)
from hpsearch.training.inputs import training_input
from hpsearch.training.loop import Progress

MEGAFLOP = 78.1
"""Multiplications and additions of L2-Net at width 1 for one patch forward, in millions."""
SIDE = 2048
"""Side of the matrices whose product measures the machine's rate."""
STEP = 3
"""A training step is about three forward passes."""
Step = Callable[[int], object]
Make = Callable[[TrialConfig, Patches, torch.device], Step]
PML = importlib.util.find_spec("pytorch_metric_learning") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("data"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, device = patches(options), choose_device()
    log(f"torch {torch.__version__}, {device}, {options.threads} threads, {len(train)} points")
    descriptors(options)
    mining(options, device)
    denoisers(train, device)


def descriptors(options: argparse.Namespace) -> None:
    """Patches per second of a step, ours and plain, each in a process of its own.

    Ours changes how its process keeps memory, which would help the plain way too.
    """
    name = "pytorch-metric-learning" if PML else "reimplemented miner and loss"
    ways = {
        "ours": partial(ours, compiled=False),
        f"DataLoader(0) + {name}": partial(plain, workers=0),
        f"DataLoader(2) + {name}": partial(plain, workers=2),
    }
    if options.compile:
        ways["ours, compiled"] = partial(ours, compiled=True)
    with ExitStack() as stack:
        steps = {way: stack.enter_context(elsewhere(make, options)) for way, make in ways.items()}
        times = interleaved(
            {**steps, "product": product(choose_device())}, options.rounds, choose_device()
        )
    log(f"L2-Net width {options.width}, batch hard, S·K = {options.batch}, Adam")
    log("| way | s a step | patches/s | × plain |\n|---|---|---|---|")
    best_plain = min(seconds for way, seconds in times.items() if way.startswith("DataLoader"))
    rate = 2 * SIDE**3 / times.pop("product")
    for way, seconds in times.items():
        here = options.batch / seconds
        log(f"| {way} | {seconds:.3f} | {here:.0f} | {best_plain / seconds:.2f} |")
    if options.width == 1:
        work = STEP * MEGAFLOP * 1e6 * options.batch / times["ours"]
        log(f"matrix product {rate / 1e9:.0f} GFLOP/s, ours {work / rate:.0%} of it")


@contextmanager
def elsewhere(make: Make, options: argparse.Namespace) -> Iterator[Step]:
    """A step that runs in another process, one at a time."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(make, options, there)
    )
    process.start()
    here.recv()  # ready

    def step(number: int) -> None:
        here.send(number)
        here.recv()

    try:
        yield step
    finally:
        here.send(None)
        process.join()


def serve(make: Make, options: argparse.Namespace, pipe: Connection) -> None:
    """Steps on demand."""
    torch.set_num_threads(options.threads)
    train, device = patches(options), choose_device()
    step = make(configuration(options), train, device)
    pipe.send("ready")
    while (number := pipe.recv()) is not None:
        step(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send("done")


def patches(options: argparse.Namespace) -> Patches:
    """The training part of the mini set."""
    store = PatchStore.open(open_builtin("mini", options.folder))
    return store.part(store.split(), "train")


def configuration(options: argparse.Namespace) -> TrialConfig:
    """Configuration that all ways train."""
    return TrialConfig(
        input=Noisy(),
        descriptor=L2Net(width=options.width),
        loss=BatchHard(),
        sampler=PKSampler(groups=options.batch // 4, views=4),
        optimizer=Adam(lr=1e-3),
        patches=10**9,
    )


def ours(config: TrialConfig, train: Patches, device: torch.device, *, compiled: bool) -> Step:
    """A step as trials take it."""
    if device.type == "cpu":
        tune_glibc_malloc()
    _, feed = training_input(config.input, train, ArtifactCache("/nowhere"), device)
    learner = DescriptorTrainer(
        config, train.sequence_of, feed, Compute(device=device, compiled=compiled)
    )

    def step(number: int) -> None:
        learner.step(Progress(seen=number, step=number))

    return step


class InMemory(Dataset):
    """One patch and its point at a time."""

    def __init__(self, train: Patches) -> None:
        self.pixels = train.load_all(noisy=True)[:, None]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.from_numpy(self.pixels[row]).float(), row // VIEWS


class Groups(Sampler):
    """S·K rows at a time."""

    def __init__(self, sampler: PKSampler, train: Patches) -> None:
        self.sampler, self.train = sampler, train

    def __iter__(self) -> Iterator[list[int]]:
        number = 0
        while True:
            rng = rng_for(0, "plain", number := number + 1)
            yield sample(self.sampler, self.train.sequence_of, rng).rows[0].tolist()


def plain(config: TrialConfig, train: Patches, device: torch.device, *, workers: int) -> Step:
    """A step as a researcher would write it."""
    assert isinstance(config.sampler, PKSampler)
    batches = Groups(config.sampler, train)
    loader = iter(DataLoader(InMemory(train), batch_sampler=batches, num_workers=workers))
    network = plain_network(config.descriptor.width).to(device)
    optimizer, loss = torch.optim.Adam(network.parameters(), lr=1e-3), plain_loss()

    def step(number: int) -> None:
        given, labels = next(loader)
        optimizer.zero_grad()
        loss(network(given.to(device)), labels.to(device)).backward()
        optimizer.step()

    return step


def plain_network(width: float) -> nn.Sequential:
    """L2-Net as published code writes it."""
    layers: list[nn.Module] = []
    before = 1
    for channels, stride in zip((32, 32, 64, 64, 128, 128), (1, 1, 2, 1, 2, 1), strict=True):
        after = round(channels * width)
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
        before = after
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Conv2d(before, 128, 8), nn.Flatten())


def plain_loss() -> Callable[[Tensor, Tensor], Tensor]:
    """Batch-hard mining and a hinge of 1."""
    if not PML:
        return reimplemented_loss
    from pytorch_metric_learning import distances, losses, miners  # type: ignore[import-not-found]

    distance = distances.LpDistance(normalize_embeddings=False)
    miner = miners.BatchHardMiner(distance=distance)
    triplet = losses.TripletMarginLoss(margin=1.0, distance=distance)
    return lambda x, labels: triplet(x, labels, miner(x, labels))


def reimplemented_loss(x: Tensor, labels: Tensor) -> Tensor:
    """Batch-hard triplet loss with margin 1, as in pytorch-metric-learning."""
    distances, same = torch.cdist(x, x), labels[:, None] == labels
    positive = distances.masked_fill(~same, -torch.inf).max(dim=1).values
    negative = distances.masked_fill(same, torch.inf).min(dim=1).values
    return torch.relu(1 + positive - negative).mean()


def product(device: torch.device) -> Step:
    """A square matrix product, large enough that its rate no longer grows."""
    x, y = torch.rand(SIDE, SIDE, device=device), torch.rand(SIDE, SIDE, device=device)
    return lambda number: x @ y


def mining(options: argparse.Namespace, device: torch.device) -> None:
    """Cost of loss and mining as a share of a training step."""
    network = Compute(device=device).to_device(build_descriptor(L2Net(width=options.width), seed=0))
    loss = build_loss(BatchHard(), PKSampler(groups=256, views=4))
    given = torch.rand(1024, 1, 32, 32, device=device) * 255
    found = torch.rand(1, 1024, 128, device=device, requires_grad=True)
    ways: dict[str, Step] = {
        "network": lambda number: network(given).sum().backward(),
        "loss": lambda number: loss(found).backward(),
    }
    times = interleaved(ways, 3, device)
    share = times["loss"] / sum(times.values())
    log(f"loss and mining of 1024 patches: {times['loss'] * 1e3:.1f} ms, {share:.1%} of the step")


def denoisers(train: Patches, device: torch.device) -> None:
    """Patches per second of training the shallow U-Net."""
    log("| shallow U-Net, batch | patches/s |\n|---|---|")
    noisy, clean = (device_resident(LazyRows(train, noisy=n), device) for n in (True, False))
    for batch in (64, 512, 1024, 4096) if device.type == "cuda" else (64, 512):
        config = DenoiserTraining(batch=batch, patches=10**9)
        network: nn.Module = build_denoiser(config.network, seed=0)
        network = Compute(device=device).to_device(network)
        task = DenoiserTask(config, network, noisy, clean, num_rows=VIEWS * len(train))
        seconds = interleaved({"": partial(denoise_step, task)}, 5, device)[""]
        log(f"| {batch} | {batch / seconds:.0f} |")


def denoise_step(task: DenoiserTask, number: int) -> object:
    return task.step(Progress(seen=number, step=number))


def interleaved(ways: Mapping[str, Step], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each way; they take turns, so that a busy machine is unfair to none."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 2):
        for way, step in ways.items():
            started = time.perf_counter()
            step(number)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[way].append(time.perf_counter() - started)
    return {way: statistics.median(found[2:]) for way, found in times.items()}


def log(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
