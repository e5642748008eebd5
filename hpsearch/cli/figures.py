"""Pictures of trials and of the search, on their MLflow runs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpsearch.cli.app import HOME
from hpsearch.config import VIEWS
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.models import describe
from hpsearch.reporting.album import search_pictures
from hpsearch.reporting.page import Command, Page, Picture, report_page
from hpsearch.reporting.plots import (
    Figure,
    embedding,
    learning_curves,
    png,
    triptych,
)
from hpsearch.reporting.tables import TaskScores, leaderboard, summary
from hpsearch.reporting.text import leaderboard_table, markdown, summary_lines
from hpsearch.search.study_pages import importances, optuna_page
from hpsearch.search.winner import BASELINE, PIXELS, load_scores, trained
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.publisher import Publisher
from hpsearch.tracking.runs import Run

SHOWN_POINTS, SHOWN_VIEWS = 16, 8
"""The S×K batch of validation patches that a trial's t-SNE shows."""


def publish_figures(folder: SearchFolder, publisher: Publisher) -> None:
    """Upload what is to be seen of every trial, and of the search as a whole."""
    for run in folder.runs():
        pictures = {"learning_curves.png": learning_curves(run), **_pictures(run, folder)}
        for name, figure in pictures.items():
            publisher.attach(run.id, f"figures/{name}", png(figure))
    drawn = search_figures(folder)
    parent = {f"figures/{picture.name}.png": png(picture.figure) for picture in drawn}
    parent["report.html"] = page(folder, drawn).encode()
    parent["optuna.html"] = optuna_page(folder.path, folder.search()).encode()
    for name, content in parent.items():
        publisher.attach(None, name, content)
    publisher.describe(_overview(folder))


def search_figures(folder: SearchFolder) -> list[Picture]:
    """Figures of the search as a whole."""
    stated = folder.search()
    return search_pictures(
        folder.runs(),
        direction=stated.objective.direction,
        budget=stated.budget,
        metric=stated.objective.metric,
        importances=importances(folder.path, stated),
    )


def page(folder: SearchFolder, pictures: list[Picture]) -> str:
    """The report as one HTML page that needs nothing beside it."""
    stated, runs, record = folder.search(), folder.runs(), folder.record
    split = folder.split()
    return report_page(
        Page(
            name=folder.name,
            lead=f"{record.trials} trials of at most {stated.budget:,} patches, to "
            f"{stated.objective.direction} {stated.objective.metric} on "
            f"{', '.join(split.validation)}; patches: {Path(record.store).stem}",
            totals=summary(runs, budget=stated.budget),
            rows=leaderboard(runs, direction=stated.objective.direction),
            yardsticks=yardsticks(load_scores(folder)),
            pictures=pictures,
            commands=[
                Command(f"hpsearch ui{home_option(folder)}", "browse the trials"),
                Command(f"hpsearch promote {folder.name}{home_option(folder)}", "ask for champion"),
            ],
        )
    )


def yardsticks(scores: Mapping[str, Scores]) -> dict[str, TaskScores]:
    """Test scores under names that people read, the winner first."""
    words = {BASELINE: "baseline triplet"}
    return {
        words.get(name, name if name == PIXELS else f"winner, trial {name}"): TaskScores(
            found.verification, found.matching, found.retrieval, found.mean
        )
        for name, found in scores.items()
    }


def home_option(folder: SearchFolder) -> str:
    """What to add to a command so that it finds this search."""
    home = folder.workspace.home
    return "" if home == HOME else f" --home {home}"


def _pictures(run: Run, folder: SearchFolder) -> dict[str, Figure]:
    """What a trial's networks do to validation patches, as of its last checkpoint."""
    try:
        trial = trained(run, folder)
    except UserError:
        return {}
    validation = trial.task.validation
    noisy = validation.pixels(noisy=run.config.evaluate_on == "noisy")
    seen, clean = trial.task.seen_by_descriptor, validation.pixels(noisy=False)
    some = np.linspace(0, len(clean) - 1, 12).astype(int)
    points = np.linspace(0, len(validation.points) - 1, SHOWN_POINTS).astype(int)
    rows = (VIEWS * points[:, None] + np.arange(0, VIEWS, VIEWS // SHOWN_VIEWS)).ravel()
    descriptors = describe(trial.pipeline(), noisy[rows])
    return {
        "denoised.png": triptych(noisy[some], seen[some], clean[some]),
        "embedding.png": embedding(descriptors, rows // VIEWS),
    }


def _overview(folder: SearchFolder) -> str:
    stated, runs = folder.search(), folder.runs()
    rows = leaderboard(runs, direction=stated.objective.direction, limit=10)
    lines = [f"- {line}" for line in summary_lines(summary(runs, budget=stated.budget))]
    return "\n".join([markdown(leaderboard_table(rows)), "", *lines])
