"""Limits of the user: constraints of a search, and gates of a promotion.

Both are comparisons such as ``us_per_patch < 20``. A trial that violates a constraint does not win,
and Optuna receives by how much it violates it. A network that does not pass a gate does not become
champion.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from hpsearch.errors import UserError
from hpsearch.search.objective import REPORTED_METRICS, Objective
from hpsearch.search.outcome import COLLAPSE_STATUSES, COLLAPSED
from hpsearch.training.costs import COST_METRICS, COST_PREFIX

TASK_DROP = "task_drop"
"""Gate: largest difference by which the champion's mAP of a task on test is above the network's."""
PATTERN = re.compile(r"\s*([A-Za-z][\w/]*)\s*(<=|>=|<|>)\s*([-+]?[\d_.]+(?:[eE][-+]?\d+)?)\s*")
LEAST_VIOLATION = 1e-9
"""Violation of a value that equals the bound of ``<`` or ``>``."""


@dataclass(frozen=True)
class Constraint:
    """Comparison of a metric with a number.

    Example:
        >>> Constraint.parse("us_per_patch < 20").violation({"cost/us_per_patch": 30.0})
        0.5
    """

    metric: str
    """Name as in reports; ``task_drop`` for a gate about the tasks."""
    comparison: str
    """One of ``<``, ``<=``, ``>``, ``>=``."""
    bound: float

    @classmethod
    def parse(cls, text: str, *, gate: bool = False) -> "Constraint":
        """Parse a text such as ``us_per_patch < 20``; costs need no ``cost/`` in front.

        Args:
            text: name, comparison and number.
            gate: True if the text may name ``task_drop`` too.

        Raises:
            UserError: if it is no comparison, or reports have no such metric.
        """
        found = PATTERN.fullmatch(text)
        bound = math.nan if found is None else _number(found[3])
        if found is None or not math.isfinite(bound):
            raise UserError(
                f"{text!r} is not a limit; write a metric, one of < <= > >=, and a number, such as "
                "'us_per_patch < 20'",
                code="invalid-constraint",
            )
        name = found[1]
        metric = f"{COST_PREFIX}{name}" if f"{COST_PREFIX}{name}" in COST_METRICS else name
        known = (*REPORTED_METRICS, *((TASK_DROP,) if gate else ()))
        if metric not in known:
            costs = ", ".join(one.removeprefix(COST_PREFIX) for one in COST_METRICS)
            more = f", {TASK_DROP}" if gate else ""
            raise UserError(
                f"{text!r} limits {name!r}, which is not measured; name one of {costs}{more}, or a "
                "metric of the reports such as val/matching",
                code="unknown-metric",
            )
        return cls(metric, found[2], bound)

    @cached_property
    def name(self) -> str:
        """Metric without ``cost/``."""
        return self.metric.removeprefix(COST_PREFIX)

    def __str__(self) -> str:
        return f"{self.name} {self.comparison} {self.bound:g}"

    def is_met(self, value: float) -> bool:
        """Return whether a value keeps the limit; NaN never does."""
        match self.comparison:
            case "<":
                return value < self.bound
            case "<=":
                return value <= self.bound
            case ">":
                return value > self.bound
            case _:
                return value >= self.bound

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Violation relative to the bound, 0 or below where the limit is kept.

        A missing metric violates it by 1. Relative, so that limits of bytes and of seconds weigh
        the same in their sum, by which Optuna orders trials that violate some.
        """
        value = metrics.get(self.metric)
        if value is None or math.isnan(value):
            return 1.0
        above = value - self.bound if self.comparison in ("<", "<=") else self.bound - value
        relative = min(above / max(abs(self.bound), LEAST_VIOLATION), 1e9)
        return min(relative, 0.0) if self.is_met(value) else max(relative, LEAST_VIOLATION)

    def complaint(self, metrics: Mapping[str, float]) -> str:
        """Clause about a violation; empty if there is none."""
        if self.violation(metrics) <= 0:
            return ""
        value = metrics.get(self.metric)
        found = "was not measured" if value is None else f"is {_format_number(value)}"
        return f"{self.name} {found}, and the limit is {self}"


def _format_number(value: float) -> str:
    """Four digits, or all before the point."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def parse_constraints(texts: Iterable[str], *, gate: bool = False) -> tuple[Constraint, ...]:
    """Parse several limits; raises as ``Constraint.parse``, and if one is given twice."""
    found = tuple(Constraint.parse(text, gate=gate) for text in texts)
    twice = [str(one) for number, one in enumerate(found) if one in found[:number]]
    if twice:
        raise UserError(
            f"the limit '{twice[0]}' is given twice; leave one out", code="invalid-constraint"
        )
    return found


def trial_violations(
    status: str, metrics: Mapping[str, float], limits: Sequence[Constraint]
) -> dict[str, float]:
    """Constraints of a trial in the study, by name; a value above 0 violates one.

    A collapsed trial violates that alone, since the costs of a network that learned nothing do not
    matter, and its last report lacks them.

    Args:
        status: how the trial ended.
        metrics: those of its last report.
        limits: constraints of the search.
    """
    if status in COLLAPSE_STATUSES:
        return {COLLAPSED: 1.0, **{str(one): 0.0 for one in limits}}
    return {COLLAPSED: 0.0, **{str(one): one.violation(metrics) for one in limits}}


def cost_metrics(objectives: Iterable[Objective], limits: Iterable[Constraint]) -> frozenset[str]:
    """Costs of describing a patch that an objective or a limit names."""
    return frozenset(one.metric for one in (*objectives, *limits)) & frozenset(COST_METRICS)


def complaints(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> str:
    """Clauses about all violations in one; empty if there are none."""
    return "; ".join(filter(None, (one.complaint(metrics) for one in constraints)))


def cost_complaints(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> str:
    """Clauses about violations of costs, which no training changes.

    Args:
        constraints: those of the search; a limit of another metric is decided at a trial's end.
        metrics: those of a report.
    """
    known = metrics.keys() & COST_METRICS
    return complaints([one for one in constraints if one.metric in known], metrics)


def end_complaints(
    constraints: Sequence[Constraint], status: str, metrics: Mapping[str, float]
) -> str:
    """Clauses about violations at a trial's end; of a pruned trial, about its costs alone.

    Args:
        constraints: those of the search.
        status: of the trial; one that failed or collapsed violates none.
        metrics: those of its last report.
    """
    if status not in ("completed", "pruned"):
        return ""
    return (complaints if status == "completed" else cost_complaints)(constraints, metrics)


def task_drop(own: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Largest difference by which another network is better in a task; below 0 in none.

    Args:
        own: mAP of the network by task.
        other: mAP of the other network by the same tasks.
    """
    return max(other[task] - own[task] for task in other)
