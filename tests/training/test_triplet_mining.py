"""Offline mining against describing everything at once and sorting."""

import numpy as np
import pytest
import torch

from hpsearch.config import MinedTriplets, RandomTriplets
from hpsearch.data.samplers import sample
from hpsearch.patch_views import VIEWS
from hpsearch.rng import rng_for
from hpsearch.training import triplet_mining
from hpsearch.training.triplet_mining import Miner

SEQUENCE_OF = np.repeat([0, 1], 15)
TABLE = torch.from_numpy(np.random.default_rng(0).normal(size=(30 * VIEWS, 4)).astype(np.float32))


def miner(**settings: object) -> Miner:
    return Miner(MinedTriplets.model_validate(settings), SEQUENCE_OF, seed=3)


def test_the_hardest_candidates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplet_mining, "CANDIDATE_CHUNK", 64)
    found = miner(candidates=200, keep=0.1)
    found.mine(lambda rows: TABLE[torch.from_numpy(rows)], seen=500)
    sizes = [64, 64, 64, 8]
    rows = np.concatenate(
        [
            sample(RandomTriplets(batch=n), SEQUENCE_OF, rng_for(3, "candidates at 500", i)).rows
            for i, n in enumerate(sizes)
        ],
        axis=1,
    )
    a, p, n = (TABLE[torch.from_numpy(call)] for call in rows)
    hardness = ((a - p).norm(dim=1) - (a - n).norm(dim=1)).numpy()
    assert found.rows is not None
    expected = {tuple(rows[:, i]) for i in np.argsort(-hardness)[:20]}
    assert {tuple(triplet) for triplet in found.rows.T.tolist()} == expected


def test_only_a_chunk_is_described_at_a_time() -> None:
    sizes = []

    def describe(rows: np.ndarray) -> torch.Tensor:
        sizes.append(len(rows))
        return TABLE[torch.from_numpy(rows)]

    miner(candidates=5000).mine(describe, seen=0)
    assert max(sizes) <= triplet_mining.CANDIDATE_CHUNK
    assert sum(sizes) == 3 * 5000


@pytest.mark.parametrize(
    ("every", "expected"), [(None, [False, True, False, False]), (30, [False, True, False, True])]
)
def test_mining_is_due_after_its_start_and_then_every_so_many(
    every: int | None, expected: list[bool]
) -> None:
    found, due = miner(start=0.2, every=every, candidates=10), []
    for seen in (10, 20, 40, 50):
        due.append(found.due(seen=seen, budget=100))
        if due[-1]:
            found.mine(lambda rows: TABLE[torch.from_numpy(rows)], seen=seen)
    assert due == expected


def test_batches_are_of_mined_triplets_with_their_points_as_labels() -> None:
    found = miner(candidates=40, keep=0.2, batch=16)
    found.mine(lambda rows: TABLE[torch.from_numpy(rows)], seen=0)
    batch = found.batch(np.random.default_rng(0))
    assert found.rows is not None
    assert {tuple(t) for t in batch.rows.T} <= {tuple(t) for t in found.rows.T.tolist()}
    assert (batch.labels[0] == batch.labels[1]).all()
    assert (batch.labels[0] != batch.labels[2]).all()
