"""Whether a challenger becomes champion: a pure function of what both scored on test."""

from dataclasses import dataclass

from hpsearch.evaluation.bootstrap import Comparison


@dataclass(frozen=True)
class Decision:
    """Whether the alias moves, and why, in one sentence."""

    promote: bool
    reason: str


def decide(
    comparison: Comparison | None, *, same_patches: bool = True, collapsed: bool = False
) -> Decision:
    """Move the alias only if the challenger is better beyond doubt.

    Args:
        comparison: challenger minus champion on test, mean of the three mAPs, with an interval
            over sequences; None if there is no champion.
        same_patches: whether both were scored on the same patch set.
        collapsed: whether the challenger's descriptors have collapsed.
    """
    if collapsed:
        return Decision(False, "its descriptors have collapsed to one point")
    if not same_patches:
        return Decision(False, "the champion was scored on another patch set")
    if comparison is None:
        return Decision(True, "there was no champion")
    found = (
        f"mean mAP {comparison.difference:+.4f} against the champion, 95 % interval "
        f"[{comparison.low:+.4f}, {comparison.high:+.4f}] over test sequences"
    )
    if comparison.low > 0:
        return Decision(True, f"{found}: better")
    if comparison.high < 0:
        return Decision(False, f"{found}: worse")
    return Decision(False, f"{found}: no clear difference")
