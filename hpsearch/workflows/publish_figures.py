"""Figures of trials and of the search, uploaded to their MLflow runs."""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hpsearch.errors import UserError, list_names
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare, intervals
from hpsearch.models import denoise, describe
from hpsearch.patch_views import VIEWS
from hpsearch.promotion.final_evaluation import (
    BASELINE_NAME,
    CLASSICAL_BASELINES,
    INITIAL_NAME,
    evaluated_label,
    load_scores,
    load_trained,
)
from hpsearch.reporting.leaderboard import Row, TaskScores, leaderboard, summarize
from hpsearch.reporting.mlflow_notes import (
    baseline_description,
    search_description,
    trial_description,
)
from hpsearch.reporting.model_figures import ModelSamples, model_pictures
from hpsearch.reporting.plot_style import Figure, half_size, png
from hpsearch.reporting.sample_plots import MAX_COLUMNS, plot_denoising_grid, plot_embedding
from hpsearch.reporting.search_figures import PlottedObjective, SearchFigures, search_pictures
from hpsearch.reporting.search_plots import plot_learning_curves
from hpsearch.reporting.search_report import (
    NextCommand,
    SearchReport,
    format_date,
    render_report,
)
from hpsearch.reporting.setting_figures import setting_pictures
from hpsearch.reporting.text_tables import format_duration, group_configurations
from hpsearch.search.outcome import hypervolume, pareto_front
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study_plots import render_optuna_plots
from hpsearch.tracking.mlflow_links import file_links, file_url
from hpsearch.tracking.mlflow_sync import MlflowSync
from hpsearch.tracking.mlflow_writer import SyncProgress
from hpsearch.tracking.run_state import Run
from hpsearch.training.validation import PatchPairSet

NUM_FIGURE_PATCHES = 5
"""Number of trials with sample figures, from the top of the leaderboard."""
MAX_NAMES_IN_LEAD = 4
"""Most sequences that the first sentence of a report names."""
MAX_EXAMPLE_POINTS = 128
"""Most points whose patches are compared to show what a model does."""
REPORT_FILE, OPTUNA_FILE = "report.html", "optuna.html"
LINK_NAMES = {"the report": REPORT_FILE, "Optuna's plots": OPTUNA_FILE, "all files": ""}
HYPERVOLUME_METRIC = "pareto/hypervolume"
"""Metric of the run of a search with several objectives."""
NOTE_IMAGE = "note.png"
"""Image file of the learning curves in a description, half as large (it is shown unscaled)."""
NUM_EMBEDDED_POINTS, NUM_EMBEDDED_VIEWS = 16, 8
"""Points, and views per point, of the validation patches in a trial's t-SNE plot."""


def publish_figures(
    context: SearchContext, mlflow_sync: MlflowSync, *, progress: SyncProgress | None = None
) -> int:
    """Upload figures of every trial and of the search; return the number of files."""
    stated, runs = context.search, context.runs
    rows = leaderboard(runs, direction=stated.objective.direction)
    looked_at = {row.run.id for row in rows[:NUM_FIGURE_PATCHES]}
    count = 0
    for number, run in enumerate(runs, 1):
        shown = {}
        if run.reports:
            curves = plot_learning_curves(run, metric=stated.objective.metric)
            shown["learning_curves.png"] = curves
        if run.id in looked_at or run.kind != "trial":
            shown |= _sample_figures(run, context)
        files = {f"figures/{name}": png(figure) for name, figure in shown.items()}
        if run.reports:
            files[NOTE_IMAGE] = half_size(files["figures/learning_curves.png"])
        mlflow_sync.log_files(run.id, files)
        count += len(files)
        if progress:
            progress(number, len(runs))
    _describe_trials(mlflow_sync, runs, rows, stated.objective.metric)
    return count + _publish_search_figures(context, mlflow_sync, rows)


def _publish_search_figures(
    context: SearchContext, mlflow_sync: MlflowSync, rows: list[Row]
) -> int:
    stated, scores = context.search, load_scores(context)
    drawn = draw_search_figures(context)
    pictures = [*drawn.examples, *drawn.figures]
    files = {f"figures/{picture.name}.png": png(picture.figure) for picture in pictures}
    curves = files.get("figures/learning-curves.png")
    if curves is not None:
        files[NOTE_IMAGE] = half_size(curves)
    files[REPORT_FILE] = render_search_report(context, drawn).encode()
    files[OPTUNA_FILE] = render_optuna_plots(
        context.paths.folder, stated, context.record.study
    ).encode()
    mlflow_sync.log_files(None, files)
    volume = hypervolume(context.runs, stated.objectives)
    if volume is not None:
        mlflow_sync.log_search_metric(HYPERVOLUME_METRIC, volume)
    note = search_description(
        rows[:10],
        summarize(context.runs, budget=stated.budget),
        metric=stated.objective.metric,
        baselines=named_scores(scores),
        links=file_links(mlflow_sync.tracking, mlflow_sync.search_run_id, LINK_NAMES),
        picture=file_url(mlflow_sync.search_run_id, NOTE_IMAGE) if curves is not None else None,
    )
    mlflow_sync.set_description(note)
    return len(files)


def _describe_trials(
    mlflow_sync: MlflowSync, runs: list[Run], rows: list[Row], metric: str
) -> None:
    notes = {}
    pictures = {
        run.id: file_url(mlflow_sync.run_id(run.id), NOTE_IMAGE) for run in runs if run.reports
    }
    for row in rows:
        picture = pictures.get(row.run.id)
        notes[row.run.id] = trial_description(row, of=len(rows), metric=metric, picture=picture)
    for run in runs:
        if run.kind != "trial":
            notes[run.id] = baseline_description(run, picture=pictures.get(run.id))
    for trial, note in notes.items():
        mlflow_sync.set_description(note, trial=trial)


def draw_search_figures(context: SearchContext) -> SearchFigures:
    """Draw the figures of the whole search."""
    stated, runs = context.search, context.runs
    objectives = [PlottedObjective(o.metric, o.direction) for o in stated.objectives]
    main = search_pictures(
        runs,
        objectives=objectives,
        budget=stated.budget,
        report_every=stated.first_report,
        front=pareto_front(runs, stated.objectives) if stated.extra_objectives else (),
    )
    further = setting_pictures(runs, objective=objectives[0], report_every=stated.first_report)
    shown = model_examples(context)
    return SearchFigures(
        figures=[*main.figures, *further.figures],
        omitted=[*main.omitted, *further.omitted, *shown.omitted],
        examples=shown.figures,
    )


def model_examples(context: SearchContext) -> SearchFigures:
    """Figures of what the evaluated trial's model and the baseline do with validation patches.

    None before the search has test scores, or where the networks or the patches are gone.
    """
    label = evaluated_label(context)
    by_label = {run.label: run for run in context.runs}
    baseline = next((run for run in context.runs if run.kind == "baseline"), None)
    if label is None or label not in by_label:
        return SearchFigures([], [])
    try:
        trial = load_trained(by_label[label], context)
        other = None if baseline is None else load_trained(baseline, context)
    except (UserError, OSError) as error:
        return SearchFigures([], [f"What the model does: {error}."])
    validation = trial.task.validation
    if isinstance(validation, PatchPairSet):
        return SearchFigures([], ["What the model does: it is shown for points with 16 views."])
    count = min(MAX_EXAMPLE_POINTS, len(validation.points))
    points = np.linspace(0, len(validation.points) - 1, count).astype(int)
    rows = validation.rows[(VIEWS * points[:, None] + np.arange(VIEWS)).ravel()]
    noisy = by_label[label].config.evaluate_on == "noisy"
    given = validation.patches.gather(rows, noisy=noisy)
    found = {f"winner, trial {label}": describe(trial.pipeline(), given)}
    if other is not None:
        found["baseline"] = describe(other.pipeline(), given)
    return model_pictures(
        ModelSamples(
            given=given,
            clean=validation.patches.gather(rows, noisy=False),
            descriptors=found,
            denoised=None if trial.denoiser is None else denoise(trial.denoiser, given),
        )
    )


def render_search_report(
    context: SearchContext, drawn: SearchFigures, *, refresh_seconds: int = 0
) -> str:
    """Render the report as one self-contained HTML page.

    Args:
        context: the search.
        drawn: figures of the search.
        refresh_seconds: seconds after which the page loads itself again; 0 for a page that stays.
    """
    stated, runs, record = context.search, context.runs, context.record
    validation = _validation_names(context, limit=MAX_NAMES_IN_LEAD) or "validation patches"
    scores = load_scores(context)
    names = dict(zip(scores, named_scores(scores), strict=True))
    winner = next(iter(scores.values()), None)
    return render_report(
        SearchReport(
            name=context.name,
            lead=f"{record.trials} trials of at most {stated.budget:,} patches, to "
            f"{stated.objective.direction} {stated.objective.metric} on "
            f"{validation}; patches: {Path(record.store).stem}",
            totals=summarize(runs, budget=stated.budget),
            rows=leaderboard(runs, direction=stated.objective.direction),
            configurations=group_configurations(runs, direction=stated.objective.direction),
            baselines=named_scores(scores),
            intervals={names[name]: intervals(found) for name, found in scores.items()},
            gains={
                names[name]: compare(winner, found)["mAP"]
                for name, found in list(scores.items())[1:]
                if winner is not None
            },
            evaluated=evaluated_label(context),
            facts=search_facts(context),
            refresh_seconds=refresh_seconds,
            follow_command=context.command("report", "--follow"),
            written=format_date(time.time()),
            examples=drawn.examples,
            figures=drawn.figures,
            omitted=drawn.omitted,
            commands=[
                NextCommand(f"hpsearch ui{context.home_option}", "browse the trials"),
                NextCommand(
                    context.command("promote"), "retrain the best, compare with the champion"
                ),
            ],
        )
    )


def search_facts(context: SearchContext) -> dict[str, str]:
    """Origin of a search's results by name: dates, data, space, code and versions."""
    state, runs = context.state, [run for run in context.runs if run.kind == "trial"]
    event = state.search_event or {}
    params, tags, data = (event.get(part, {}) for part in ("params", "tags", "dataset"))
    totals = summarize(runs, budget=context.search.budget)
    seeds = params.get("seeds_per_point", 1)
    volume = hypervolume(runs, context.search.objectives)
    facts = {
        "started": format_date(event["time"]) if "time" in event else "",
        "ended": format_date(state.finish_event["time"]) if state.finish_event else "",
        "wall time": format_duration(totals.seconds),
        "time of trials": f"{format_duration(totals.trial_seconds)}, summed",
        "space": params.get("space", context.record.space),
        "sampler, seed": ", ".join(str(params[k]) for k in ("sampler", "seed") if k in params),
        "pruner": " ".join(str(params[k]) for k in ("pruner", "grace_period") if k in params),
        "constraints": ", ".join(map(str, context.search.limits)),
        "gates": ", ".join(map(str, context.search.promotion_gates)),
        "hypervolume": "" if volume is None else f"{volume:.4f} of the box of all trials",
        "seeds of a point": str(seeds) if seeds != 1 else "",
        "patches": f"{data.get('name', '')}, fingerprint {data.get('fingerprint', '')[:12]}",
        "validation": _validation_names(context),
        "commit": tags.get("git.commit", ""),
        "versions": ", ".join(
            f"{name.removeprefix('version.')} {value}"
            for name, value in tags.items()
            if name.startswith("version.")
        ),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _validation_names(context: SearchContext, *, limit: int = 1000) -> str:
    """Names of the validation sequences; empty where the patches are gone, as in an archive."""
    try:
        return list_names(context.data.validation, limit=limit)
    except UserError:
        return ""


def named_scores(scores: Mapping[str, Scores]) -> dict[str, TaskScores]:
    """Test scores by display name, the winner first."""
    words = {BASELINE_NAME: "baseline triplet", INITIAL_NAME: INITIAL_NAME}
    words |= {name: name for name in CLASSICAL_BASELINES}
    return {
        words.get(name, f"winner, trial {name}"): TaskScores(
            found.verification, found.matching, found.retrieval, found.mean
        )
        for name, found in scores.items()
    }


def _sample_figures(run: Run, context: SearchContext) -> dict[str, Figure]:
    """Draw sample figures of a trial's networks at the last checkpoint, on validation patches."""
    try:
        trial = load_trained(run, context)
    except UserError:
        return {}
    validation = trial.task.validation
    if isinstance(validation, PatchPairSet):
        return {}  # the pictures show points with 16 views
    noisy = validation.pixels(noisy=run.config.evaluate_on == "noisy")
    clean = validation.pixels(noisy=False)
    some = np.linspace(0, len(clean) - 1, MAX_COLUMNS).astype(int)
    seen = noisy[some] if trial.denoiser is None else denoise(trial.denoiser, noisy[some])
    points = np.linspace(0, len(validation.points) - 1, NUM_EMBEDDED_POINTS).astype(int)
    rows = (VIEWS * points[:, None] + np.arange(0, VIEWS, VIEWS // NUM_EMBEDDED_VIEWS)).ravel()
    descriptors = describe(trial.pipeline(), noisy[rows])
    return {
        "denoised.png": plot_denoising_grid(noisy[some], seen, clean[some]),
        "embedding.png": plot_embedding(descriptors, rows // VIEWS),
    }
