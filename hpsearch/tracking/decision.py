"""Whether a challenger becomes champion: a pure function of what both scored on test."""

import math
from dataclasses import dataclass

from hpsearch.evaluation.bootstrap import Comparison


@dataclass(frozen=True)
class Decision:
    """Whether the alias moves, and why, in one sentence."""

    promote: bool
    reason: str
    forced: bool = False
    """Whether it moves only because the user said so."""


def decide(
    comparison: Comparison | None,
    *,
    same_patches: bool = True,
    collapsed: bool = False,
    retrained: bool = True,
    force: bool = False,
) -> Decision:
    """Move the alias only if the challenger is better beyond doubt, or to fill an empty place.

    Args:
        comparison: challenger minus champion on test, mean of the three mAPs, with an interval
            over sequences; None if there is no champion, or it was scored on other patches.
        same_patches: whether both were scored on the same patches.
        collapsed: whether the challenger's descriptors have collapsed; no force helps then.
        retrained: whether the challenger's configuration has been trained again. The best trial of
            a search was picked for its luck, so it replaces nobody.
        force: move the alias whatever the comparison says, and write that down.
    """
    if collapsed:
        return Decision(False, "its descriptors have collapsed to one point")
    if comparison is None and same_patches:
        return Decision(True, "there was no champion")
    better, reason = _compared(comparison, same_patches)
    if better and not retrained:
        better, reason = False, f"{reason}, but it has been trained once only"
    if force and not better:
        return Decision(True, f"forced, although {reason}", forced=True)
    return Decision(better, reason)


def _compared(comparison: Comparison | None, same_patches: bool) -> tuple[bool, str]:
    if comparison is None or not same_patches:
        return False, "the champion was scored on other patches"
    bounds = (comparison.difference, comparison.low, comparison.high)
    if not all(math.isfinite(value) for value in bounds):
        return False, "the difference to the champion is not a number"
    found = (
        f"mean mAP {comparison.difference:+.4f} against the champion, 95 % interval "
        f"[{comparison.low:+.4f}, {comparison.high:+.4f}] over test sequences"
    )
    if comparison.low > 0:
        return True, f"{found}: better"
    return False, f"{found}: {'worse' if comparison.high < 0 else 'no clear difference'}"
