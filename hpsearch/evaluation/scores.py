"""Scores of an evaluation: all numbers of the official output, and headlines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from hpsearch.collapse_thresholds import EVALUATION
from hpsearch.patch_views import LEVELS, TASKS
from hpsearch.shapes import Bool, Float, Int

PAIR_KINDS = ("inter", "intra")
SEQUENCE_KINDS = ("i_", "v_")
"""Prefixes of the names of illumination and of viewpoint sequences."""
POOL_SIZES = (100, 500, 1_000, 5_000, 10_000, 15_000, 20_000)


@dataclass(frozen=True, eq=False, kw_only=True)
class VerificationScores:
    """Verification scores by level (easy, hard, tough), kind (inter, intra) and sequence."""

    balanced_auc: Float[np.ndarray, "3 2"]
    imbalanced_ap: Float[np.ndarray, "3 2"]
    sequence_ap: Float[np.ndarray, "3 2 s"]
    """Imbalanced AP of each sequence's pairs; NaN if it has no positive or no negative."""
    ap_without: Float[np.ndarray, "3 2 s"]
    """Imbalanced AP of the pairs of all sequences but each; NaN if nothing remains."""
    group_ap: Float[np.ndarray, "3 2 2"]
    """Imbalanced AP of the pairs of illumination and of viewpoint sequences; NaN without any."""
    histogram: Int[np.ndarray, "3 3 s b"]
    """Number of pairs of the imbalanced lists by level, list (positives, inter, intra), sequence
    and bin of distance, with equally many positives per bin; for drawing curves only."""

    def curve(
        self, level: int, kind: int
    ) -> tuple[Float[np.ndarray, " b"], Float[np.ndarray, " b"]]:
        """Recall and precision at the edges of the bins: the pooled curve for plots."""
        positives = self.histogram[level, 0].sum(axis=0).cumsum()
        negatives = self.histogram[level, 1 + kind].sum(axis=0).cumsum()
        kept = positives + negatives > 0
        positives, negatives = positives[kept], negatives[kept]
        return positives / positives[-1], positives / (positives + negatives)


@dataclass(frozen=True, eq=False, kw_only=True)
class MatchingScores:
    """Matching scores by sequence, level (easy, hard, tough), target image 1..5."""

    ap: Float[np.ndarray, "s 3 5"]
    success_rate: Float[np.ndarray, "s 3 5"]


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalScores:
    """Retrieval scores by level (easy, hard, tough), pool size (``POOL_SIZES``), query."""

    ap: Float[np.ndarray, "3 7 q"]
    tie_neutral_ap: Float[np.ndarray, "3 q"]
    """AP in the largest pool with ties neutral: an equally close distractor counts half."""
    sequence: Int[np.ndarray, " q"]
    """Sequence of each query."""


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """Spread of descriptors of different points; see ``protocol.point_dispersion``."""

    relative: float
    resultant: float
    contrast: float

    @property
    def collapsed(self) -> bool:
        """True if the spread vanishes, or is small with other points as close as other views.

        A small spread by itself is not a collapse: it occurs during successful training, and a
        common offset of descriptors does not change ranks. But a spread of a thousandth of the
        length is lost in half precision and in the five decimals of the official files.
        """
        limits = EVALUATION
        little = self.relative < limits.min_spread or self.resultant > limits.max_resultant
        return self.relative < limits.vanishing_spread or (
            little and self.contrast < limits.min_contrast
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of one set of descriptors on one set of tasks, in [0, 1]; higher is better."""

    names: tuple[str, ...]
    points: tuple[int, ...]
    """Number of points of each sequence."""
    verified: VerificationScores
    matched: MatchingScores
    retrieved: RetrievalScores
    dispersion: Dispersion

    def __repr__(self) -> str:
        """Means of the tasks, without the arrays behind them."""
        tasks = ", ".join(f"{t}={getattr(self, t):.4f}" for t in TASKS)
        return f"Scores({tasks}, mean={self.mean:.4f}, sequences={len(self.names)})"

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

        The coursework on N-HPatches reported ``retrieval_over_pools``; compare only that with it.
        """
        return float(self.retrieved.ap[:, -1].mean())

    @property
    def retrieval_over_pools(self) -> float:
        """Mean over levels, queries and the seven pool sizes, as in the coursework's script."""
        return float(self.retrieved.ap.mean())

    @property
    def retrieval_tie_neutral(self) -> float:
        """Retrieval with ties counted half, so that a constant encoder does not benefit."""
        return float(self.retrieved.tie_neutral_ap.mean())

    @property
    def mean(self) -> float:
        """Mean of the three tasks; not robust to collapse, see ``objective``."""
        return (self.verification + self.matching + self.retrieval) / 3

    @property
    def collapsed(self) -> bool:
        """True if the descriptors hardly depend on the patch."""
        return self.dispersion.collapsed

    @property
    def objective(self) -> float:
        """Objective to maximize: 0 if collapsed, else the mean with tie-neutral retrieval.

        By the official rules a constant encoder has retrieval mAP 1.0 (all distances are equal and
        the positives are first in the list), so ``mean`` would rank it above trained encoders.
        """
        if self.collapsed:
            return 0.0
        return (self.verification + self.matching + self.retrieval_tie_neutral) / 3

    def flat(self) -> dict[str, float]:
        """Headlines by metric name, such as ``matching/hard``, ``matching`` and ``mAP``."""
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
        """Score of every sequence by task, averaged over levels (verification: and kinds).

        Verification: AP of the pairs whose first patch lies in the sequence; retrieval: mean AP of
        its queries with the largest pool; NaN if a sequence has no pairs or no queries.
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

    def by_kind(self) -> dict[str, dict[str, float]]:
        """Headlines over the illumination and over the viewpoint sequences alone, by prefix.

        Verification: the pairs whose first patch lies in these sequences; retrieval: their queries.
        NaN if there are no such sequences, pairs or queries.
        """
        groups = sequence_groups(self.names)
        verification = self.verified.group_ap.mean(axis=(0, 1))
        query_ap = self.retrieved.ap[:, -1].mean(axis=0)
        found = {}
        for kind, chosen, pairs in zip(SEQUENCE_KINDS, groups, verification, strict=True):
            values = {
                "verification": float(pairs),
                "matching": _mean(self.matched.ap[chosen]),
                "retrieval": _mean(query_ap[chosen[self.retrieved.sequence]]),
            }
            found[kind] = values | {"mAP": sum(values.values()) / len(values)}
        return found

    def without_each(self) -> dict[str, Float[np.ndarray, " s"]]:
        """Headlines over all sequences but each in turn; NaN where nothing remains."""
        sequences = len(self.names)
        matching = self.matched.ap.mean(axis=(1, 2))
        queries, found = (
            np.bincount(self.retrieved.sequence, weights=weights, minlength=sequences)
            for weights in (None, self.retrieved.ap[:, -1].mean(axis=0))
        )
        values: dict[str, np.ndarray] = {
            "verification": self.verified.ap_without.mean(axis=(0, 1)),
            "matching": _ratio(matching.sum() - matching, np.full(sequences, sequences - 1)),
            "retrieval": _ratio(found.sum() - found, queries.sum() - queries),
        }
        return values | {"mAP": np.mean(list(values.values()), axis=0)}

    def to_dict(self) -> dict[str, Any]:
        """All scores as JSON values: arrays as nested lists, NaN as None."""
        headlines = self.flat() | {"collapsed": self.collapsed}
        return {"headline": headlines} | _to_json_value(asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scores":
        """Scores from the result of ``to_dict``, also of version 0.1."""
        verified = values["verified"]
        if "ap_without" not in verified:
            verified = verified | _estimates_from_bins(verified, values["names"])
        return cls(
            names=tuple(values["names"]),
            points=tuple(values["points"]),
            verified=_from_json_values(VerificationScores, verified),
            matched=_from_json_values(MatchingScores, values["matched"]),
            retrieved=_from_json_values(RetrievalScores, values["retrieved"]),
            dispersion=Dispersion(**values["dispersion"]),
        )


def sequence_groups(names: Sequence[str]) -> Bool[np.ndarray, "2 s"]:
    """True for the sequences of each kind in ``SEQUENCE_KINDS``, by the prefix of their name."""
    return np.array([[name.startswith(kind) for name in names] for kind in SEQUENCE_KINDS])


def _ratio(total: Float[np.ndarray, " s"], count: Int[np.ndarray, " s"]) -> np.ndarray:
    """Totals divided by counts; NaN for none."""
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _mean(values: Float[np.ndarray, "..."]) -> float:
    return float(values.mean()) if values.size else float("nan")


def _estimates_from_bins(verified: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Verification of subsets of sequences from binned distances, which 0.1 recorded alone.

    The bias of binning is measured on all sequences and subtracted.
    """
    histogram = np.array(verified["histogram"], np.int64)
    whole = np.array(verified["imbalanced_ap"])[:, :, None]
    bias = whole - _binned_ap(histogram, np.ones((1, len(names))))
    others, groups = 1 - np.eye(len(names)), sequence_groups(names).astype(float)
    return {
        "ap_without": _binned_ap(histogram, others) + bias,
        "group_ap": _binned_ap(histogram, groups) + bias,
    }


def _binned_ap(
    histogram: Int[np.ndarray, "3 3 s b"], chosen: Float[np.ndarray, "r s"]
) -> Float[np.ndarray, "3 2 r"]:
    """AP over chosen sequences from binned distances, with ties within a bin shared evenly."""
    counts = np.einsum("rs,lksb->lkrb", chosen, histogram).cumsum(axis=-1)
    hits, misses = counts[:, :1], counts[:, 1:]
    with np.errstate(invalid="ignore"):  # 0/0: no positives
        precision = np.where(hits + misses > 0, hits / (hits + misses), 1.0)
        recall = np.broadcast_to(hits / hits[..., -1:], precision.shape)
    start = ((0, 0), (0, 0), (0, 0), (1, 0))
    return np.trapezoid(
        np.pad(precision, start, constant_values=1.0), np.pad(recall, start), axis=-1
    )


def _to_json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json_value(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        floating = np.issubdtype(value.dtype, np.floating)
        missing = np.isnan(value) if floating else np.zeros(value.shape, bool)
        result = value.astype(object)
        result[missing] = None  # JSON has no NaN
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
