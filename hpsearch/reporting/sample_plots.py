"""Plots of samples: denoised patches, and an embedding of descriptors."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpsearch.reporting.plot_style import (
    GROUP_COLORS,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    annotate_empty,
    is_narrow,
    new_axes,
    new_figure,
    set_title,
)
from hpsearch.shapes import Float, Int, UInt8

MAX_COLUMNS = 12
"""Maximum number of patches in a denoising grid."""
NARROW_COLUMNS = 4
"""The same in a narrow figure."""
NUM_COLORED = len(GROUP_COLORS)
"""Number of groups with their own color in an embedding; the others are gray."""
TSNE_STEPS, EXAGGERATION = 500, 12.0
"""Steps of a t-SNE, and the factor of its attraction in the first half of them."""
PATCH_GAP_PIXELS, LABEL_HEIGHT_PIXELS = 4, 11
"""Gaps in pixels between columns, and below a row for a number."""


def plot_denoising_grid(
    noisy: UInt8[np.ndarray, "n 32 32"],
    seen: UInt8[np.ndarray, "n 32 32"],
    clean: UInt8[np.ndarray, "n 32 32"],
) -> Figure:
    """Figure of noisy, denoised and clean patches in rows, with mean absolute errors.

    Args:
        noisy: noisy patches.
        seen: input patches of the descriptor, that is after the denoiser.
        clean: clean patches.
    """
    columns = NARROW_COLUMNS if is_narrow() else MAX_COLUMNS
    rows = {"noisy": noisy[:columns], "denoised": seen[:columns], "clean": clean[:columns]}
    count = min(columns, len(clean))
    figure = new_figure(9.6, 2.95 - (0.35 if is_narrow() else 0))
    axes = figure.add_subplot()
    if is_narrow():
        set_title(axes, "Input of the descriptor")
    else:
        set_title(axes, "Input of the descriptor; mean absolute error in gray levels")
    axes.set_axis_off()
    if not count:
        annotate_empty(axes, "no patches")
        return figure
    canvas = np.full(
        (
            3 * (32 + LABEL_HEIGHT_PIXELS) - LABEL_HEIGHT_PIXELS,
            columns * (32 + PATCH_GAP_PIXELS) - PATCH_GAP_PIXELS,
        ),
        np.nan,
    )
    for row, (name, images) in enumerate(rows.items()):
        top = row * (32 + LABEL_HEIGHT_PIXELS)
        for column, image in enumerate(images):
            left = column * (32 + PATCH_GAP_PIXELS)
            canvas[top : top + 32, left : left + 32] = image
        _label_row(axes, name, _mean_errors(images, rows["clean"]), top=top)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255, interpolation="none")
    return figure


def plot_embedding(
    descriptors: Float[np.ndarray, "n d"] | Mapping[str, Float[np.ndarray, "n d"]],
    labels: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> Figure:
    """Figure of a t-SNE (van der Maaten & Hinton 2008) of one P×K batch, with views connected.

    Args:
        descriptors: descriptors of the batch, or those of several models by name, a panel each.
        labels: point of each descriptor.
        seed: seed of the noise in the initial placement.
    """
    several = isinstance(descriptors, Mapping)
    named = descriptors if isinstance(descriptors, Mapping) else {"": descriptors}
    width = 6.4 if len(named) == 1 else 9.6
    figure, every = new_axes(width, 5.6 if len(named) == 1 else 4.6, columns=len(named))
    count = len(np.unique(labels))
    for axes, (name, found) in zip(every, named.items(), strict=True):
        of_what = f"{len(labels)} descriptors of {count} points"
        set_title(axes, f"{name}, t-SNE" if several else f"{of_what}, t-SNE")
        _draw_embedding(axes, found, labels, seed=seed)
    return figure


def _draw_embedding(
    axes: Axes, descriptors: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], *, seed: int
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_aspect("equal", adjustable="datalim")
    if not len(labels):
        annotate_empty(axes, "no descriptors")
        return
    placed = project_tsne(descriptors, seed=seed)
    groups, sizes = np.unique(labels, return_counts=True)
    chosen = groups[np.argsort(-sizes, kind="stable")][:NUM_COLORED]
    colors = dict(zip(chosen.tolist(), GROUP_COLORS, strict=False))
    for group in sorted(groups.tolist(), key=lambda g: g in colors):
        _connect_views(
            axes, placed[labels == group], colors.get(group, MUTED), bold=group in colors
        )


def project_tsne(descriptors: Float[np.ndarray, "n d"], *, seed: int) -> Float[np.ndarray, "n 2"]:
    """Project descriptors to two dimensions by exact t-SNE, reproducibly; fewer than four by PCA.

    The initialization is the two principal directions plus a little noise, so that identical
    descriptors (a collapsed encoder) do not cause a division by zero. For some hundred points this
    takes a fifth of the time of scikit-learn's ``TSNE``, and less than its import.

    Source: van der Maaten & Hinton, Visualizing Data using t-SNE, JMLR 2008.
    """
    x = np.nan_to_num(np.asarray(descriptors, np.float64))
    x = x - x.mean(axis=0)
    rng = np.random.default_rng(seed)
    placed = np.zeros((len(x), 2))
    placed[:, : min(2, x.shape[1])] = x @ _principal_directions(x, rng)
    if len(x) < 4:
        return placed
    noise = rng.normal(size=placed.shape)
    placed = 1e-4 * (placed / max(float(placed[:, 0].std()), 1e-12) + 0.01 * noise)
    p = _joint_probabilities(x, perplexity=min(30.0, (len(x) - 1) / 3))
    velocity, gains = np.zeros_like(placed), np.ones_like(placed)
    rate = max(len(x) / EXAGGERATION / 4, 50.0)
    for step in range(TSNE_STEPS):
        early = step < TSNE_STEPS / 2
        q = 1 / (1 + _squared_distances(placed))
        np.fill_diagonal(q, 0.0)
        force = ((EXAGGERATION if early else 1.0) * p - q / max(q.sum(), 1e-12)) * q
        gradient = 4 * (force.sum(axis=1)[:, None] * placed - force @ placed)
        gains = np.where((gradient > 0) == (velocity > 0), gains * 0.8, gains + 0.2).clip(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        placed = placed + velocity
    return placed


def _principal_directions(
    x: Float[np.ndarray, "n d"], rng: np.random.Generator
) -> Float[np.ndarray, "d k"]:
    """First two principal directions by subspace iteration, which starts no threads."""
    basis = rng.normal(size=(x.shape[1], min(2, x.shape[1])))
    for _ in range(20):
        basis, _ = np.linalg.qr(x.T @ (x @ basis))
    return basis


def _squared_distances(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n n"]:
    norms = (x**2).sum(axis=1)
    return np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0.0)


def _joint_probabilities(
    x: Float[np.ndarray, "n d"], *, perplexity: float
) -> Float[np.ndarray, "n n"]:
    """Symmetric Gaussian neighbor probabilities; bisection finds each point's bandwidth."""
    distances = _squared_distances(x)
    distances = distances / max(float(distances.mean()), 1e-12)
    np.fill_diagonal(distances, np.inf)
    distances -= distances.min(axis=1, keepdims=True)
    p, low, high = distances, np.full(len(x), -20.0), np.full(len(x), 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        p = np.exp(-distances * np.exp(middle)[:, None])
        p /= p.sum(axis=1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        is_wide = entropy > np.log(perplexity)
        low, high = np.where(is_wide, middle, low), np.where(is_wide, high, middle)
    return (p + p.T) / (2 * len(x))


def _mean_errors(images: np.ndarray, clean: np.ndarray) -> Float[np.ndarray, " n"]:
    return np.abs(images.astype(float) - clean.astype(float)).mean(axis=(1, 2))


def _label_row(axes: Axes, name: str, errors: Float[np.ndarray, " n"], *, top: int) -> None:
    axes.text(-4, top + 16, name, ha="right", va="center", fontsize=NORMAL, color=INK)
    if name == "clean":
        return
    axes.text(
        -4, top + 32 + LABEL_HEIGHT_PIXELS / 2, f"mean {errors.mean():.1f}", ha="right",
        va="center",
        fontsize=SMALL, color=MUTED,
    )  # fmt: skip
    for column, error in enumerate(errors):
        x = column * (32 + PATCH_GAP_PIXELS) + 16
        axes.text(
            x, top + 32 + LABEL_HEIGHT_PIXELS / 2, f"{error:.1f}", ha="center", va="center",
            fontsize=SMALL,
            color=MUTED,
        )  # fmt: skip


def _connect_views(axes: Axes, points: Float[np.ndarray, "k 2"], color: str, *, bold: bool) -> None:
    middle = points.mean(axis=0)
    strength = 0.9 if bold else 0.35
    spokes = np.stack([np.broadcast_to(middle, points.shape), points], axis=1).reshape(-1, 2)
    axes.plot(spokes[:, 0], spokes[:, 1], color=color, linewidth=0.8, alpha=0.6 * strength)
    axes.plot(points[:, 0], points[:, 1], "o", color=color, markersize=4.5, alpha=strength)
