"""Optuna's plots of a search, for each of its objectives."""

import html
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna import visualization
from optuna.trial import FrozenTrial

from hpsearch.search.search import Search
from hpsearch.search.study import read_study, study_without_imports

MAX_FRONT_AXES = 3
"""Most objectives of which Optuna draws a Pareto front."""


def render_optuna_plots(folder: Path, search: Search, url: str | None = None) -> str:
    """Render Optuna's interactive plots as one self-contained HTML page.

    A plot that Optuna does not draw, or draws empty, is named on the page with the reason.

    Args:
        folder: folder of the search.
        search: the search.
        url: storage of the study, if it is not the journal in ``folder``.
    """
    study = study_without_imports(read_study(folder, search=search, url=url))
    parts: list[str] = []
    notes: list[str] = []
    for name, plot in _plots(search):
        figure, reason = _draw(plot, study)
        if figure is None:
            notes.append(f"{name} is not drawn: {reason}")
            continue
        parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
        notes += [f"{name}: {reason}"] if reason else []
    title = f"<!doctype html><meta charset='utf-8'><title>{html.escape(folder.name)}</title>"
    return title + "".join([*parts, *(f"<p>{html.escape(note)}</p>" for note in notes)])


def _plots(search: Search) -> Iterator[tuple[str, Callable[[optuna.Study], Any]]]:
    """Names and functions of the plots; those of one objective once for each."""
    metrics = [objective.metric for objective in search.objectives]
    if 1 < len(metrics) <= MAX_FRONT_AXES:
        yield "Pareto front", partial(visualization.plot_pareto_front, target_names=metrics)
    for number, metric in enumerate(metrics):
        shown: dict[str, Any] = {"target_name": metric}
        if len(metrics) > 1:
            shown["target"] = partial(_value, number)
        for name, plot in (
            ("Optimization history", visualization.plot_optimization_history),
            ("Parallel coordinates", visualization.plot_parallel_coordinate),
            ("Slices", visualization.plot_slice),
        ):
            yield f"{name} of {metric}", partial(plot, **shown)
    if len(metrics) == 1:  # the study has no intermediate values of several objectives
        yield "Intermediate values", visualization.plot_intermediate_values
    yield "Timeline", visualization.plot_timeline


def _draw(plot: Callable[[optuna.Study], Any], study: optuna.Study) -> tuple[Any, str]:
    """Figure and what Optuna warns of; None and the reason if there is nothing to see."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            figure = plot(study)
        except (ValueError, RuntimeError) as error:
            return None, str(error) or type(error).__name__
    experimental = optuna.exceptions.ExperimentalWarning
    warned = [str(w.message) for w in caught if not issubclass(w.category, experimental)]
    if not any(_has_points(trace) for trace in figure.data):
        return None, "no trial has the values that it shows"
    return figure, "; ".join(dict.fromkeys(warned))


def _has_points(trace: Any) -> bool:
    """True if a trace of a figure shows at least one trial."""
    if trace.type == "parcoords":
        return any(len(axis.values) for axis in trace.dimensions)
    return trace.x is not None and len(trace.x) > 0


def _value(number: int, trial: FrozenTrial) -> float:
    return trial.values[number]
