"""Direction and guard of objectives."""

import numpy as np
import pytest

from hpsearch.errors import UserError
from hpsearch.evaluation import Scores, Sizes, evaluate, make_tasks
from hpsearch.search.objective import MEAN_MAP, Objective


def test_better_follows_the_direction() -> None:
    assert MEAN_MAP.better(0.6, 0.5)
    assert not MEAN_MAP.better(0.5, 0.5)
    assert Objective(metric="val/MAE", direction="minimize", worst=255.0).better(4.0, 5.0)


def test_an_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(UserError, match="val/matching"):
        Objective(metric="val/nothing").value({"val/matching": 0.5}, collapsed=False)


def score(encode) -> Scores:
    names, counts = ("i_a", "v_b", "v_c"), (30, 30, 30)
    tasks = make_tasks(names, counts, sizes=Sizes(pairs=300, queries=20, distractors=40), seed=0)
    rng = np.random.default_rng(0)
    return evaluate(
        {name: encode(rng, n).astype(np.float32) for name, n in zip(names, counts, strict=True)},
        tasks,
    )


def guarded(scores: Scores) -> float:
    metrics = {f"val/{name}": value for name, value in scores.flat().items()}
    return MEAN_MAP.value(metrics, collapsed=scores.collapsed)


def test_a_constant_encoder_is_worst_although_retrieval_alone_ranks_it_first() -> None:
    constant = score(lambda rng, n: np.full((n, 16, 8), 0.7))
    random = score(lambda rng, n: rng.normal(size=(n, 16, 8)))
    learned = score(lambda rng, n: rng.normal(size=(n, 1, 8)) + 0.3 * rng.normal(size=(n, 16, 8)))
    assert constant.retrieval == 1.0
    assert constant.retrieval >= learned.retrieval > random.retrieval
    assert guarded(constant) == MEAN_MAP.worst < guarded(random) < guarded(learned)
