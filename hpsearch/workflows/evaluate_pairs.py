"""Evaluation of models on points detected in each picture of sequences with homographies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpsearch.data.image_sequences import find_sequences, load_sequence
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.shapes import Float
from hpsearch.workflows.image_pairs import RADII, PairScores, score_pair
from hpsearch.workflows.match_images import (
    DescriptorFunction,
    ImageFeatures,
    descriptor_distances,
    detect_and_describe,
    load_descriptor_function,
)
from hpsearch.workflows.observer import Observer

PAIR_POINTS = 1000
"""Maximum number of points of a picture."""


@dataclass(frozen=True)
class PairResult:
    """Scores of a model on one pair of pictures."""

    model: str
    sequence: str
    target: int
    """Number of the second picture, 2 to 6."""
    radius: float
    """Distance in pixels within which a match is correct."""
    scores: PairScores


def evaluate_pairs(
    models: Sequence[str],
    folder: str | Path,
    *,
    points: int = PAIR_POINTS,
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
    observer: Observer | None = None,
) -> list[PairResult]:
    """Evaluate models on every pair of a sequence's first picture with another.

    Args:
        models: references of models, ``hpsearch-base`` and ``rootsift`` among them.
        folder: a folder of sequences, as ``hpsearch data sequences`` reads.
        points: maximum number of points of a picture.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.
        observer: receives progress.

    Raises:
        UserError: if there is no sequence or model, or a file cannot be read.
    """
    found, _ = find_sequences(Path(folder))
    if not found:
        raise UserError(f"{folder} contains no sequence of pictures; give another folder")
    functions = {
        model: load_descriptor_function(model, tracking_uri=tracking_uri, home=home)
        for model in models
    }
    results: list[PairResult] = []
    with (observer or Observer()).progress("matching pairs") as advance:
        for done, (path, name) in enumerate(found.items(), start=1):
            for model, describe in functions.items():
                results += _score_sequence(path, name, model, describe, points)
            advance(done, len(found), name)
    return results


def mean_scores(
    results: Sequence[PairResult], *, radius: float = 3.0
) -> dict[str, dict[str, float]]:
    """Mean of each score over all pairs, by model; pairs without relevant points are left out."""
    table: dict[str, dict[str, float]] = {}
    for model in dict.fromkeys(result.model for result in results):
        rows = [r.scores for r in results if r.model == model and r.radius == radius]
        columns = {name: np.array([getattr(r, name) for r in rows]) for name in PairScores._fields}
        table[model] = {
            name: float(values[~np.isnan(values)].mean()) if not np.isnan(values).all() else np.nan
            for name, values in columns.items()
        }
    return table


def pair_table(results: Sequence[PairResult]) -> str:
    """Means over all pairs as text, one line a model and distance."""
    width = max(len(result.model) for result in results)
    pairs = len({(result.sequence, result.target) for result in results})
    lines = [
        f"{pairs} pairs; recall and average precision over possible points, then over consistent",
        f"{'':<{width}}  pixels   recall       AP   recall       AP",
    ]
    for radius in RADII:
        for model, mean in mean_scores(results, radius=radius).items():
            columns = ("recall", "average_precision", "consistent_recall")
            values = [mean[name] for name in (*columns, "consistent_average_precision")]
            numbers = "  ".join(f"{value:7.4f}" for value in values)
            lines.append(f"{model:<{width}}  {radius:6.0f}  {numbers}")
    return "\n".join(lines)


def _score_sequence(
    path: Path, name: str, model: str, describe: DescriptorFunction, points: int
) -> list[PairResult]:
    sequence = load_sequence(path)
    features = [
        detect_and_describe(gray, f"picture {number} of {path}", describe, points)
        for number, gray in enumerate(sequence.pictures, start=1)
    ]
    return [
        PairResult(model, name, number, radius, _score(features[0], other, h, radius))
        for number, (other, h) in enumerate(
            zip(features[1:], sequence.homographies, strict=True), start=2
        )
        for radius in RADII
    ]


def _score(
    first: ImageFeatures, second: ImageFeatures, homography: Float[np.ndarray, "3 3"], radius: float
) -> PairScores:
    distances = descriptor_distances(first.descriptors, second.descriptors)
    return score_pair(first.keypoints, second.keypoints, homography, distances, radius=radius)
