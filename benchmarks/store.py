"""The patch store at full size: 1.5 million patches from generated strips, clean and noisy.

Four claims, each against its peer on the same cores: an import runs at 0.8 of the speed of bare PNG
decoding at least, in less than 1 GB; a store opens in 50 ms and costs no memory; a random batch of
4096 gathers at half of the speed of numpy.take on an array in memory at least; ten processes that
read a store hold its pages once.

A few strips are generated and linked into 76 sequences, so that a tree of full size takes no time
to make; every strip is decoded all the same.

    python benchmarks/store.py [--sequences 76] [--points 1234] [--folder /tmp]
"""

import argparse
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
from PIL import Image

from hpsearch.data.hpatches_import import import_tree
from hpsearch.data.patch_store import Patches, PatchStore
from hpsearch.data.process_pool import imap_ordered, usable_cores
from hpsearch.patch_views import VIEW_NAMES

BATCH, ROUNDS, READERS, KINDS = 4096, 60, 10, 2
DECODED = 16
"""Sequences that bare decoding is timed on."""
SIDE = 65


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=76)
    parser.add_argument("--points", type=int, default=1234)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        tree = make_tree(folder / "tree", options.sequences, options.points)
        log(f"{usable_cores()} cores, {16 * options.sequences * options.points:,} patches")
        importing(tree, folder / "s.arrow")
        opening(folder / "s.arrow")
        gathering(folder / "s.arrow")
        sharing(folder / "s.arrow")


def make_tree(tree: Path, sequences: int, points: int) -> Path:
    """Smooth random patches, about as large in PNG as genuine ones."""
    rng = np.random.default_rng(0)
    for kind in range(KINDS):
        coarse = Image.fromarray(rng.integers(0, 256, (points * 6, 6), dtype=np.uint8))
        smooth = coarse.resize((SIDE, points * SIDE), Image.Resampling.BICUBIC)
        grain = rng.integers(-2, 3, (points * SIDE, SIDE))
        strip = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        tree.mkdir(exist_ok=True)
        Image.fromarray(strip).save(tree / f"{kind}.png")
    for s in range(sequences):
        sequence = tree / f"{'iv'[s % 2]}_{s:02}"
        sequence.mkdir()
        for view in VIEW_NAMES:
            (sequence / f"{view}.png").symlink_to(tree / f"{s % KINDS}.png")
    return tree


def importing(tree: Path, out: Path) -> None:
    folders = sorted(p for p in tree.iterdir() if p.is_dir())
    sample = folders[:DECODED]
    started = processor()
    bare = seconds(lambda: list(imap_ordered(decode, sample, workers=usable_cores())))
    between = processor()
    with ThreadPoolExecutor() as watcher:
        done = threading.Event()
        peak = watcher.submit(highest_memory, done)
        ours = seconds(lambda: import_tree(tree, out))
        done.set()
    share = len(sample) / len(folders)
    effort = (between - started) / share / (processor() - between)
    patches = 16 * sum(PatchStore.open(out).counts)
    bare /= share
    log(
        f"import     {patches / ours:,.0f} patches/s, bare decoding {patches / bare:,.0f}: "
        f"ratio {bare / ours:.2f} (at least 0.8), {effort:.2f} in processor time; "
        f"peak of all processes {peak.result() / 1e9:.2f} GB (at most 1)"
    )


def decode(folder: Path) -> int:
    """Decode all strips of a folder, as any reader has to."""
    return sum(np.asarray(Image.open(folder / f"{view}.png")).shape[0] for view in VIEW_NAMES)


def opening(path: Path) -> None:
    PatchStore.open(path)
    before = resident()
    stores, times = [], []
    for _ in range(5):
        times.append(seconds(lambda: stores.append(PatchStore.open(path))))
    grown = (resident() - before) / len(stores)
    log(f"open       {1e3 * np.median(times):.1f} ms (at most 50), {grown / 1e6:.2f} MB resident")


def gathering(path: Path) -> None:
    store = PatchStore.open(path)
    patches = Patches(store, np.arange(sum(store.counts)), store.names)
    memory = patches.load_all(noisy=True)
    rng = np.random.default_rng(0)
    ours, peer = [], []
    for _ in range(ROUNDS):  # alternating, so that both meet the same load of the machine
        rows = rng.integers(len(memory), size=BATCH)
        peer.append(seconds(lambda: np.take(memory, rows, axis=0)))  # noqa: B023
        rows = rng.integers(len(memory), size=BATCH)
        ours.append(seconds(lambda: patches.gather(rows, noisy=True)))  # noqa: B023
    ratio = np.median(peer) / np.median(ours)
    log(
        f"gather     {1e3 * np.median(ours):.2f} ms a batch of {BATCH}, numpy.take "
        f"{1e3 * np.median(peer):.2f} ms: ratio {ratio:.2f} (at least 0.5)"
    )


def sharing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(READERS), context.Queue()
    readers = [
        context.Process(target=read_all, args=(path, barrier, queue)) for _ in range(READERS)
    ]
    for reader in readers:
        reader.start()
    mapped, shared = np.array([queue.get(timeout=300) for _ in readers]).sum(axis=0) / 1e9
    for reader in readers:
        reader.join()
    log(
        f"share      {READERS} readers map {mapped:.1f} GB of a {path.stat().st_size / 1e9:.1f} GB "
        f"file together and hold {shared:.1f} GB"
    )


def read_all(path: Path, barrier: Barrier, queue: Queue) -> None:
    """Report the bytes of the file that this process has mapped, and its share of them."""
    store = PatchStore.open(path)
    for pixels in (store.clean, store.noisy):
        pixels.reshape(-1)[::4096].max()
    barrier.wait()  # shares are measured while all hold the map
    sizes = {"Rss:": 0, "Pss:": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if words[0] in sizes:
            sizes[words[0]] += 1024 * int(words[1]) * inside
        elif not words[0].endswith(":"):
            inside = words[-1] == str(path)
    barrier.wait()
    queue.put((sizes["Rss:"], sizes["Pss:"]))


def processor() -> float:
    """Processor seconds of this process and of its children that have ended."""
    usage = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def highest_memory(done: threading.Event) -> int:
    """Most bytes that this process and its children held at once; what they share counts once."""
    most = 0
    while not done.wait(0.1):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        most = max(most, sum(held(p) for p in ("self", *children)))
    return most


def held(process: str) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def log(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if shutil.disk_usage(tempfile.gettempdir()).free < 5e9:
        sys.exit("the benchmark needs 5 GB of disk")
    main()
