"""Hyperparameter importances and Optuna's plots of a search."""

import warnings
from pathlib import Path

import optuna
from optuna.trial import TrialState

from hpsearch.search.search import Search
from hpsearch.search.study import open_study, study_without_imports

OPTUNA_PLOTS = (
    optuna.visualization.plot_optimization_history,
    optuna.visualization.plot_intermediate_values,
    optuna.visualization.plot_param_importances,
    optuna.visualization.plot_parallel_coordinate,
    optuna.visualization.plot_slice,
    optuna.visualization.plot_timeline,
)


def importances(folder: Path, search: Search, url: str | None = None) -> dict[str, float]:
    """Share of the objective's variance that each setting explains; empty with too few trials.

    Args:
        url: storage of the study, if it is not the journal in ``folder``.
    """
    study = study_without_imports(open_study(folder, search=search, url=url))
    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(completed) < 4:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns about settings that few trials have
        try:
            first = _first_value if search.extra_objectives else None
            return optuna.importance.get_param_importances(study, target=first)
        except (ValueError, RuntimeError):
            return {}  # no common parameters, or no variance


def render_optuna_plots(folder: Path, search: Search, url: str | None = None) -> str:
    """Render Optuna's interactive plots as one self-contained HTML page.

    Args:
        url: storage of the study, if it is not the journal in ``folder``.
    """
    study = study_without_imports(open_study(folder, search=search, url=url))
    parts: list[str] = []
    for plot in OPTUNA_PLOTS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of these are experimental in Optuna
            try:
                figure = plot(study)
            except (ValueError, RuntimeError):
                continue  # too few trials for this one
        parts.append(figure.to_html(full_html=False, include_plotlyjs=not parts))
    return f"<!doctype html><meta charset='utf-8'><title>{folder.name}</title>{''.join(parts)}"


def _first_value(trial: optuna.trial.FrozenTrial) -> float:
    return trial.values[0]
