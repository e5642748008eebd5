"""What a search maximises or minimises, with its direction and its worst value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from hpsearch.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A metric of the reports, born with its direction.

    Attributes:
        metric: name as in the reports, for example ``val/mAP``.
        worst: what a collapsed or diverged trial gets; finite, and no better than any real value.
    """

    metric: str = "val/mAP"
    direction: Literal["maximize", "minimize"] = "maximize"
    worst: float = 0.0

    @property
    def mode(self) -> Literal["max", "min"]:
        """The direction in Ray's words."""
        return "max" if self.direction == "maximize" else "min"

    def value(self, metrics: Mapping[str, float], *, collapsed: bool) -> float:
        """The guarded value: a collapsed encoder is the worst, whatever its mAP says.

        By the official protocol a constant encoder has retrieval mAP 1.0, because all distances
        tie and the positives stand first.

        Raises:
            UserError: if the reports have no such metric.
        """
        if collapsed:
            return self.worst
        if self.metric not in metrics:
            known = ", ".join(sorted(name for name in metrics if name.startswith("val/")))
            raise UserError(f"no report has the metric {self.metric!r}; choose one of: {known}")
        return metrics[self.metric]

    def better(self, one: float, other: float) -> bool:
        """Whether ``one`` is strictly better than ``other``."""
        return one > other if self.direction == "maximize" else one < other


MEAN_MAP = Objective()
"""Mean of the verification, matching and retrieval mAP on the validation sequences."""

VERIFICATION = Objective(metric="val/verification")
"""Whether two patches show the same point: mean AP over noise levels and kinds of negatives."""
MATCHING = Objective(metric="val/matching")
"""Finding a point in another image of its sequence: mean AP over noise levels and images."""
RETRIEVAL = Objective(metric="val/retrieval")
"""Finding a point among all sequences' patches: mean AP over noise levels and queries."""
