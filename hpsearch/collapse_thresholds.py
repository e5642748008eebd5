"""Thresholds of collapse, side by side: while training, and in an evaluation.

Both measure dispersion, of different descriptors. While training, it is that of single batches of
a network that still changes, and a false alarm ends a trial for good. So the limits are tight,
several checks in a row must agree, and the loss must stand near its collapse value. An evaluation
measures all patches of a set once, after or between training steps. A collapse that it misses may
win a search, since a constant encoder has retrieval mAP 1. So its limits are wide.
"""

from collections.abc import Mapping
from dataclasses import dataclass

COLLAPSED_METRIC = "val/collapsed"
"""Metric of a report: 1 if the descriptors of the validation patches have collapsed."""


@dataclass(frozen=True)
class CollapseThresholds:
    """Limits of the dispersion of descriptors, all free of scale."""

    min_spread: float
    """Relative dispersion below which descriptors lie close together."""
    max_resultant: float
    """Resultant length above which descriptors point in one direction."""
    min_contrast: float
    """Ratio of distances to other points and to the same point below which, if descriptors lie
    close together or in one direction, points cannot be distinguished."""
    vanishing_spread: float
    """Relative dispersion below which what is left is lost in half precision and in files."""


TRAINING = CollapseThresholds(
    min_spread=0.1, max_resultant=0.995, min_contrast=1.03, vanishing_spread=2e-3
)
"""At a spread of 0.2 the first steps of runs that recover are nearly taken for a collapse, and at a
contrast of 1.05 runs are stopped that later match twice as well as untrained ones. The vanishing
spread is twice that of an evaluation because it counts only with the loss at its collapse value."""
EVALUATION = CollapseThresholds(
    min_spread=0.2, max_resultant=0.99, min_contrast=1.05, vanishing_spread=1e-3
)
"""A thousandth of the length is also lost in the five decimals of the official files."""


def is_reported_collapsed(metrics: Mapping[str, float]) -> bool:
    """True if the validation of a report found a collapse."""
    return metrics.get(COLLAPSED_METRIC, 0.0) > 0
