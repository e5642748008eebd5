"""The truth table of promotion."""

import math

import pytest

from hpsearch.evaluation.bootstrap import Comparison
from hpsearch.tracking.model_registry import decide


def found(low: float, high: float) -> Comparison:
    return Comparison(difference=(low + high) / 2, low=low, high=high, share_won=0.5)


BETTER, WORSE, UNCLEAR = found(0.01, 0.03), found(-0.03, -0.01), found(-0.01, 0.03)
TOUCHING, UNKNOWN = found(0.0, 0.03), found(math.nan, math.nan)


@pytest.mark.parametrize(
    ("comparison", "given", "promote", "words"),
    [
        (None, {}, True, "no champion"),
        (None, {"retrained": False}, True, "no champion"),
        (None, {"collapsed": True}, False, "collapsed"),
        (None, {"same_patches": False}, False, "other patches"),
        (BETTER, {}, True, "better"),
        (BETTER, {"collapsed": True}, False, "collapsed"),
        (BETTER, {"same_patches": False}, False, "other patches"),
        (BETTER, {"retrained": False}, False, "only once"),
        (UNCLEAR, {}, False, "no clear difference"),
        (TOUCHING, {}, False, "no clear difference"),
        (WORSE, {}, False, "worse"),
        (WORSE, {"retrained": False}, False, ": worse"),
        (UNKNOWN, {}, False, "not a number"),
    ],
)
def test_truth_table(
    comparison: Comparison | None, given: dict[str, bool], promote: bool, words: str
) -> None:
    decision = decide(comparison, **given)
    assert (decision.promote, decision.forced) == (promote, False)
    assert words in decision.reason
    forced = decide(comparison, **given, force=True)
    assert forced.promote is not given.get("collapsed", False), "no force helps the collapsed"
    assert forced.forced is (forced.promote and not promote)
    assert words in forced.reason
    assert ("forced" in forced.reason) is forced.forced
