"""The whole evaluation at official size against the straightforward one.

40 sequences × 1,350 points × 16 views in 128 dimensions; 10,000 queries, 20,000 distractors; 3 ×
1,000,000 pairs at three levels. The straightforward one is SciPy's distances and a NumPy sort for
every list (verification: level and kind; matching: pair of views; retrieval: query, level and pool
size), in whole stages, in as many processes as ours has threads. The limit is the matrix product of
matching and retrieval in float32.

    python benchmarks/evaluation.py [--threads 2] [--cpu-time] [--repeats 3] [--share 1.0]

Each stage of the straightforward one is timed next to ours; a repeat takes four minutes. On a
machine that others use, ``--cpu-time`` counts what was computed, not waited for, in all processes.
``--share 0.1`` times a tenth of each straightforward stage, and the table states it.
"""

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import distance as scipy_distance

from hpsearch.evaluation import OFFICIAL_SIZES, POOL_SIZES, Scores, Tasks, evaluate, sample_tasks
from hpsearch.evaluation.average_precision import average_precision, roc_auc
from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.matching import match
from hpsearch.evaluation.protocol import DEFAULT_BLOCK_BYTES
from hpsearch.evaluation.retrieval import retrieve
from hpsearch.evaluation.verification import verify
from hpsearch.patch_views import view_of

Clock = Callable[[], float]

SEQUENCES, POINTS, DIMENSION = 40, 1350, 128
STAGES = ("verification", "matching", "retrieval")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    clock = cpu_seconds if asked.cpu_time else time.perf_counter
    names = [f"{'iv'[i % 2]}_{i:02}" for i in range(SEQUENCES)]
    descriptors = [draw(np.random.default_rng(i)) for i in range(SEQUENCES)]
    tasks = sample_tasks(names, [POINTS] * SEQUENCES, sizes=OFFICIAL_SIZES, seed=0)
    own = sum(array.nbytes for array in descriptors)
    before = resident()
    print_scores(evaluate(descriptors, tasks))
    above = peak() - before
    log(f"peak memory above the descriptors: {above:.2f} GB, {above * 1e9 / own:.2f} × their own")
    log(f"{asked.threads} threads, torch {torch.__version__}, numpy {np.__version__}")
    ours: dict[str, list[float]] = {stage: [] for stage in (*STAGES, "all")}
    theirs: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for _ in range(asked.repeats):
        for stage in STAGES:
            theirs[stage].append(time_reference(stage, descriptors, tasks, clock, asked))
            ours[stage].append(time_ours(stage, descriptors, tasks, clock))
            log(f"{stage}: straightforward {theirs[stage][-1]:.1f} s, ours {ours[stage][-1]:.2f} s")
        ours["all"].append(timed(lambda: evaluate(descriptors, tasks), clock))
        log(f"all: ours {ours['all'][-1]:.2f} s")
    report(ours, theirs, asked)
    limit = time_products(descriptors, clock)
    fast = statistics.median(ours["all"])
    log(f"float32 products alone: {limit:.1f} s; ours takes {fast / limit:.1f} times as long")


def report(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], asked: argparse.Namespace
) -> None:
    """Print the table: medians of the repeats."""
    whole = "whole stages" if asked.share == 1 else f"{asked.share:g} of each stage, scaled"
    log(f"medians in seconds of {'CPU' if asked.cpu_time else 'wall'} time; {whole}")
    log("| | straightforward | ours (least … most) | ratio |\n|:--|--:|--:|--:|")
    reference = {stage: statistics.median(seconds) for stage, seconds in theirs.items()}
    for stage, seconds in (reference | {"all": sum(reference.values())}).items():
        own = ours[stage]
        middle = statistics.median(own)
        spread = f"{middle:.2f} ({min(own):.2f} … {max(own):.2f})"
        log(f"| {stage} | {seconds:.0f} | {spread} | {seconds / middle:.1f} × |")


def cpu_seconds() -> float:
    """Processor time of this process and of the processes that it has waited for."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def draw(rng: np.random.Generator) -> np.ndarray:
    """Unit descriptors of a sequence: a direction a point, and noise that grows with the level."""
    noise = np.repeat([0.5, 1.5, 2.0, 2.5], [1, 5, 5, 5])[:, None]
    point = rng.standard_normal((POINTS, 1, DIMENSION), dtype=np.float32)
    views = point + noise * rng.standard_normal((POINTS, 16, DIMENSION), dtype=np.float32)
    return (views / np.linalg.norm(views, axis=2, keepdims=True)).astype(np.float32)


@torch.inference_mode()
def time_ours(stage: str, descriptors: list[np.ndarray], tasks: Tasks, clock: Clock) -> float:
    bank = DescriptorTable.from_arrays(descriptors, names=tasks.names, device="cpu")
    memory = DEFAULT_BLOCK_BYTES
    works: dict[str, Callable[[], object]] = {
        "verification": lambda: verify(bank, tasks, norm="l2"),
        "matching": lambda: match(bank, norm="l2", memory=memory),
        "retrieval": lambda: retrieve(bank, tasks, norm="l2", memory=memory),
    }
    return timed(works[stage], clock)


def time_reference(
    stage: str,
    descriptors: list[np.ndarray],
    tasks: Tasks,
    clock: Clock,
    asked: argparse.Namespace,
) -> float:
    """Seconds of one straightforward stage in several processes, scaled if only a share is run."""
    work = {
        "verification": reference_verification,
        "matching": reference_matching,
        "retrieval": reference_retrieval,
    }[stage]
    parts, share = asked.threads, asked.share
    start = clock()
    children = [fork(work, descriptors, tasks, part, parts, share) for part in range(1, parts)]
    work(descriptors, tasks, 0, parts, share)
    for child in children:
        os.waitpid(child, 0)
    return (clock() - start) / share


def fork(work: Callable[..., None], *given: object) -> int:
    """Run work in a child process; its process id."""
    child = os.fork()
    if not child:
        work(*given)
        os._exit(0)
    return child


def portion(count: int, part: int, parts: int, share: float) -> range:
    """Numbers of one part of several, out of the first share of ``count``."""
    return range(part, round(count * share), parts)


def reference_verification(
    descriptors: list[np.ndarray], tasks: Tasks, part: int, parts: int, share: float
) -> None:
    lists = (tasks.positives, tasks.inter, tasks.intra)
    n = round(len(tasks.positives) * share)
    for level in range(3):
        positive, *negatives = (
            list_distances(descriptors, rows[portion(n, part, parts, 1.0)], level=level)
            for rows in lists
        )
        few = len(positive) // 5
        for negative in negatives:
            both = np.concatenate([negative, positive])
            labels = np.arange(len(both)) >= len(negative)
            roc_auc(both, labels)
            average_precision(both[: len(negative) + few], labels[: len(negative) + few])


def list_distances(descriptors: list[np.ndarray], rows: np.ndarray, *, level: int) -> np.ndarray:
    views1, views2 = (view_of(rows[:, column], level=level) for column in (1, 4))
    return np.array(
        [
            scipy_distance.euclidean(descriptors[s1][i1, v1], descriptors[s2][i2, v2])
            for (s1, _, i1, s2, _, i2), v1, v2 in zip(rows.tolist(), views1, views2, strict=True)
        ]
    )


def reference_matching(
    descriptors: list[np.ndarray], tasks: Tasks, part: int, parts: int, share: float
) -> None:
    for number in portion(SEQUENCES * 15, part, parts, share):
        own, view = descriptors[number // 15], number % 15 + 1
        d = scipy_distance.cdist(own[:, 0], own[:, view])
        correct = d.argmin(axis=1) == np.arange(len(d))
        average_precision(d.min(axis=1), correct, n_positive=len(d))


def reference_retrieval(
    descriptors: list[np.ndarray], tasks: Tasks, part: int, parts: int, share: float
) -> None:
    reference = np.stack([descriptors[s][i, 0] for s, i in tasks.distractors])
    for s, i in tasks.queries[portion(len(tasks.queries), part, parts, share)]:
        others = reference[tasks.distractors[:, 0] != s]
        own = descriptors[s][i]
        far = scipy_distance.cdist(own[:1], others)[0]
        for level in range(3):
            same = own[1 + 5 * level : 6 + 5 * level]
            near = scipy_distance.cdist(own[:1], same)[0]
            both = np.concatenate([near, far])
            labels = np.arange(len(both)) < len(near)
            for pool in POOL_SIZES:
                average_precision(both[:pool], labels[:pool])


def time_products(descriptors: list[np.ndarray], clock: Clock) -> float:
    """float32 products of matching (all) and retrieval (one block of queries, scaled)."""
    tables = [torch.from_numpy(own) for own in descriptors]
    targets = tables[0][:, 1:].reshape(-1, DIMENSION).contiguous()
    reference = tables[0][:, 0].contiguous()
    matching = timed(lambda: [part @ targets.T for part in reference.split(256)], clock)
    distractors = torch.cat([own[:500, 0] for own in tables])
    retrieval = timed(lambda: reference[:1000] @ distractors.T, clock)
    return matching * SEQUENCES + retrieval * 10


def timed(work: Callable[[], object], clock: Clock) -> float:
    start = clock()
    work()
    return clock() - start


def peak() -> float:
    """Peak memory of this process so far in GB (Linux counts KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def resident() -> float:
    """Memory of this process at present in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e9


def print_scores(scores: Scores) -> None:
    shown = (scores.verification, scores.matching, scores.retrieval)
    log("verification {:.4f}, matching {:.4f}, retrieval {:.4f}".format(*shown))


def log(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
