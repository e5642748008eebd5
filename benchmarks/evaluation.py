"""The whole evaluation at official size against the straightforward one.

40 sequences × 1,350 points × 16 views in 128 dimensions; 10,000 queries, 20,000 distractors; 3 ×
1,000,000 pairs at three levels. The straightforward one is SciPy's distances and a NumPy sort for
every list (verification: level and kind; matching: pair of views; retrieval: query, level and pool
size), timed on a sample and scaled. The limit is the matrix product of matching and retrieval.

    python benchmarks/evaluation.py [--threads 2] [--cpu-time]

On a machine that others use, ``--threads 1 --cpu-time`` counts what was computed, not waited for.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable

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
PAIR_SAMPLE, QUERY_SAMPLE, VIEW_SAMPLE = 20_000, 10, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-time", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    clock = time.process_time if asked.cpu_time else time.perf_counter
    names = [f"{'iv'[i % 2]}_{i:02}" for i in range(SEQUENCES)]
    descriptors = [draw(np.random.default_rng(i)) for i in range(SEQUENCES)]
    tasks = sample_tasks(names, [POINTS] * SEQUENCES, sizes=OFFICIAL_SIZES, seed=0)
    before = peak()
    ours = time_ours(descriptors, tasks, clock)
    memory = peak()
    reference = time_reference(descriptors, tasks, clock)
    limit = time_products(descriptors, clock)
    log(f"seconds of {'CPU' if asked.cpu_time else 'wall'} time")
    log(f"threads {torch.get_num_threads()}, torch {torch.__version__}, numpy {np.__version__}")
    log(f"{'':14}{'straightforward':>16}{'ours':>9}{'ratio':>8}")
    for task, seconds in reference.items():
        log(f"{task:14}{seconds:14.0f} s{ours[task]:7.1f} s{seconds / ours[task]:7.0f}×")
    total, fast = sum(reference.values()), ours["evaluate"]
    log(f"{'all':14}{total:14.0f} s{fast:7.1f} s{total / fast:7.0f}×")
    log(f"matrix products alone: {limit:.1f} s; ours takes {fast / limit:.1f} times as long")
    log(f"peak memory: {memory:.2f} GB, {before:.2f} GB of it before the evaluation")


def draw(rng: np.random.Generator) -> np.ndarray:
    """Unit descriptors of a sequence: a direction a point, and noise that grows with the level."""
    noise = np.repeat([0.5, 1.5, 2.0, 2.5], [1, 5, 5, 5])[:, None]
    point = rng.standard_normal((POINTS, 1, DIMENSION), dtype=np.float32)
    views = point + noise * rng.standard_normal((POINTS, 16, DIMENSION), dtype=np.float32)
    return (views / np.linalg.norm(views, axis=2, keepdims=True)).astype(np.float32)


def time_ours(descriptors: list[np.ndarray], tasks: Tasks, clock: Clock) -> dict[str, float]:
    seconds = {"evaluate": timed(lambda: print_scores(evaluate(descriptors, tasks)), clock)}
    with torch.inference_mode():
        bank = DescriptorTable.from_arrays(descriptors, names=tasks.names, device="cpu")
        seconds["verification"] = timed(lambda: verify(bank, tasks, norm="l2"), clock)
        seconds["matching"] = timed(
            lambda: match(bank, norm="l2", memory=DEFAULT_BLOCK_BYTES), clock
        )
        seconds["retrieval"] = timed(
            lambda: retrieve(bank, tasks, norm="l2", memory=DEFAULT_BLOCK_BYTES), clock
        )
    return seconds


def time_reference(descriptors: list[np.ndarray], tasks: Tasks, clock: Clock) -> dict[str, float]:
    return {
        "verification": reference_verification(descriptors, tasks, clock),
        "matching": reference_matching(descriptors, clock),
        "retrieval": reference_retrieval(descriptors, tasks, clock),
    }


def reference_verification(descriptors: list[np.ndarray], tasks: Tasks, clock: Clock) -> float:
    rows = tasks.positives[:PAIR_SAMPLE]
    t1, t2 = view_of(rows[:, 1], level=0), view_of(rows[:, 4], level=0)

    def distances() -> None:
        for (s1, _, i1, s2, _, i2), v1, v2 in zip(rows.tolist(), t1, t2, strict=True):
            scipy_distance.euclidean(descriptors[s1][i1, v1], descriptors[s2][i2, v2])

    n = len(tasks.positives)
    list_of = np.random.default_rng(0).random(2 * n)
    labels = np.arange(2 * n) >= n
    few = n + n // 5
    sorts = timed(
        lambda: (
            roc_auc(list_of, labels),
            average_precision(list_of[:few], labels[:few]),
        ),
        clock,
    )
    return timed(distances, clock) * 9 * n / PAIR_SAMPLE + 6 * sorts


def reference_matching(descriptors: list[np.ndarray], clock: Clock) -> float:
    def pairs() -> None:
        for view in range(1, 1 + VIEW_SAMPLE):
            d = scipy_distance.cdist(descriptors[0][:, 0], descriptors[0][:, 5 * view])
            correct = d.argmin(axis=1) == np.arange(len(d))
            average_precision(d.min(axis=1), correct, n_positive=len(d))

    return timed(pairs, clock) * 15 * SEQUENCES / VIEW_SAMPLE


def reference_retrieval(descriptors: list[np.ndarray], tasks: Tasks, clock: Clock) -> float:
    reference = np.stack([descriptors[s][i, 0] for s, i in tasks.distractors])

    def queries() -> None:
        for s, i in tasks.queries[:QUERY_SAMPLE]:
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

    return timed(queries, clock) * len(tasks.queries) / QUERY_SAMPLE


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


def print_scores(scores: Scores) -> None:
    shown = (scores.verification, scores.matching, scores.retrieval)
    log("verification {:.4f}, matching {:.4f}, retrieval {:.4f}".format(*shown))


def log(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
