"""Retrieval task: ranks of the other views of a patch among distractors."""

import numpy as np
import torch
from torch import Tensor

from hpsearch.evaluation.average_precision import area_from_counts
from hpsearch.evaluation.descriptor_table import DescriptorTable
from hpsearch.evaluation.distances import Norm, parallel_map
from hpsearch.evaluation.distractor_pool import DistractorPool
from hpsearch.evaluation.scores import POOL_SIZES, RetrievalScores
from hpsearch.evaluation.tasks import Tasks
from hpsearch.patch_views import IMAGES_PER_LEVEL, LEVELS
from hpsearch.shapes import Float, Int


def retrieve(
    descriptors: DescriptorTable, tasks: Tasks, *, norm: Norm, memory: int
) -> RetrievalScores:
    """AP of every query by level and pool size.

    The list of a query starts with the five views of its level, so that ties favor the descriptor,
    followed by the distractors in file order, without those of the query's own sequence; a pool is
    a prefix of the list. AP depends only on the number of distractors in the pool that are closer
    than each positive, and one sorted row gives it for every level and pool.
    """
    ap = np.empty((len(LEVELS), len(POOL_SIZES), len(tasks.queries)))
    neutral = np.empty((len(LEVELS), len(tasks.queries)))
    all_distractors = DistractorPool.from_points(
        descriptors.table[_row_indices(descriptors, tasks.distractors), 0], norm=norm
    )
    threads = torch.get_num_threads() if descriptors.table.device.type == "cpu" else 1

    def of_sequence(sequence: int) -> None:
        own = np.flatnonzero(tasks.queries[:, 0] == sequence)
        pool = all_distractors.without(tasks.distractors[:, 0] == sequence)
        views = descriptors.table[_row_indices(descriptors, tasks.queries[own])]
        closer, as_close = pool.counts(views, memory=memory // threads)
        ap[:, :, own] = _positives_ap(closer)
        neutral[:, own] = _positives_ap((closer + as_close)[..., -1:] / 2)[:, 0]

    sequences = np.flatnonzero(np.bincount(tasks.queries[:, 0])).tolist()
    parallel_map(of_sequence, sequences, device=descriptors.table.device)
    return RetrievalScores(
        ap=ap, tie_neutral_ap=neutral, sequence=tasks.queries[:, 0].astype(np.int64)
    )


def _row_indices(descriptors: DescriptorTable, points: Int[np.ndarray, "n 2"]) -> Tensor:
    rows = descriptors.starts[points[:, 0]] + points[:, 1]
    return torch.from_numpy(rows).to(descriptors.table.device)


def _positives_ap(ahead: Float[np.ndarray, "q 15 k"]) -> Float[np.ndarray, "3 k q"]:
    """AP from the number of distractors closer than each positive, in ascending order."""
    levels = ahead.reshape(len(ahead), len(LEVELS), IMAGES_PER_LEVEL, -1)
    return area_from_counts(
        np.sort(levels, axis=2).transpose(1, 3, 0, 2), n_positive=IMAGES_PER_LEVEL
    )
