"""Descriptors in, mAP out: verification, matching and retrieval by the official HPatches protocol.

scores = evaluate({"v_wall": descriptors, …}, tasks)   # arrays (points, 16 views, dimension)
scores.verification, scores.matching, scores.retrieval, scores.objective, scores.flat()
"""

from hpsearch.evaluation.protocol import evaluate
from hpsearch.evaluation.scores import KINDS, POOLS, Dispersion, Scores
from hpsearch.evaluation.task_io import read_tasks, write_tasks
from hpsearch.evaluation.tasks import OFFICIAL, VALIDATION, Sizes, Tasks, make_tasks
from hpsearch.patch_views import LEVELS, VIEW_NAMES

__all__ = [
    "KINDS",
    "LEVELS",
    "OFFICIAL",
    "POOLS",
    "VALIDATION",
    "VIEW_NAMES",
    "Dispersion",
    "Scores",
    "Sizes",
    "Tasks",
    "evaluate",
    "make_tasks",
    "read_tasks",
    "write_tasks",
]
