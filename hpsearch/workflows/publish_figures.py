"""Pictures of trials and of the search, on their MLflow runs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.models import describe
from hpsearch.patch_views import VIEWS
from hpsearch.promotion.final_evaluation import BASELINE, PIXELS, load_scores, trained
from hpsearch.reporting.leaderboard import Row, TaskScores, leaderboard, summary
from hpsearch.reporting.mlflow_notes import search_note, trial_note, yardstick_note
from hpsearch.reporting.plot_style import Figure, png
from hpsearch.reporting.sample_plots import embedding, triptych
from hpsearch.reporting.search_figures import Picture, search_pictures
from hpsearch.reporting.search_plots import learning_curves
from hpsearch.reporting.search_report import Command, Page, report_page
from hpsearch.reporting.text_tables import configurations
from hpsearch.search.study_plots import importances, optuna_page
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.mlflow_links import file_address, file_pages
from hpsearch.tracking.mlflow_sync import Publisher
from hpsearch.tracking.mlflow_writer import Progress
from hpsearch.tracking.run_state import Run

LOOKED_AT = 10
"""Trials whose networks are shown at work, from the first of the leaderboard on."""
REPORT, OPTUNA = "report.html", "optuna.html"
LINKS = {"the report": REPORT, "Optuna's plots": OPTUNA, "all files": ""}
NOTE_PICTURE, NOTE_DOTS = "note.png", 75
"""The learning curves in a description, which shows pictures as large as they are."""
SHOWN_POINTS, SHOWN_VIEWS = 16, 8
"""The S×K batch of validation patches that a trial's t-SNE shows."""


def publish_figures(
    folder: SearchFolder, publisher: Publisher, *, progress: Progress | None = None
) -> int:
    """Upload what is to be seen of every trial, and of the search as a whole; how many files."""
    stated, runs = folder.search(), folder.runs()
    rows = leaderboard(runs, direction=stated.objective.direction)
    looked_at = {row.run.id for row in rows[:LOOKED_AT]}
    count = 0
    for number, run in enumerate(runs, 1):
        shown = {"learning_curves.png": learning_curves(run)} if run.reports else {}
        if run.id in looked_at or run.kind != "trial":
            shown |= _pictures(run, folder)
        files = {f"figures/{name}": png(figure) for name, figure in shown.items()}
        if run.reports:
            files[NOTE_PICTURE] = png(shown["learning_curves.png"], dots=NOTE_DOTS)
        publisher.attach(run.id, files)
        count += len(files)
        if progress:
            progress(number, len(runs))
    _describe_trials(publisher, runs, rows, stated.objective.metric)
    return count + _publish_search(folder, publisher, rows)


def _publish_search(folder: SearchFolder, publisher: Publisher, rows: list[Row]) -> int:
    stated, scores = folder.search(), load_scores(folder)
    drawn = search_figures(folder)
    files = {f"figures/{picture.name}.png": png(picture.figure) for picture in drawn}
    files[NOTE_PICTURE] = png(drawn[0].figure, dots=NOTE_DOTS)
    files[REPORT] = page(folder, drawn).encode()
    files[OPTUNA] = optuna_page(folder.path, stated, folder.record.study).encode()
    publisher.attach(None, files)
    note = search_note(
        rows[:10],
        summary(folder.runs(), budget=stated.budget),
        metric=stated.objective.metric,
        yardsticks=yardsticks(scores),
        links=file_pages(publisher.tracking, publisher.parent, LINKS),
        picture=file_address(publisher.parent, NOTE_PICTURE),
    )
    publisher.describe(note)
    return len(files)


def _describe_trials(publisher: Publisher, runs: list[Run], rows: list[Row], metric: str) -> None:
    notes = {}
    pictures = {
        run.id: file_address(publisher.run_id(run.id), NOTE_PICTURE) for run in runs if run.reports
    }
    for row in rows:
        picture = pictures.get(row.run.id)
        notes[row.run.id] = trial_note(row, of=len(rows), metric=metric, picture=picture)
    for run in runs:
        if run.kind != "trial":
            notes[run.id] = yardstick_note(run, picture=pictures.get(run.id))
    for trial, note in notes.items():
        publisher.describe(note, trial=trial)


def search_figures(folder: SearchFolder) -> list[Picture]:
    """Figures of the search as a whole."""
    stated = folder.search()
    return search_pictures(
        folder.runs(),
        direction=stated.objective.direction,
        budget=stated.budget,
        metric=stated.objective.metric,
        importances=importances(folder.path, stated, folder.record.study),
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
            configurations=configurations(runs, direction=stated.objective.direction),
            yardsticks=yardsticks(load_scores(folder)),
            pictures=pictures,
            commands=[
                Command(f"hpsearch ui{folder.home_option}", "browse the trials"),
                Command(folder.command("promote"), "retrain the best, compare with the champion"),
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
