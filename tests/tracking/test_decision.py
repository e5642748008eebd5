"""The truth table of promotion."""

import pytest

from hpsearch.evaluation.bootstrap import Comparison
from hpsearch.tracking.decision import decide


def found(low: float, high: float) -> Comparison:
    return Comparison(difference=(low + high) / 2, low=low, high=high, share_won=0.5)


@pytest.mark.parametrize(
    ("comparison", "same", "collapsed", "promote", "words"),
    [
        (None, True, False, True, "no champion"),
        (None, True, True, False, "collapsed"),
        (None, False, False, False, "another patch set"),
        (found(0.01, 0.03), True, False, True, "better"),
        (found(0.01, 0.03), True, True, False, "collapsed"),
        (found(0.01, 0.03), False, False, False, "another patch set"),
        (found(-0.01, 0.03), True, False, False, "no clear difference"),
        (found(0.0, 0.03), True, False, False, "no clear difference"),
        (found(-0.03, -0.01), True, False, False, "worse"),
    ],
)
def test_truth_table(
    comparison: Comparison | None, same: bool, collapsed: bool, promote: bool, words: str
) -> None:
    decision = decide(comparison, same_patches=same, collapsed=collapsed)
    assert decision.promote is promote
    assert words in decision.reason
