"""Direction and guard of objectives."""

from dataclasses import replace

import numpy as np
import pytest

from hpsearch.config import L2Net, RandomTriplets, TrialConfig
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores, TaskSizes, evaluate, sample_tasks
from hpsearch.execution.resumable_trial import SECONDS_METRIC
from hpsearch.search.objective import EVALUATION_METRICS, MEAN_MAP, RESTORATION_METRICS, Objective
from hpsearch.search.outcome import final_status, to_result
from hpsearch.training.trial import TrialEnvironment, build_trial


def test_better_follows_the_direction() -> None:
    assert MEAN_MAP.is_better(0.6, 0.5)
    assert not MEAN_MAP.is_better(0.5, 0.5)
    assert Objective(metric="val/MAE", direction="minimize", worst=255.0).is_better(4.0, 5.0)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"metric": "val/nothing"}, "unknown-metric", "'val/nothing'.*val/matching/hard"),
        (
            {"metric": "train/seconds", "direction": "minimize"},
            "missing-worst-value",
            "train/seconds",
        ),
        ({"worst": float("-inf")}, "worst-not-finite", "-inf"),
    ],
)
def test_an_objective_that_cannot_be_is_refused_at_once(
    settings: dict, code: str, words: str
) -> None:
    with pytest.raises(UserError, match=words) as caught:
        Objective(**settings)
    assert caught.value.code == code


def test_an_error_of_clean_patches_is_no_objective() -> None:
    with pytest.raises(UserError, match="'val/PSNR'") as caught:
        Objective(metric="val/PSNR").value({"val/mAP": 0.5}, collapsed=False)
    assert caught.value.code == "missing-metric"


def test_every_report_of_a_real_trial_has_what_a_search_can_aim_at(job: TrialEnvironment) -> None:
    small = TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=10), patches=60)
    (report,) = build_trial(small, job).reports()
    assert {*EVALUATION_METRICS, *RESTORATION_METRICS} - {SECONDS_METRIC} <= report.metrics.keys()
    assert SECONDS_METRIC in EVALUATION_METRICS, "is added where trials are timed"
    assert to_result(report, MEAN_MAP)["objective"] == report.metrics["val/mAP"]
    flat = replace(report, metrics={**report.metrics, "val/collapsed": 1.0})
    assert to_result(flat, MEAN_MAP)["objective"] == MEAN_MAP.worst
    assert final_status(to_result(flat, MEAN_MAP))[0] == "collapsed"


def score(encode) -> Scores:
    names, counts = ("i_a", "v_b", "v_c"), (30, 30, 30)
    tasks = sample_tasks(
        names, counts, sizes=TaskSizes(pairs=300, queries=20, distractors=40), seed=0
    )
    rng = np.random.default_rng(0)
    return evaluate(
        {name: encode(rng, n).astype(np.float32) for name, n in zip(names, counts, strict=True)},
        tasks,
    )


def guarded_mean(scores: Scores) -> float:
    metrics = {f"val/{name}": value for name, value in scores.flat().items()}
    return MEAN_MAP.value(metrics, collapsed=scores.collapsed)


def test_a_constant_encoder_is_worst_although_retrieval_alone_ranks_it_first() -> None:
    constant = score(lambda rng, n: np.full((n, 16, 8), 0.7))
    random = score(lambda rng, n: rng.normal(size=(n, 16, 8)))
    learned = score(lambda rng, n: rng.normal(size=(n, 1, 8)) + 0.3 * rng.normal(size=(n, 16, 8)))
    assert constant.retrieval == 1.0
    assert constant.retrieval >= learned.retrieval > random.retrieval
    assert guarded_mean(constant) == MEAN_MAP.worst < guarded_mean(random) < guarded_mean(learned)
