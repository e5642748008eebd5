"""The fast evaluation against the official numbers, the slow oracle and known values."""

import dataclasses
import json
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.errors import UserError
from hpsearch.evaluation import (
    PAIR_KINDS,
    POOL_SIZES,
    Scores,
    TaskSizes,
    evaluate,
    neighbor_screens,
    sample_tasks,
)

OFFICIAL_LEVELS = "eht"


def test_headlines_are_the_official_ones(golden, golden_scores):
    expected = golden[2]["headline"]
    assert golden_scores.verification == pytest.approx(
        expected["verification_mAP_imbalanced"], abs=1e-12
    )
    assert golden_scores.matching == pytest.approx(expected["matching_mAP"], abs=1e-12)
    assert golden_scores.retrieval == pytest.approx(expected["retrieval_mAP"], abs=1e-12)
    assert golden_scores.retrieval_over_pools == pytest.approx(
        expected["retrieval_mAP_mean_over_pool_sizes"], abs=1e-12
    )


def test_verification_is_the_official_one(golden, golden_scores):
    for level, letter in enumerate(OFFICIAL_LEVELS):
        for kind, name in enumerate(PAIR_KINDS):
            expected = golden[2]["verification"][letter][name]
            found = golden_scores.verified
            assert found.balanced_auc[level, kind] == pytest.approx(
                expected["balanced_auc"], abs=1e-12
            )
            assert found.imbalanced_ap[level, kind] == pytest.approx(
                expected["imbalanced_ap"], abs=1e-12
            )


def test_every_matching_pair_is_the_official_one(golden, golden_scores):
    _, tasks, expected = golden
    for s, name in enumerate(tasks.names):
        for level, letter in enumerate(OFFICIAL_LEVELS):
            pairs = expected["matching"]["per_pair"][name][letter]
            found = golden_scores.matched
            assert found.ap[s, level] == pytest.approx([p["ap"] for p in pairs], abs=1e-12)
            assert found.success_rate[s, level] == pytest.approx(
                [p["success_rate"] for p in pairs], abs=1e-12
            )


def test_retrieval_is_the_official_one_by_pool_and_query(golden, golden_scores):
    expected = golden[2]["retrieval"]
    for level, letter in enumerate(OFFICIAL_LEVELS):
        found = golden_scores.retrieved.ap[level]
        by_pool = [expected["mAP"][letter][str(pool)] for pool in POOL_SIZES]
        assert found.mean(axis=1) == pytest.approx(by_pool, abs=1e-12)
        by_query = expected["first_20_queries_full_pool"][letter]
        assert found[-1, :20] == pytest.approx(by_query, abs=1e-12)


KINDS = (
    *("gauss", "grid", "tenths", "binary", "uint8", "few", "near few", "offset"),
    *("large grid", "outlier"),
)


@st.composite
def descriptor_sets(draw):
    """Sequences of unequal length with every kind of tie: grids, duplicates, constants, offsets."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = [*draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)), draw(st.integers(2, 40))]
    dimension = draw(st.integers(1, 40))
    kind = draw(st.sampled_from(KINDS))
    sets = []
    for s, n in enumerate(counts):
        point = rng.standard_normal((n, 1, dimension))
        values = point + draw(st.sampled_from([0.1, 1.0])) * rng.standard_normal((n, 16, dimension))
        sets.append(_quantize(values, kind, rng, s))
    return sets


def _quantize(values, kind, rng, sequence):
    match kind:
        case "grid":
            return (np.round(values * 2) / 2).astype(np.float16)
        case "tenths":
            return np.round(values, 1)
        case "binary":
            return values > 0
        case "uint8":
            return np.clip(values * 60 + 128, 0, 255).astype(np.uint8)
        case "few":
            words = rng.standard_normal((3, values.shape[2]))
            return words[rng.integers(3, size=values.shape[:2])].astype(np.float32)
        case "near few":
            words = rng.standard_normal((3, values.shape[2]))
            return words[rng.integers(3, size=values.shape[:2])] + 1e-5 * values
        case "large grid":
            return (np.round(values * 2) * 2e18).astype(np.float32)
        case "outlier":
            values = np.round(values * 2)
            values[tuple(rng.integers(values.shape))] = 4e19
            return values.astype(np.float32)
        case "offset":
            return (values * 1e-3 + 100 * (sequence % 2)).astype(np.float32)
        case _:
            return values.astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    sets=descriptor_sets(),
    norm=st.sampled_from(["l2", "l2", "l1"]),
    seed=st.integers(0, 1000),
    memory=st.sampled_from([1, 5_000, 2**26]),
    half=st.booleans(),
)
def test_equals_the_slow_oracle_ties_included(oracle, sets, norm, seed, memory, half):
    counts = [len(array) for array in sets]
    names = [f"v_{i}" for i in range(len(sets))]
    sizes = TaskSizes(pairs=40, queries=1 + sum(counts) // 4, distractors=max(sum(counts) // 2, 1))
    tasks = sample_tasks(names, counts, sizes=sizes, seed=seed)
    with mock.patch.object(neighbor_screens, "half_precision_is_fast", return_value=half):
        found = evaluate(sets, tasks, norm=norm, memory=memory)
    official = [array.astype(np.float32) for array in sets]
    auc, ap = oracle.verification(official, tasks, norm)
    assert found.verified.balanced_auc == pytest.approx(auc, abs=1e-12)
    assert found.verified.imbalanced_ap == pytest.approx(ap, abs=1e-12)
    ap, success = oracle.matching(official, norm)
    assert found.matched.ap == pytest.approx(ap, abs=1e-12)
    assert found.matched.success_rate == pytest.approx(success, abs=1e-12)
    assert found.retrieved.ap == pytest.approx(oracle.retrieval(official, tasks, norm), abs=1e-12)


def test_a_mapping_is_read_by_name_and_tensors_are_taken(golden, golden_scores):
    descriptors, tasks, _ = golden
    turned = {name: torch.from_numpy(descriptors[name]) for name in reversed(tasks.names)}
    assert evaluate(turned, tasks).to_dict() == golden_scores.to_dict()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("steps", [0, 4])
def test_a_gpu_gives_the_same_scores(golden, steps):
    descriptors, tasks, _ = golden
    if steps:  # many ties
        descriptors = {name: np.round(a * steps) / 10 for name, a in descriptors.items()}
    found = evaluate(descriptors, tasks, device="cuda").flat()
    assert found == pytest.approx(evaluate(descriptors, tasks).flat(), abs=1e-12)


def test_a_common_offset_and_a_lax_matmul_setting_change_nothing(golden, golden_scores):
    descriptors, tasks, _ = golden
    grid = {name: np.round(array * 64) for name, array in descriptors.items()}
    moved = {name: array + 4096 for name, array in grid.items()}
    before = torch.get_float32_matmul_precision()
    expected = evaluate(grid, tasks)
    try:
        torch.set_float32_matmul_precision("medium")
        found = evaluate(moved, tasks)
        lax = evaluate(descriptors, tasks)
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.flat() == expected.flat()
    assert lax.to_dict() == golden_scores.to_dict()


def constant(descriptors, value=0.3):
    return {name: np.full_like(array, value) for name, array in descriptors.items()}


def test_a_constant_encoder_scores_the_known_values_and_the_worst_objective(golden):
    descriptors, tasks, _ = golden
    scores = evaluate(constant(descriptors), tasks)
    assert scores.verification == pytest.approx(1 - 5 * math.log(1.2), abs=2e-3)
    assert (scores.verified.balanced_auc == 0).all()
    expected = np.mean([1 / len(array) for array in descriptors.values()])
    assert scores.matching == pytest.approx(expected, abs=1e-12)
    assert scores.retrieval == scores.retrieval_over_pools == 1.0
    assert scores.collapsed
    assert scores.objective == 0.0
    random = {
        name: np.random.default_rng(0).standard_normal(array.shape)
        for name, array in descriptors.items()
    }
    guessing = evaluate(random, tasks)
    assert guessing.mean < scores.mean  # what the guard is there for
    assert guessing.objective > scores.objective


@pytest.mark.parametrize("value", [0.0, 1e-30, 1.0, 1e6])
def test_a_nearly_constant_encoder_counts_as_collapsed(golden, value):
    descriptors, tasks, _ = golden
    noise = np.random.default_rng(1)
    near = {
        name: value * (1 + 1e-3 * noise.standard_normal(array.shape))
        for name, array in descriptors.items()
    }
    assert evaluate(near, tasks).objective == 0.0


def test_a_trace_of_the_patch_on_a_constant_counts_as_collapsed(golden):
    descriptors, tasks, _ = golden
    trace = {name: 0.3 + 1e-5 * array.astype(float) for name, array in descriptors.items()}
    assert evaluate(trace, tasks).objective == 0.0


def test_an_encoder_with_two_outputs_gains_nothing_by_its_ties(golden):
    descriptors, tasks, _ = golden
    rng = np.random.default_rng(2)
    words = np.eye(2, 8, dtype=np.float32)
    two = {name: words[rng.integers(2, size=a.shape[:2])] for name, a in descriptors.items()}
    scores = evaluate(two, tasks)
    assert scores.retrieval > 0.5
    assert scores.retrieval_tie_neutral < 0.1
    assert scores.objective < 0.15


def test_a_descriptor_with_a_large_offset_is_not_collapsed(golden, golden_scores):
    descriptors, tasks, _ = golden
    moved = {name: array + 50 for name, array in descriptors.items()}
    scores = evaluate(moved, tasks)
    assert not scores.collapsed
    assert scores.objective == pytest.approx(golden_scores.objective, abs=1e-2)


def test_scores_survive_json(golden, golden_scores):
    text = json.dumps(golden_scores.to_dict(), allow_nan=False)
    back = Scores.from_dict(json.loads(text))
    assert back.to_dict() == golden_scores.to_dict()
    assert back.flat() == golden_scores.flat()


def test_flat_names_every_level_and_headline(golden_scores):
    flat = golden_scores.flat()
    for task in ("verification", "matching", "retrieval"):
        levels = [flat[f"{task}/{level}"] for level in ("easy", "hard", "tough")]
        assert flat[task] == pytest.approx(np.mean(levels))
        assert levels == sorted(levels, reverse=True)
    assert flat["mAP"] == golden_scores.mean


def test_scores_by_sequence_average_to_the_headlines(golden_scores):
    rows = golden_scores.by_sequence()
    assert rows["matching"].mean() == pytest.approx(golden_scores.matching)
    queries = np.bincount(golden_scores.retrieved.sequence)
    assert np.average(rows["retrieval"], weights=queries) == pytest.approx(golden_scores.retrieval)
    assert rows["verification"].mean() == pytest.approx(golden_scores.verification, abs=0.1)


def test_the_curve_integrates_to_the_ap(golden_scores):
    verified = golden_scores.verified
    recall, precision = verified.curve(1, 0)
    area = np.trapezoid(np.r_[1.0, precision], np.r_[0.0, recall])
    assert area == pytest.approx(verified.imbalanced_ap[1, 0], abs=5e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_by_sequence_row_and_view(golden, bad):
    descriptors, tasks, _ = golden
    name = tasks.names[2]
    broken = descriptors | {name: descriptors[name].copy()}
    broken[name][7, 9, 3] = bad
    with pytest.raises(UserError, match=f"{name}, row 7 .*view h4"):
        evaluate(broken, tasks)


def test_other_bad_descriptors_are_refused_by_name(golden):
    descriptors, tasks, _ = golden
    name = tasks.names[1]
    own = descriptors[name]
    with pytest.raises(UserError, match=f"{name}.*dimension 15"):
        evaluate(descriptors | {name: own[:, :, :15]}, tasks)
    with pytest.raises(UserError, match=f"{name}.*16 views"):
        evaluate(descriptors | {name: own[:, :15]}, tasks)
    with pytest.raises(UserError, match=f"{name}.*at least one point"):
        evaluate(descriptors | {name: own[:0]}, tasks)
    with pytest.raises(UserError, match=f"{name} are missing"):
        evaluate({k: v for k, v in descriptors.items() if k != name}, tasks)
    with pytest.raises(UserError, match="5 descriptor arrays for 6 sequences"):
        evaluate(list(descriptors.values())[:5], tasks)


def test_tasks_that_point_outside_are_refused_by_row(golden):
    descriptors, tasks, _ = golden
    rows = tasks.intra.copy()
    rows[11, 5] = 10_000
    with pytest.raises(UserError, match=r"intra, row 11 .*idx2 is 10000"):
        evaluate(descriptors, dataclasses.replace(tasks, intra=rows))
    with pytest.raises(UserError, match="equally long"):
        evaluate(descriptors, dataclasses.replace(tasks, intra=tasks.intra[:-1]))


def test_scores_and_tasks_are_printed_in_a_line_without_their_arrays():
    names = ["i_a", "v_b"]
    tasks = sample_tasks(names, [9, 9], sizes=TaskSizes(pairs=5, queries=3, distractors=4), seed=0)
    rng = np.random.default_rng(0)
    found = evaluate([rng.standard_normal((9, 16, 4)) for _ in names], tasks)
    assert repr(found).startswith(f"Scores(verification={found.verification:.4f}, matching=0.")
    assert repr(tasks).startswith("Tasks(positives=")
    assert repr(tasks).endswith(f"distractors={len(tasks.distractors)}, sequences=2)")
    assert max(map(len, (repr(found), repr(tasks)))) < 120
