"""What an evaluation found: every number of the official printout, and the headlines."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hpsearch.collapse_thresholds import EVALUATION
from hpsearch.patch_views import LEVELS
from hpsearch.shapes import Float, Int

PAIR_KINDS = ("inter", "intra")
POOL_SIZES = (100, 500, 1_000, 5_000, 10_000, 15_000, 20_000)


@dataclass(frozen=True, eq=False, kw_only=True)
class VerificationScores:
    """Axes: level (easy, hard, tough), kind (inter, intra), sequence s of a pair's first patch."""

    balanced_auc: Float[np.ndarray, "3 2"]
    imbalanced_ap: Float[np.ndarray, "3 2"]
    sequence_ap: Float[np.ndarray, "3 2 s"]
    """Imbalanced AP of each sequence's own pairs; NaN where it has no positive or no negative."""
    histogram: Int[np.ndarray, "3 3 s b"]
    """Pairs of the imbalanced lists by level, list (positives, inter, intra), sequence and bin of
    distance; the bins hold equally many positives. What the bootstrap resamples."""

    def curve(
        self, level: int, kind: int
    ) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
        """Recall and precision at the edges of the bins: the pooled curve, for a figure."""
        positives = self.histogram[level, 0].sum(axis=0).cumsum()
        negatives = self.histogram[level, 1 + kind].sum(axis=0).cumsum()
        kept = positives + negatives > 0
        positives, negatives = positives[kept], negatives[kept]
        return positives / positives[-1], positives / (positives + negatives)


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchingScores:
    """Axes: sequence s, level (easy, hard, tough), target image 1..5."""

    ap: Float[np.ndarray, "s 3 5"]
    success_rate: Float[np.ndarray, "s 3 5"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalScores:
    """Axes: level (easy, hard, tough), pool size (``POOL_SIZES``), query q."""

    ap: Float[np.ndarray, "3 7 q"]
    tie_neutral_ap: Float[np.ndarray, "3 q"]
    """Whole list; a distractor as close as a positive counts half ahead of it."""
    sequence: Int[np.ndarray, " q"]
    """Sequence of each query."""


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """How far apart descriptors of different points lie; see ``evaluation.dispersion``."""

    relative: float
    resultant: float
    contrast: float

    @property
    def collapsed(self) -> bool:
        """No spread to speak of; or little, and other points no farther than other views.

        Little spread alone is no collapse: a run that learns passes through it, and a descriptor
        with a common offset ranks as well as one without. But what is a thousandth of the length is
        lost in half precision and in the five decimals of the official files.
        """
        limits = EVALUATION
        little = self.relative < limits.min_spread or self.resultant > limits.max_resultant
        return self.relative < limits.vanishing_spread or (
            little and self.contrast < limits.min_contrast
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of one set of descriptors on one set of tasks; all lie in [0, 1], more is better."""

    names: tuple[str, ...]
    points: tuple[int, ...]
    """Points of each sequence."""
    verified: VerificationScores
    matched: MatchingScores
    retrieved: RetrievalScores
    dispersion: Dispersion

    @property
    def verification(self) -> float:
        """Mean of the six imbalanced APs (3 levels × inter, intra)."""
        return float(self.verified.imbalanced_ap.mean())

    @property
    def matching(self) -> float:
        """Mean over levels of the mean over sequences and target images."""
        return float(self.matched.ap.mean())

    @property
    def retrieval(self) -> float:
        """Mean over levels and queries with the largest pool.

        The coursework on N-HPatches printed ``retrieval_over_pools``: compare with its reports by
        that one only.
        """
        return float(self.retrieved.ap[:, -1].mean())

    @property
    def retrieval_over_pools(self) -> float:
        """Mean over levels, queries and the seven pool sizes, as the coursework's script has it."""
        return float(self.retrieved.ap.mean())

    @property
    def retrieval_tie_neutral(self) -> float:
        """As ``retrieval``, but ties count half: a constant encoder gains nothing by them."""
        return float(self.retrieved.tie_neutral_ap.mean())

    @property
    def mean(self) -> float:
        """Mean of verification, matching and retrieval; ``objective`` is safe against collapse."""
        return (self.verification + self.matching + self.retrieval) / 3

    @property
    def collapsed(self) -> bool:
        """Whether the descriptors hardly depend on the patch."""
        return self.dispersion.collapsed

    @property
    def objective(self) -> float:
        """What a search may maximise: 0 if collapsed, else the mean with tie-neutral retrieval.

        By the official rules a constant encoder has retrieval mAP 1.0 (all distances tie and the
        positives stand first in the list), so ``mean`` would rank it above encoders that learn.
        """
        if self.collapsed:
            return 0.0
        return (self.verification + self.matching + self.retrieval_tie_neutral) / 3

    def flat(self) -> dict[str, float]:
        """Headlines by names that log well, such as ``matching/hard``, ``matching`` and ``mAP``."""
        by_level = {
            "verification": self.verified.imbalanced_ap.mean(axis=1),
            "matching": self.matched.ap.mean(axis=(0, 2)),
            "retrieval": self.retrieved.ap[:, -1].mean(axis=1),
        }
        metrics = {
            f"{task}/{level}": float(value)
            for task, values in by_level.items()
            for level, value in zip(LEVELS, values, strict=True)
        }
        headlines = {name: getattr(self, name) for name in (*by_level, "retrieval_over_pools")}
        guards = {"retrieval_tie_neutral": self.retrieval_tie_neutral, "objective": self.objective}
        return metrics | headlines | guards | {"mAP": self.mean}

    def by_sequence(self) -> dict[str, Float[np.ndarray, " s"]]:
        """Each task's score of every sequence, averaged over levels (verification: and kinds).

        Verification: AP of the pairs whose first patch lies in the sequence; retrieval: mean AP of
        its queries with the largest pool; NaN where a sequence has no pairs or no queries.
        """
        queries = np.bincount(self.retrieved.sequence, minlength=len(self.names))
        total = np.bincount(
            self.retrieved.sequence,
            weights=self.retrieved.ap[:, -1].mean(axis=0),
            minlength=len(self.names),
        )
        with np.errstate(invalid="ignore"):
            retrieval = total / queries
        return {
            "verification": self.verified.sequence_ap.mean(axis=(0, 1)),
            "matching": self.matched.ap.mean(axis=(1, 2)),
            "retrieval": retrieval,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values: arrays as nested lists, NaN as None."""
        headlines = self.flat() | {"collapsed": self.collapsed}
        return {"headline": headlines} | _to_json_value(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scores":
        """Inverse of ``to_dict``."""
        return cls(
            names=tuple(values["names"]),
            points=tuple(values["points"]),
            verified=_from_json_values(VerificationScores, values["verified"]),
            matched=_from_json_values(MatchingScores, values["matched"]),
            retrieved=_from_json_values(RetrievalScores, values["retrieved"]),
            dispersion=Dispersion(**values["dispersion"]),
        )


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        floating = np.issubdtype(value.dtype, np.floating)
        missing = np.isnan(value) if floating else np.zeros(value.shape, bool)
        result = value.astype(object)
        result[missing] = None  # JSON knows no NaN
        return result.tolist()
    return list(value) if isinstance(value, tuple) else value


def _from_json_values(kind: type, values: dict[str, Any]) -> Any:
    integer = ("histogram", "sequence")
    return kind(
        **{
            field.name: np.array(
                values[field.name], np.int64 if field.name in integer else np.float64
            )
            for field in fields(kind)
        }
    )
