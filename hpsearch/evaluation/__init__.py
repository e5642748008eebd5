"""Descriptors in, mAP out: verification, matching and retrieval by the official HPatches protocol.

scores = evaluate({"v_wall": descriptors, …}, tasks)   # arrays (points, 16 views, dimension)
scores.verification, scores.matching, scores.retrieval, scores.objective, scores.flat()
"""

from typing import TYPE_CHECKING, Any

from hpsearch.evaluation.scores import PAIR_KINDS, POOL_SIZES, Dispersion, Scores
from hpsearch.evaluation.task_io import read_tasks, write_tasks
from hpsearch.evaluation.tasks import (
    OFFICIAL_SIZES,
    VALIDATION_SIZES,
    Tasks,
    TaskSizes,
    sample_tasks,
)
from hpsearch.patch_views import LEVELS, VIEW_NAMES

if TYPE_CHECKING:
    from hpsearch.evaluation.protocol import evaluate

__all__ = [
    "LEVELS",
    "OFFICIAL_SIZES",
    "PAIR_KINDS",
    "POOL_SIZES",
    "VALIDATION_SIZES",
    "VIEW_NAMES",
    "Dispersion",
    "Scores",
    "TaskSizes",
    "Tasks",
    "evaluate",
    "read_tasks",
    "sample_tasks",
    "write_tasks",
]


def __getattr__(name: str) -> Any:
    """Import ``evaluate`` when it is first used: scores are read without torch."""
    if name != "evaluate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hpsearch.evaluation.protocol import evaluate

    return evaluate
