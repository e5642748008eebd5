"""Preselection by products: overflow, collapsed descriptors, outliers, every way of counting."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from hpsearch.evaluation import (
    TaskSizes,
    distractor_pool,
    evaluate,
    matching,
    neighbor_screens,
    sample_tasks,
)
from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.distances import indexed_distance
from hpsearch.evaluation.matching import match
from hpsearch.evaluation.protocol import DEFAULT_BLOCK_BYTES
from hpsearch.evaluation.retrieval import retrieve


def test_whole_numbers_whose_squares_overflow_are_matched():
    rng = np.random.default_rng(5)
    values = rng.standard_normal((40, 1, 16)) + 0.1 * rng.standard_normal((40, 16, 16))
    views = (np.round(values * 2) * 2e18).astype(np.float32)
    scores = match(_table([views]), norm="l2", memory=DEFAULT_BLOCK_BYTES)
    assert scores.success_rate.mean() > 0.9


def _table(sets):
    names = [f"v_{i}" for i in range(len(sets))]
    return DescriptorTable.from_arrays(sets, names=names, device="cpu")


def _exact_distances(work):
    """Number of distances that were computed exactly."""
    pairs = []

    def counting(a, rows, b, columns, *, norm):
        pairs.append(len(rows))
        return indexed_distance(a, rows, b, columns, norm=norm)

    with (
        mock.patch.object(matching, "indexed_distance", counting),
        mock.patch.object(distractor_pool, "indexed_distance", counting),
    ):
        work()
    return sum(pairs)


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["all", "half"])
@pytest.mark.parametrize("spread", [0.0, 1e-5], ids=["equal", "nearly"])
@pytest.mark.parametrize("half", [True, False])
def test_collapse_to_four_points_costs_few_exact_distances(half, share, spread):
    """Counted, not timed: each costs a hundred times as much as its share of a product."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((300, 16, 32))
    words = rng.standard_normal((4, 32))
    collapsed = rng.random((300, 16)) < share
    values[collapsed] = words[rng.integers(4, size=collapsed.sum())]
    table = _table([values + spread * rng.standard_normal(values.shape)])
    with mock.patch.object(neighbor_screens, "half_precision_is_fast", return_value=half):
        count = _exact_distances(lambda: match(table, norm="l2", memory=DEFAULT_BLOCK_BYTES))
    assert count <= 1.1 * matching.MAX_CANDIDATES_PER_ROW * 300 * 15


def test_an_outlier_costs_few_exact_distances():
    """It widens no other point's error bound."""
    rng = np.random.default_rng(4)
    sets = [rng.standard_normal((100, 16, 8)) for _ in range(3)]
    sets[1][3, 0, 2] = 1e30
    names = [f"v_{i}" for i in range(3)]
    sizes = TaskSizes(pairs=40, queries=30, distractors=150)
    tasks = sample_tasks(names, [100] * 3, sizes=sizes, seed=0)
    tasks.queries[:] = tasks.queries[tasks.queries[:, 0] == 0][0]
    tasks.distractors[0] = [1, 3]
    count = _exact_distances(lambda: evaluate(sets, tasks))
    assert count < 3 * 3 * 100 * 15


@pytest.fixture(scope="module")
def long_lists():
    """Long enough that pools of different sizes differ."""
    names = [f"i_{i}" for i in range(6)]
    tasks = sample_tasks(
        names, [200] * 6, sizes=TaskSizes(pairs=50, queries=30, distractors=1150), seed=3
    )
    return names, tasks


WORDS = np.random.default_rng(0).standard_normal((3, 8))


def few_words(values):
    """Every descriptor one of three, by its first two coordinates."""
    return WORDS[(values[..., 0] > 0).astype(int) + (values[..., 1] > 0)]


KINDS = {
    "gauss": lambda values: values,
    "tenths": lambda values: np.round(values, 1),
    "binary": lambda values: values > 0,
    "few": few_words,
    "near few": lambda values: few_words(values) + 1e-5 * values,
    "large grid": lambda values: np.round(values * 2) * 2e18,
}

WAYS = {
    "few compared": {"MAX_SHARE_OF_CLOSER": 1.0, "MAX_NEAR_TIES": 10**9, "MIN_COPIES": 10**9},
    "all sorted": {"MAX_SHARE_OF_CLOSER": -1.0, "MIN_COPIES": 10**9},
    "copies counted": {"MIN_COPIES": 2},
    "as it is": {},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_pools_of_different_sizes_equal_the_oracle(pool_oracle, kind, way, monkeypatch):
    """Every way to count distractors that are closer."""
    sets, tasks, expected = pool_oracle(kind)
    for name, value in WAYS[way].items():
        monkeypatch.setattr(distractor_pool, name, value)
    found = retrieve(_table(sets), tasks, norm="l2", memory=DEFAULT_BLOCK_BYTES).ap
    assert found == pytest.approx(expected, abs=1e-12)
    assert (found[:, 0] > found[:, 2]).any() or "few" in kind


@pytest.fixture(scope="module")
def pool_oracle(oracle, long_lists):
    """Descriptors of a kind, tasks and the oracle's APs."""
    names, tasks = long_lists
    made = {}

    def make(kind):
        if kind not in made:
            rng = np.random.default_rng(7)
            sets = [
                KINDS[kind](rng.standard_normal((200, 1, 8)) + rng.standard_normal((200, 16, 8)))
                for _ in names
            ]
            official = [array.astype(np.float32) for array in sets]
            made[kind] = sets, tasks, oracle.retrieval(official, tasks, "l2")
        return made[kind]

    return make


@pytest.mark.parametrize("spread", [0.0, 1e-6], ids=["equal", "nearly"])
def test_retrieval_among_collapsed_distractors_costs_few_exact_distances(long_lists, spread):
    names, tasks = long_lists
    rng = np.random.default_rng(8)
    words = rng.standard_normal((4, 32))
    sets = [
        words[rng.integers(4, size=(200, 16))] + spread * rng.standard_normal((200, 16, 32))
        for _ in names
    ]
    table = _table(sets)
    count = _exact_distances(lambda: retrieve(table, tasks, norm="l2", memory=DEFAULT_BLOCK_BYTES))
    assert count <= len(tasks.queries) * 15 * 16


PEAK = """
import resource
import numpy as np, torch
from hpsearch.evaluation import TaskSizes, evaluate, sample_tasks

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

torch.set_num_threads(1)
rng = np.random.default_rng(0)
names, sizes = [f"v_{i}" for i in range(8)], TaskSizes(pairs=1000, queries=100, distractors=1000)
small = [rng.standard_normal((50, 16, 128), dtype=np.float32) for _ in names]
evaluate(small, sample_tasks(names, [50] * 8, sizes=sizes.clamped(400), seed=0))  # imports, buffers
sets = [rng.standard_normal((1000, 16, 128), dtype=np.float32) for _ in names]
tasks = sample_tasks(names, [1000] * 8, sizes=sizes, seed=0)
before = peak()
evaluate(sets, tasks, memory=2**22)
print((peak() - before) / sum(one.nbytes for one in sets))
"""


def test_the_peak_of_memory_is_one_and_a_half_times_the_descriptors():
    """In a process of its own, whose peak nothing else has raised."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 1.5
