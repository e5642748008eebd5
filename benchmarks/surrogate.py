"""Surrogate of a table of curves, on which samplers propose what they like.

A Gaussian process (Matérn 5/2, one length for all columns) on the encoded configurations gives the
objective at every report, and a forest the chance of a collapse. The process is another kind of
model than the samplers that are compared on it. Noise is that between seeds: the difference of a
random pair of runs that differ in the seed alone, over √2, as a whole curve.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from replay import Report, Row, Table
from scipy.stats import norm, spearmanr
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from hpsearch.search.space_points import Point, Suggest, draw_neighbor, draw_point, encode

FOLDS = 5
SEARCHED, REFINED = 5_000, 2_000
"""Random points and neighbors among which the best of a surrogate is found."""
NOISE_WITHOUT_REPEATS = 0.02
"""Standard deviation between seeds, for a table that repeats no run."""


@dataclass(frozen=True)
class Surrogate:
    """Curves of any point of a space, learned from a table.

    Args:
        table: recorded runs.
        repeats: curves of pairs of runs that differ in the seed alone.
        suggest: function of the space.
        worst: objective of a run that failed.
    """

    table: Table
    repeats: Sequence[tuple[np.ndarray, np.ndarray]]
    suggest: Suggest
    worst: float

    @cached_property
    def _noises(self) -> list[np.ndarray]:
        """Differences of the pairs in which neither run failed, over √2."""
        ended = [(a, b) for a, b in self.repeats if min(a[-1], b[-1]) > self.worst]
        return [(a - b) / np.sqrt(2) for a, b in ended]

    @cached_property
    def _reports(self) -> int:
        return max(len(row.reports) for row in self.table.rows)

    @cached_property
    def _whole(self) -> list[Row]:
        """Rows that were trained to the end."""
        return [row for row in self.table.rows if not failed(row)]

    @cached_property
    def _known(self) -> list[Point]:
        return [row.point for row in self.table.rows]

    @cached_property
    def _values(self) -> GaussianProcessRegressor:
        points = [row.point for row in self._whole]
        curves = np.array([[r["objective"] for r in row.reports] for row in self._whole])
        return fitted(self.encoded(points), curves)

    @cached_property
    def _failures(self) -> ExtraTreesClassifier | None:
        labels = np.array([failed(row) for row in self.table.rows])
        if labels.all() or not labels.any():
            return None
        forest = ExtraTreesClassifier(100, min_samples_leaf=3, max_features=0.5, random_state=0)
        return forest.fit(self.encoded(self._known), labels)

    def encoded(self, points: Sequence[Point]) -> np.ndarray:
        """Matrix with the columns of the table, whatever the points have."""
        return encode([*self._known, *points])[len(self._known) :]

    def finals(self, points: Sequence[Point]) -> np.ndarray:
        """Objective at the end of the budget without noise, if the run does not fail."""
        return np.asarray(self._values.predict(self.encoded(points)))[:, -1]

    def chances(self, points: Sequence[Point]) -> np.ndarray:
        """Chance that each run collapses or diverges."""
        if self._failures is None:
            return np.zeros(len(points))
        return self._failures.predict_proba(self.encoded(points))[:, 1]

    @cached_property
    def best(self) -> float:
        """Highest objective without noise that was found, of points that rarely fail."""
        rng = np.random.default_rng(0)
        drawn = (draw_point(self.suggest, rng) for _ in range(SEARCHED))
        points = [point for point in drawn if point is not None]
        for _ in range(3):
            values = np.where(self.chances(points) < 0.5, self.finals(points), -np.inf)
            top = [points[i] for i in np.argsort(-values)[:50]]
            near = (draw_neighbor(self.suggest, rng, top[i % 50]) for i in range(REFINED))
            points = [*top, *(point for point in near if point is not None)]
        values = np.where(self.chances(points) < 0.5, self.finals(points), -np.inf)
        return float(values.max())

    def run(self, point: Point, rng: np.random.Generator) -> Row:
        """One training of a point, with the noise and the failures of a seed."""
        encoded = self.encoded([point])
        means = np.atleast_2d(self._values.predict(encoded))[0]
        like = self.table.rows[int(rng.integers(len(self.table.rows)))]
        whole = self._whole[int(rng.integers(len(self._whole)))]
        values = np.clip(means + self._noise(rng), self.worst, None)
        chance = 0.0
        if self._failures is not None:
            chance = float(self._failures.predict_proba(encoded)[0, 1])
        if rng.random() < chance:
            lost = [row for row in self.table.rows if failed(row)]
            like = lost[int(rng.integers(len(lost)))]
            return self._row(point, values[: len(like.reports)], like, truth=self.worst)
        return self._row(point, values, whole, truth=float(means[-1]))

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        if not self._noises:
            return NOISE_WITHOUT_REPEATS * rng.standard_normal() * np.ones(self._reports)
        return self._noises[int(rng.integers(len(self._noises)))] * rng.choice([-1, 1])

    def _row(self, point: Point, values: np.ndarray, like: Row, *, truth: float) -> Row:
        """A run with these values, and steps, seconds and end of another one."""
        reports: list[Report] = [
            {**report, "objective": self.worst if report["collapsed"] else float(value)}
            for report, value in zip(like.reports, values, strict=True)
        ]
        return Row(point.params, point.distributions, tuple(reports), like.seconds, truth)

    def check(self) -> list[str]:
        """Sentences about runs that the model has not seen, by cross-validation."""
        points = self.encoded([row.point for row in self._whole])
        values = np.array([row.final for row in self._whole])
        folds = np.random.default_rng(0).permutation(len(values)) % FOLDS
        means, deviations, trees = (np.empty(len(values)) for _ in range(3))
        for fold in range(FOLDS):
            seen, held = folds != fold, folds == fold
            model = fitted(points[seen], values[seen])
            means[held], deviations[held] = model.predict(points[held], return_std=True)
            forest = ExtraTreesRegressor(100, min_samples_leaf=2, max_features=0.5, random_state=0)
            trees[held] = forest.fit(points[seen], values[seen]).predict(points[held])
        far = np.abs(values - means) / deviations
        inside = {p: float((far < norm.ppf((1 + p) / 2)).mean()) for p in (0.5, 0.8, 0.95)}
        noise = [curve[-1] for curve in self._noises]
        error = float(np.sqrt(np.mean((values - means) ** 2)))
        return [
            f"held-out runs: rank correlation {spearmanr(means, values)[0]:.2f} "
            f"(a forest: {spearmanr(trees, values)[0]:.2f}), root mean square error {error:.3f}, "
            f"R² {1 - error**2 / values.var():.2f}",
            "held-out runs inside the interval: "
            + ", ".join(f"{share:.0%} of {wanted:.0%}" for wanted, share in inside.items()),
            f"standard deviation between seeds: {np.sqrt(np.mean(np.square(noise))):.3f}, "
            f"from {len(noise)} pairs"
            if noise
            else f"no repeats in the table; standard deviation between seeds set to "
            f"{NOISE_WITHOUT_REPEATS}",
            f"failed runs: {np.mean([failed(row) for row in self.table.rows]):.0%}; "
            f"best without noise {self.best:.4f}, best run of the table {self.table.best:.4f}",
        ]


def fitted(points: np.ndarray, values: np.ndarray) -> GaussianProcessRegressor:
    """Gaussian process with the length, amplitude and noise of the highest likelihood."""
    kernel = ConstantKernel(1.0) * Matern(2.0, (0.1, 200), nu=2.5) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of a maximum at a bound
        return process.fit(points, values)


def failed(row: Row) -> bool:
    """True if a run collapsed or diverged, whether or not the detector stopped it."""
    return row.reports[-1]["collapsed"]
