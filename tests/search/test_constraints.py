"""Limits of the user: comparisons, their violations, and what a study makes of them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.constraints import (
    Constraint,
    complaints,
    cost_complaints,
    cost_metrics,
    parse_constraints,
    task_drop,
    trial_violations,
)
from hpsearch.search.objective import MEAN_MAP, US_PER_PATCH
from hpsearch.search.search import Search

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
COMPARED = {
    "<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__
}  # fmt: skip


@given(st.sampled_from(sorted(COMPARED)), NUMBERS, NUMBERS | st.just(20.0))
def test_a_violation_is_positive_exactly_where_the_comparison_fails(
    comparison: str, bound: float, value: float
) -> None:
    limit = Constraint.parse(f"us_per_patch {comparison} {bound!r}")
    kept = COMPARED[comparison](value, limit.bound)
    metrics = {"cost/us_per_patch": value}
    assert (limit.violation(metrics) <= 0) == kept == limit.is_met(value)
    assert bool(limit.complaint(metrics)) == (not kept)


@given(st.floats(1.0, 1e6), st.floats(1.01, 10.0), st.floats(1.01, 10.0))
def test_a_violation_grows_and_does_not_depend_on_the_unit(
    bound: float, factor: float, scale: float
) -> None:
    near, far = (
        Constraint("val/mAP", "<", bound).violation({"val/mAP": bound * f})
        for f in (factor, 2 * factor)
    )
    other = Constraint("val/mAP", "<", bound * scale).violation({"val/mAP": bound * factor * scale})
    assert far > near
    assert other == pytest.approx(near, rel=1e-6)


def test_equality_violates_only_strict_comparisons_and_a_missing_metric_any() -> None:
    found = [Constraint("val/mAP", c, 0.5).violation({"val/mAP": 0.5}) > 0 for c in COMPARED]
    assert dict(zip(COMPARED, found, strict=True)) == {
        "<": True,
        "<=": False,
        ">": True,
        ">=": False,
    }
    assert Constraint("val/mAP", "<", 0.5).violation({}) == 1.0
    assert Constraint("val/mAP", "<", 0.5).violation({"val/mAP": float("nan")}) == 1.0


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("us_per_patch", "invalid-constraint", "us_per_patch"),
        ("us_per_patch < fast", "invalid-constraint", "fast"),
        ("us_per_patch == 3", "invalid-constraint", "=="),
        ("us_per_patch < 1e999", "invalid-constraint", "1e999"),
        ("speed < 3", "unknown-metric", "speed"),
        ("task_drop < 3", "unknown-metric", "task_drop"),
    ],
)
def test_a_text_that_is_no_limit_is_refused(text: str, code: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_constraints([text])
    with pytest.raises(ValidationError, match=re.escape(str(caught.value))):
        search(constraints=(text,))
    assert caught.value.code == code
    assert named in str(caught.value)


def test_limits_given_twice_are_refused() -> None:
    with pytest.raises(UserError, match="twice"):
        parse_constraints(["us_per_patch < 20", "cost/us_per_patch<20.0"])


def search(**settings: object) -> Search:
    return Search(
        suggest=lambda trial: TrialConfig(patches=100), budget=100, report_every=10, trials=4,
        baseline=TrialConfig(patches=100), **settings,
    )  # fmt: skip


def test_a_collapsed_trial_violates_that_alone() -> None:
    limits = parse_constraints(["parameters < 100", "val/mAP > 0.2"])
    metrics = {"cost/parameters": 150.0, "val/mAP": 0.4}
    assert trial_violations("completed", metrics, limits) == {
        "collapsed": 0.0, "parameters < 100": 0.5, "val/mAP > 0.2": pytest.approx(-1.0),
    }  # fmt: skip
    assert [v > 0 for v in trial_violations("collapsed", {}, limits).values()] == [
        True,
        False,
        False,
    ]
    assert complaints(limits, metrics) == "parameters is 150, and the limit is parameters < 100"


def test_costs_are_complained_of_before_the_end() -> None:
    limits = parse_constraints(["parameters < 50000", "us_per_patch < 20", "val/mAP > 0.2"])
    metrics = {"cost/parameters": 135_904.0, "val/mAP": 0.1}
    assert cost_complaints(limits, metrics) == (
        "parameters is 135,904, and the limit is parameters < 50000"
    )


def test_costs_are_measured_where_something_names_them() -> None:
    one = search(
        constraints=("parameters < 9",), gates=("descriptor_bytes <= 512", "task_drop < 0")
    )
    assert cost_metrics(one.objectives, one.promotion_gates) == {
        "cost/parameters", "cost/descriptor_bytes"
    }  # fmt: skip
    assert cost_metrics((MEAN_MAP, US_PER_PATCH), ()) == {"cost/us_per_patch"}
    assert not cost_metrics((MEAN_MAP,), ())


TASK_MAPS = st.fixed_dictionaries({t: st.floats(0, 1) for t in ("verification", "matching")})


@given(TASK_MAPS, TASK_MAPS)
def test_no_task_is_worse_by_more_than_the_drop(
    own: dict[str, float], other: dict[str, float]
) -> None:
    drop = task_drop(own, other)
    assert all(other[task] - own[task] <= drop for task in own)
    assert any(other[task] - own[task] == drop for task in own)
