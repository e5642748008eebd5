"""Evaluation of models on points detected in each picture of sequences with homographies."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpsearch.data.image_sequences import find_sequences, load_sequence
from hpsearch.data.photo_synthesis import project
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.evaluation.bootstrap import Interval, format_bounds, jackknife_half_width
from hpsearch.shapes import Float
from hpsearch.workflows.image_pairs import (
    ACCURACY_RADII,
    CORNER_LIMITS,
    RADII,
    PairScores,
    area_under_errors,
    corner_error,
    matching_accuracy,
    score_pair,
)
from hpsearch.workflows.keypoint_descriptors import (
    DescriptorFunction,
    ImageFeatures,
    detect_inside,
    keypoint_patches,
    load_descriptor_function,
)
from hpsearch.workflows.match_images import (
    CORRECT_PIXELS,
    MatchResult,
    descriptor_distances,
    draw_matches,
    estimate_homography,
    match_descriptors,
)
from hpsearch.workflows.observer import Observer

PAIR_POINTS = 1000
"""Maximum number of points of a picture."""
HEADLINE = "average_precision@3"
"""Score by which the best and the worst pair are chosen."""


@dataclass(frozen=True)
class PairResult:
    """Scores of a model on one pair of pictures."""

    model: str
    sequence: str
    target: int
    """Number of the second picture, 2 to 6."""
    scores: Mapping[float, PairScores]
    """Scores by the distance in pixels within which a match is correct."""
    accuracy: tuple[float, ...]
    """Share of mutual nearest neighbors within 1, 2, … 10 pixels of the true place."""
    corner_error: float
    """Mean error in pixels of the picture's corners under the estimated homography."""

    def values(self) -> dict[str, float]:
        """Every score by name, such as ``recall@3``, ``accuracy@10`` and ``corner_auc@5``."""
        found = {
            f"{name}@{radius:g}": float(value)
            for radius, scores in self.scores.items()
            for name, value in scores._asdict().items()
        }
        found |= {f"accuracy@{r}": a for r, a in zip(ACCURACY_RADII, self.accuracy, strict=True)}
        return found | {
            f"corner_auc@{limit:g}": area_under_errors(self.corner_error, limit)
            for limit in CORNER_LIMITS
        }


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
        for model in dict.fromkeys(models)
    }
    results: list[PairResult] = []
    with (observer or Observer()).progress("matching pairs") as advance:
        advance(0, len(found), "")
        for done, (path, name) in enumerate(found.items(), start=1):
            results += _score_sequence(path, name, functions, points)
            advance(done, len(found), name)
    order = list(functions)
    return sorted(results, key=lambda result: order.index(result.model))


def mean_scores(results: Sequence[PairResult]) -> dict[str, dict[str, Interval]]:
    """Mean of each score over all pairs with its interval over sequences, by model and score.

    Pairs without relevant points, whose score is NaN, are left out.
    """
    return {
        model: {
            name: _mean([(r.sequence, r.values()[name]) for r in results if r.model == model])
            for name in results[0].values()
        }
        for model in dict.fromkeys(result.model for result in results)
    }


def pair_table(results: Sequence[PairResult]) -> str:
    """Means over all pairs with 95 % intervals over sequences, as text."""
    means = mean_scores(results)
    pairs = {(result.sequence, result.target) for result in results}
    sequences = len({name for name, _ in pairs})
    lines = [
        f"{len(pairs)} pairs of {sequences} sequences; means over pairs, intervals over sequences"
    ]
    point_scores = ("possible", "consistent", "recall", "average_precision", "consistent_recall",
                    "consistent_average_precision")  # fmt: skip
    heads = ("possible", "consistent", "recall", "AP", "recall*", "AP*")
    for radius in RADII:
        lines.append(f"\nwithin {radius:g} pixels; * over consistent points, else over possible")
        names = [f"{name}@{radius:g}" for name in point_scores]
        lines += _rows(means, names, heads)
    lines.append("\nmean matching accuracy of mutual nearest neighbors, by distance in pixels")
    lines += _rows(means, [f"accuracy@{r}" for r in ACCURACY_RADII], ACCURACY_RADII, brief=True)
    lines.append("\narea under the curve of the homography's corner error, up to pixels")
    lines += _rows(means, [f"corner_auc@{e:g}" for e in CORNER_LIMITS], CORNER_LIMITS)
    return "\n".join(lines)


def save_pairs(
    results: Sequence[PairResult],
    folder: str | Path,
    output: Path,
    *,
    points: int = PAIR_POINTS,
    tracking_uri: str | None = None,
    home: str | Path = DEFAULT_HOME,
) -> None:
    """Write ``scores.json``, and pictures of the first model's best and worst pair.

    Args:
        results: result of ``evaluate_pairs``.
        folder: its folder of sequences.
        output: folder for ``scores.json``, ``best.png`` and ``worst.png``.
        points: maximum number of points of a picture.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.
    """
    output.mkdir(parents=True, exist_ok=True)
    rows = [
        {"model": r.model, "sequence": r.sequence, "target": r.target,
         "corner_error": _finite(r.corner_error), **{n: _finite(v) for n, v in r.values().items()}}
        for r in results
    ]  # fmt: skip
    (output / "scores.json").write_text(json.dumps({"schema_version": 1, "pairs": rows}, indent=1))
    first = [r for r in results if r.model == results[0].model]
    ranked = sorted(
        (r for r in first if not np.isnan(r.values()[HEADLINE])), key=lambda r: r.values()[HEADLINE]
    )
    paths = {name: path for path, name in find_sequences(Path(folder))[0].items()}
    describe = load_descriptor_function(results[0].model, tracking_uri=tracking_uri, home=home)
    for name, chosen in zip(("worst", "best"), (ranked[:1], ranked[-1:]), strict=True):
        for result in chosen:
            picture = draw_matches(
                _matches(paths[result.sequence], result.target, describe, points)
            )
            picture.save(output / f"{name}.png")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _mean(values: Sequence[tuple[str, float]]) -> Interval:
    """Mean over pairs and the bounds of its interval over sequences, of the jackknife."""
    known = [(name, value) for name, value in values if not np.isnan(value)]
    numbers = np.array([value for _, value in known])
    names = np.array([name for name, _ in known])
    if not len(numbers):
        return Interval(value=float("nan"), low=None, high=None)
    mean, sequences = float(numbers.mean()), np.unique(names)
    if len(sequences) < 2:
        return Interval(value=mean, low=None, high=None)
    without = np.array([numbers[names != name].mean() for name in sequences])
    half = jackknife_half_width(without, len(sequences) - 1)
    if half is None:
        return Interval(value=mean, low=None, high=None)
    largest = 1.0 if numbers.max() <= 1 else np.inf
    return Interval(value=mean, low=max(mean - half, 0.0), high=min(mean + half, largest))


def _rows(
    means: Mapping[str, Mapping[str, Interval]],
    names: Sequence[str],
    heads: Sequence[object],
    *,
    brief: bool = False,
) -> list[str]:
    cells = {model: [_cell(found[name], brief) for name in names] for model, found in means.items()}
    widths = [
        max(
            len(f"{head:g}" if isinstance(head, float) else str(head)),
            *(len(c[i]) for c in cells.values()),
        )
        for i, head in enumerate(heads)
    ]
    first = max(len(model) for model in cells)
    titles = [f"{head:g}" if isinstance(head, float) else str(head) for head in heads]
    table = [("", titles), *cells.items()]
    return [
        "  ".join([f"{name:<{first}}", *(f"{c:>{w}}" for c, w in zip(row, widths, strict=True))])
        for name, row in table
    ]


def _cell(found: Interval, brief: bool) -> str:
    style = ".0f" if found.value > 1 else ".3f"
    bounds = "" if brief else format_bounds(found, style, between="–")
    return f"{found.value:{style}}" + (f" ({bounds})" if bounds else "")


def _score_sequence(
    path: Path, name: str, functions: Mapping[str, DescriptorFunction], points: int
) -> list[PairResult]:
    sequence = load_sequence(path)
    found = [
        detect_inside(gray, f"picture {number} of {path}", points)
        for number, gray in enumerate(sequence.pictures, start=1)
    ]
    patches = [
        keypoint_patches(gray, keypoints)
        for gray, keypoints in zip(sequence.pictures, found, strict=True)
    ]
    results = []
    for model, describe in functions.items():
        features = [
            ImageFeatures(gray, keypoints, describe(pixels))
            for gray, keypoints, pixels in zip(sequence.pictures, found, patches, strict=True)
        ]
        for number, homography in enumerate(sequence.homographies, start=2):
            other = features[number - 1]
            results.append(_score_pair(model, name, number, features[0], other, homography))
    return results


def _score_pair(
    model: str,
    sequence: str,
    target: int,
    first: ImageFeatures,
    second: ImageFeatures,
    homography: Float[np.ndarray, "3 3"],
) -> PairResult:
    distances = descriptor_distances(first.descriptors, second.descriptors)
    scores = {
        radius: score_pair(first.keypoints, second.keypoints, homography, distances, radius=radius)
        for radius in RADII
    }
    matches, _ = match_descriptors(first.descriptors, second.descriptors, ratio=1.0)
    here, there = first.keypoints.xy[matches[:, 0]], second.keypoints.xy[matches[:, 1]]
    height, width = first.gray.shape
    estimated, _ = estimate_homography(here, there)
    return PairResult(
        model, sequence, target, scores,
        tuple(matching_accuracy(here, there, homography).tolist()),
        corner_error(estimated, homography, width, height),
    )  # fmt: skip


def _matches(path: Path, target: int, describe: DescriptorFunction, points: int) -> MatchResult:
    """Mutual nearest neighbors of one pair, with those that are correct."""
    sequence = load_sequence(path)
    first, second = (
        ImageFeatures(gray, found, describe(keypoint_patches(gray, found)))
        for gray in (sequence.pictures[0], sequence.pictures[target - 1])
        for found in [detect_inside(gray, path, points)]
    )
    matches, ratios = match_descriptors(first.descriptors, second.descriptors, ratio=1.0)
    here, there = first.keypoints.xy[matches[:, 0]], second.keypoints.xy[matches[:, 1]]
    homography = sequence.homographies[target - 2]
    correct = np.linalg.norm(project(homography, here) - there, axis=1) <= CORRECT_PIXELS
    return MatchResult(first, second, matches, ratios, homography, correct, correct)
