"""Descriptors in, mAP out: verification, matching and retrieval by the official HPatches protocol.

scores = evaluate({"v_wall": descriptors, …}, tasks)   # arrays (points, 16 views, dimension)
scores.verification, scores.matching, scores.retrieval, scores.objective, scores.flat()
"""

from hpsearch.evaluation.protocol import evaluate
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
