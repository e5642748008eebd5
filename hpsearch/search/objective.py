"""Objective of a search: metric, direction and worst value."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpsearch.errors import UserError
from hpsearch.patch_views import LEVELS, TASKS
from hpsearch.training.costs import (
    COST_METRICS,
    DESCRIPTOR_BYTES_METRIC,
    FLOPS_METRIC,
    PARAMETERS_METRIC,
    US_PER_PATCH_METRIC,
)

EVALUATION_METRICS = (
    "val/mAP",
    *(f"val/{task}" for task in TASKS),
    *(f"val/{task}/{level}" for task in TASKS for level in LEVELS),
    *("val/retrieval_over_pools", "val/retrieval_tie_neutral", "val/objective"),
    *("train/loss", "train/dispersion", "train/resultant", "train/seconds"),
)
"""Metrics of every report of a trial."""
OWN_METRIC_PREFIX = "val/custom/"
"""Beginning of the names of the user's own metrics."""
PAIR_METRICS = ("val/fpr95",)
"""Metrics of reports whose validation patches have no levels, but pairs (PhotoTour)."""
RESTORATION_METRICS = tuple(
    f"val/{measure}{level}"
    for measure in ("PSNR", "PSNR_per_patch", "MAE", "SSIM")
    for level in ("", *(f"/{level}" for level in LEVELS))
)
"""Metrics of reports whose descriptor sees noisy or denoised patches."""
REPORTED_METRICS = (*EVALUATION_METRICS, *RESTORATION_METRICS, *PAIR_METRICS, *COST_METRICS)
"""All metrics that an objective or a limit can name."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Metric that a search optimizes, with its direction.

    Attributes:
        metric: name as in the reports, for example ``val/mAP``.
        worst: value of a collapsed or diverged trial; finite, and no better than any real value.

    Raises:
        UserError: if reports have no such metric, or ``worst`` is not finite.
    """

    metric: str = "val/mAP"
    direction: Literal["maximize", "minimize"] = "maximize"
    worst: float = 0.0

    def __post_init__(self) -> None:
        known = self.metric in REPORTED_METRICS or self.metric.startswith(OWN_METRIC_PREFIX)
        if not known:
            raise UserError(
                f"no report has the metric {self.metric!r}; choose one of: "
                f"{', '.join(REPORTED_METRICS)}",
                code="unknown-metric",
            )
        if not math.isfinite(self.worst):
            raise UserError(
                f"the worst value of {self.metric} must be finite, got {self.worst}",
                code="worst-not-finite",
            )
        if self.direction == "minimize" and self.worst <= 0:
            raise UserError(
                f"{self.metric} is minimized, so collapsed trials need a large value; set worst",
                code="missing-worst-value",
            )

    @property
    def mode(self) -> Literal["max", "min"]:
        """Direction in Ray's terms: ``max`` or ``min``."""
        return "max" if self.direction == "maximize" else "min"

    def value(self, metrics: Mapping[str, float], *, collapsed: bool) -> float:
        """Guarded value: the worst for a collapsed encoder, whatever its mAP.

        By the official protocol a constant encoder has retrieval mAP 1.0, because all distances
        tie and the positives stand first.

        Raises:
            UserError: if the report lacks the metric.
        """
        if collapsed:
            return self.worst
        if self.metric not in metrics and self.metric.startswith(OWN_METRIC_PREFIX):
            raise UserError(
                f"the report lacks the metric {self.metric!r}; give every trial and the baseline a "
                "CustomMetric with that label",
                code="missing-metric",
            )
        if self.metric not in metrics:
            raise UserError(
                f"the report lacks the metric {self.metric!r}: clean patches have no error; "
                "search with another objective",
                code="missing-metric",
            )
        return metrics[self.metric]

    def is_better(self, one: float, other: float) -> bool:
        """Return whether ``one`` is strictly better than ``other``."""
        return one > other if self.direction == "maximize" else one < other


MEAN_MAP = Objective()
"""Mean of the verification, matching and retrieval mAP on the validation sequences."""

VERIFICATION = Objective(metric="val/verification")
"""Patch verification: mean AP over noise levels and kinds of negatives."""
MATCHING = Objective(metric="val/matching")
"""Image matching: mean AP over noise levels and images of a sequence."""
RETRIEVAL = Objective(metric="val/retrieval")
"""Patch retrieval among all sequences: mean AP over noise levels and queries."""

FPR95 = Objective(metric="val/fpr95", direction="minimize", worst=1.0)
"""False positive rate at 95 % recall on pairs of patches, as PhotoTour is reported; the validation
patches must be of a store with pairs."""

TRAINING_SECONDS = Objective(metric="train/seconds", direction="minimize", worst=1e7)
"""Seconds of training and validation on the worker, without the training of a shared
denoiser; a second objective in addition to mAP. It depends on the machine and its load."""

PARAMETERS = Objective(metric=PARAMETERS_METRIC, direction="minimize", worst=1e12)
"""Trainable and fixed parameters of denoiser and descriptor."""
FLOPS = Objective(metric=FLOPS_METRIC, direction="minimize", worst=1e15)
"""Floating-point operations of describing a patch, in convolutions and products of matrices."""
US_PER_PATCH = Objective(metric=US_PER_PATCH_METRIC, direction="minimize", worst=1e9)
"""Microseconds of describing a patch on the trial's device, in batches of 1024; it depends on the
machine and its load."""
DESCRIPTOR_BYTES = Objective(metric=DESCRIPTOR_BYTES_METRIC, direction="minimize", worst=1e9)
"""Bytes of a descriptor in float32."""
