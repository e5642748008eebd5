"""What a model does, to look at: neighbors and mistakes found by hand, and figures that draw."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from hpsearch.patch_views import VIEWS
from hpsearch.reporting.model_figures import (
    POOL_VIEWS,
    RIGHT_COLOR,
    WRONG_COLOR,
    ModelSamples,
    chosen_queries,
    confusions,
    model_pictures,
    plot_nearest_patches,
)
from hpsearch.reporting.plot_style import narrow_figures, png

POINTS = 7


def samples(*, swapped: bool = False, denoised: bool = False) -> ModelSamples:
    """Points on a line, one unit apart; ``swapped`` exchanges the tough views of 0 and 1."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (POINTS * VIEWS, 32, 32), dtype=np.uint8)
    place = np.repeat(np.arange(POINTS, dtype=np.float32), VIEWS).reshape(POINTS, VIEWS)
    good = place + 0.01 * np.arange(VIEWS)
    if swapped:
        good[np.ix_([0, 1], POOL_VIEWS)] = good[np.ix_([1, 0], POOL_VIEWS)]
    return ModelSamples(
        given=images,
        clean=images,
        descriptors={"winner": good.reshape(-1, 1), "baseline": np.zeros((len(images), 3))},
        denoised=images if denoised else None,
    )


def test_the_nearest_are_the_five_tough_views_of_the_same_point() -> None:
    found = samples()
    assert found.is_right("winner").all()
    assert found.nearest("winner")[2].tolist() == [2 * VIEWS + view for view in POOL_VIEWS]
    assert confusions(found, "winner") == []


def test_a_confusion_names_the_wrong_patch_and_the_right_one() -> None:
    found = samples(swapped=True)
    assert found.is_right("winner").sum(axis=1).tolist() == [0, 0, 5, 5, 5, 5, 5]
    mistakes = confusions(found, "winner")
    assert {(one.query // VIEWS, one.wrong // VIEWS, one.right // VIEWS) for one in mistakes} == {
        (0, 1, 0),
        (1, 0, 1),
    }
    assert [one.ratio for one in mistakes] == sorted(one.ratio for one in mistakes)
    assert max(one.ratio for one in mistakes) < 1


def test_queries_go_from_the_worst_to_the_best() -> None:
    assert chosen_queries(samples(swapped=True)) == [0, 1, 2, 3, 4, 6]


def test_every_nearest_patch_has_a_frame_of_its_color() -> None:
    figure = plot_nearest_patches(samples(swapped=True))
    frames = [shape for shape in figure.axes[0].patches if isinstance(shape, Rectangle)]
    colors = [to_hex(frame.get_edgecolor()) for frame in frames]
    right = sum(samples(swapped=True).is_right(model)[[0, 1, 2, 3, 4, 6]].sum() for model in
                ("winner", "baseline"))  # fmt: skip
    assert colors.count(RIGHT_COLOR) == right
    assert colors.count(WRONG_COLOR) == 2 * 6 * 5 - right


@pytest.mark.parametrize("swapped", [True, False])
def test_figures_draw_at_both_widths_and_mistakes_only_where_there_are_any(swapped: bool) -> None:
    drawn = model_pictures(samples(swapped=swapped, denoised=swapped))
    names = [figure.name for figure in drawn.figures]
    assert ("confused-pairs" in names) == swapped == ("denoiser" in names)
    assert len(drawn.omitted) == (0 if swapped else 1)
    for figure in drawn.figures:
        with narrow_figures():
            assert png(figure.draw(), dots=40).startswith(b"\x89PNG")
        assert png(figure.draw(), dots=40).startswith(b"\x89PNG")
