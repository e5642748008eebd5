"""Optuna's plots of a study: one for each objective, and none dropped without its reason."""

import json
import re
from pathlib import Path

import optuna
import pytest

from hpsearch.config import SGD, TrialConfig
from hpsearch.search.objective import MATCHING, MEAN_MAP, TRAINING_SECONDS, Objective
from hpsearch.search.pruners import NoPruner
from hpsearch.search.search import Search
from hpsearch.search.study import open_study
from hpsearch.search.study_plots import render_optuna_plots


def suggest(trial: optuna.Trial) -> TrialConfig:
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1, log=True)), patches=100)


def search_for(*extra: Objective) -> Search:
    return Search(
        suggest=suggest, budget=100, report_every=50, trials=3, objective=MEAN_MAP,
        extra_objectives=extra, pruner=NoPruner(), baseline=TrialConfig(patches=100),
    )  # fmt: skip


def page(folder: Path, search: Search, *, trials: int) -> tuple[list[str], list[str]]:
    """Axis titles of each figure in a page, and its notes, after some trials."""
    study = open_study(folder, search=search)
    for number in range(trials):
        trial = study.ask()
        search.suggest_config(trial)
        if not search.extra_objectives:
            trial.report(0.1 * number, 50)
        study.tell(trial, [0.1 * number + i for i in range(len(search.objectives))])
    html = render_optuna_plots(folder, search)
    titles = []
    for start in re.finditer(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*", html):
        data, end = json.JSONDecoder().raw_decode(html, start.end())
        assert data, "no figure is empty"
        layout, _ = json.JSONDecoder().raw_decode(html, html.index("{", end))
        titles.append(json.dumps([layout, [trace["type"] for trace in data]]))
    return titles, re.findall(r"<p>(.*?)</p>", html.rsplit("</script>", 1)[-1])


@pytest.mark.parametrize("extra", [(MATCHING,), (MATCHING, TRAINING_SECONDS)])
def test_each_objective_has_its_plots_and_together_they_have_a_front(
    tmp_path: Path, extra: tuple[Objective, ...]
) -> None:
    search = search_for(*extra)
    titles, notes = page(tmp_path, search, trials=4)
    assert notes == []
    assert len(titles) == 1 + 3 * len(search.objectives) + 1
    for objective in search.objectives:
        metric = objective.metric
        for name in ("Optimization History", "Slice"):
            assert sum(name in title and metric in title for title in titles) == 1
    assert sum("Pareto" in title for title in titles) == 1


def test_a_study_of_one_objective_has_its_intermediate_values(tmp_path: Path) -> None:
    titles, notes = page(tmp_path, search_for(), trials=3)
    assert notes == []
    assert len(titles) == 5
    assert any("Intermediate" in title for title in titles)


def test_a_plot_that_is_not_drawn_is_named_with_the_reason(tmp_path: Path) -> None:
    titles, notes = page(tmp_path, search_for(MATCHING), trials=0)
    assert len(titles) + len(notes) == 8
    assert all(" is not drawn: " in note and not note.endswith(": ") for note in notes)
    assert any(note.startswith("Pareto front") for note in notes)
