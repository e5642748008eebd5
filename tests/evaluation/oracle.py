"""The official evaluation written out slowly, straight from the protocol, with SciPy."""

from collections.abc import Sequence

import numpy as np
from scipy.spatial import distance as scipy_distance

from hpsearch.evaluation import LEVELS, POOL_SIZES, Tasks

CDIST = {"l2": "euclidean", "l1": "cityblock"}
PAIRWISE = {"l2": scipy_distance.euclidean, "l1": scipy_distance.cityblock}


def ranked(distances, labels):
    order = sorted(
        range(len(distances)), key=lambda i: distances[i]
    )  # stable, as the official sort
    return [labels[i] for i in order]


def precision_recall_area(distances, labels, n_positive=None):
    total = sum(labels) if n_positive is None else n_positive
    recall, precision, hits = [0.0], [1.0], 0
    for rank, label in enumerate(ranked(distances, labels), start=1):
        hits += label
        recall.append(hits / total)
        precision.append(max(hits, 1e-10) / max(rank, 1e-10))
    return trapezoid(precision, recall)


def roc_area(distances, labels):
    positives, negatives = sum(labels), len(labels) - sum(labels)
    true, false = [0.0], [0.0]
    for label in ranked(distances, labels):
        true.append(true[-1] + label)
        false.append(false[-1] + (1 - label))
    return trapezoid(np.array(true) / positives, np.array(false) / negatives)


def trapezoid(y, x):
    y, x = np.asarray(y, float), np.asarray(x, float)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def view(level: int, image: int) -> int:
    return 0 if image == 0 else 1 + 5 * level + image - 1


def verification(descriptors: Sequence[np.ndarray], tasks: Tasks, norm: str):
    """(balanced AUC, imbalanced AP) by level and kind."""
    auc, ap = np.empty((3, 2)), np.empty((3, 2))
    for level in range(len(LEVELS)):

        def distances(rows, level=level):
            return [
                float(
                    PAIRWISE[norm](
                        descriptors[s1][i1, view(level, t1)], descriptors[s2][i2, view(level, t2)]
                    )
                )
                for s1, t1, i1, s2, t2, i2 in rows
            ]

        positive = distances(tasks.positives)
        few = int(0.2 * len(positive))
        for kind, rows in enumerate((tasks.inter, tasks.intra)):
            negative = distances(rows)
            labels = [0] * len(negative) + [1] * len(positive)
            auc[level, kind] = roc_area(negative + positive, labels)
            ap[level, kind] = precision_recall_area(
                negative + positive[:few], labels[: len(negative) + few]
            )
    return auc, ap


def verification_of(descriptors: Sequence[np.ndarray], tasks: Tasks, chosen: set[int]) -> float:
    """Verification mAP over the pairs whose first patch lies in some sequences, l2."""
    values = []
    few = tasks.positives[: int(0.2 * len(tasks.positives))]
    for level in range(len(LEVELS)):
        for negatives in (tasks.inter, tasks.intra):
            distances, labels = [], []
            for label, rows in enumerate((negatives, few)):
                for s1, t1, i1, s2, t2, i2 in rows:
                    if s1 in chosen:
                        a, b = view(level, t1), view(level, t2)
                        pair = PAIRWISE["l2"](descriptors[s1][i1, a], descriptors[s2][i2, b])
                        distances.append(float(pair))
                        labels.append(label)
            values.append(precision_recall_area(distances, labels))
    return float(np.mean(values))


def matching(descriptors: Sequence[np.ndarray], norm: str):
    """(AP, success rate) by sequence, level and image."""
    ap, success = np.empty((2, len(descriptors), 3, 5))
    for s, own in enumerate(descriptors):
        for level in range(3):
            for image in range(1, 6):
                d = scipy_distance.cdist(own[:, 0], own[:, view(level, image)], CDIST[norm])
                nearest = d.argmin(axis=1)
                labels = [int(nearest[i] == i) for i in range(len(own))]
                ap[s, level, image - 1] = precision_recall_area(d.min(axis=1), labels, len(own))
                success[s, level, image - 1] = np.mean(labels)
    return ap, success


def retrieval(descriptors: Sequence[np.ndarray], tasks: Tasks, norm: str):
    """AP by level, pool size and query."""
    ap = np.empty((3, len(POOL_SIZES), len(tasks.queries)))
    for q, (s, i) in enumerate(tasks.queries):
        query = descriptors[s][i, :1]
        others = np.array([descriptors[t][j, 0] for t, j in tasks.distractors if t != s])
        others = others.reshape(-1, query.shape[1])
        far = scipy_distance.cdist(query, others, CDIST[norm])[0] if len(others) else np.empty(0)
        for level in range(3):
            same = descriptors[s][i, 1 + 5 * level : 6 + 5 * level]
            near = scipy_distance.cdist(query, same, CDIST[norm])[0]
            distances = [*near, *far]
            labels = [1] * 5 + [0] * len(far)
            for p, pool in enumerate(POOL_SIZES):
                ap[level, p, q] = precision_recall_area(distances[:pool], labels[:pool])
    return ap
