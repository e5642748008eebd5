"""Evaluation figures, on scores of random descriptors."""

import io

import numpy as np
import pytest
from PIL import Image

from hpsearch.evaluation import OFFICIAL_SIZES, Scores, evaluate, sample_tasks
from hpsearch.reporting.evaluation_page import (
    best_and_worst,
    plot_best_and_worst,
    plot_matching_by_sequence,
    plot_precision_recall,
)
from hpsearch.reporting.plot_style import NARROW_INCHES, narrow_figures, png

NAMES = tuple(f"v_{i}" for i in range(9))


@pytest.fixture(scope="module")
def scores() -> Scores:
    """Sequence i is described with noise that falls with i, so the last is matched best."""
    rng = np.random.default_rng(0)
    found = {}
    for i, name in enumerate(NAMES):
        point = rng.standard_normal((12, 1, 16))
        found[name] = point + 2.0 / (i + 1) * rng.standard_normal((12, 16, 16))
    tasks = sample_tasks(NAMES, [12] * 9, sizes=OFFICIAL_SIZES.clamped(12 * 9), seed=0)
    return evaluate(found, tasks)


def test_the_ends_are_the_three_worst_and_three_best(scores: Scores) -> None:
    matching = scores.by_sequence()["matching"]
    chosen = [matching[scores.names.index(name)] for name in best_and_worst(scores)]
    assert len(chosen) == 6
    assert chosen == sorted(chosen)
    assert chosen[:3] == sorted(matching)[:3]
    assert chosen[3:] == sorted(matching)[-3:]


def test_patches_of_the_extremes_are_drawn(scores: Scores) -> None:
    def dark(level: int) -> int:
        patches = {name: np.full((12, 16, 32, 32), level, np.uint8) for name in NAMES}
        image = Image.open(io.BytesIO(png(plot_best_and_worst(scores, patches)))).convert("L")
        return int((np.asarray(image) == level).sum())

    # six rows of 16 patches, shown at more than their own size
    assert dark(77) > 6 * 16 * 32 * 32


def test_every_model_is_in_the_key(scores: Scores) -> None:
    for draw in (plot_precision_recall, plot_matching_by_sequence):
        (legend,) = draw({"one": scores, "two": scores}).legends
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels[:2] == ["one", "two"]


def test_a_narrow_page_has_the_same_figures(scores: Scores) -> None:
    patches = {name: np.full((12, 16, 32, 32), 77, np.uint8) for name in NAMES}
    found = {"one": scores, "two": scores}
    with narrow_figures():
        drawn = [
            plot_precision_recall(found),
            plot_matching_by_sequence(found),
            plot_best_and_worst(scores, patches),
        ]
    for figure in drawn:
        figure.draw_without_rendering()
        box = figure.get_tightbbox()
        assert figure.get_figwidth() == NARROW_INCHES
        assert box.x0 >= -0.01
        assert box.x1 <= NARROW_INCHES + 0.01, "nothing is cut off"
    assert len(drawn[2].axes[0].texts) == 6, "each row has its name"
