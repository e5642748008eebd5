"""Evaluation of models on test patches, and its files."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from hpsearch.defaults import HOME
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores, evaluate
from hpsearch.evaluation.bootstrap import compare, intervals
from hpsearch.promotion.model_evaluation import (
    Input,
    described,
    exam,
    examine,
    examinee,
    holds_descriptors,
    score_files,
    yardsticks,
)
from hpsearch.reporting.evaluation_report import (
    Shown,
    about,
    comparison_table,
    ends,
    evaluation_page,
    extremes,
    matching_by_sequence,
    precision_recall,
    score_tables,
)
from hpsearch.reporting.plot_style import png
from hpsearch.reporting.text_tables import Table
from hpsearch.search.workspace import Workspace
from hpsearch.training.validation import Scored

DENOISER = (
    "denoised: noisy patches through the denoiser; clean, denoised: clean ones through it; "
    "noisy and clean: straight to the descriptor"
)
COLLAPSED = "The descriptors of {} have collapsed to one point; these scores mean nothing."


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What to evaluate, and on what."""

    models: tuple[str, ...]
    """The model, and the one it is compared with."""
    data: str | None = None
    """``mini``, ``tiny``, or the path of a patch store; ``mini`` if None."""
    split: str = "auto"
    tasks: Path | None = None
    """Folder of official task files; tasks are sampled if None."""
    given: tuple[Input, ...] = ("noisy",)
    """Which patches the models are given."""
    yardsticks: bool = False
    """Whether normalized pixels, SIFT and RootSIFT are evaluated too."""


@dataclass
class EvaluationResult:
    """Scores under the names of their rows, and what is needed to draw and compare them."""

    of: str
    """Patches and task lists, in words."""
    rows: dict[str, Scores] = field(default_factory=dict)
    pairs: dict[str, tuple[Scores, Scores]] = field(default_factory=dict)
    """What is compared, by title."""
    test: Scored | None = None
    noisy: bool = True
    """Which patches the first row was given."""


def evaluate_models(
    request: EvaluationRequest, *, tracking_uri: str | None = None, home: str | Path = HOME
) -> EvaluationResult:
    """Score everything that is requested on the same patches and the same tasks.

    Args:
        request: models, patches, tasks.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.

    Raises:
        UserError: if there is nothing to score, or a model, file or task list is not usable.
    """
    workspace = Workspace(Path(home))
    if not request.models and not request.yardsticks:
        raise UserError("there is nothing to score; give a MODEL, or --yardsticks")
    files = all(holds_descriptors(model) for model in request.models) and not request.yardsticks
    if request.tasks is not None and not request.tasks.is_dir():
        raise UserError(f"there is no folder of task files at {request.tasks}; correct --tasks")
    if files and request.tasks is not None and request.data is None:
        return _score_files(request, request.tasks)
    return _score_on_store(request, workspace, tracking_uri)


def save_evaluation(found: EvaluationResult, folder: Path) -> Path:
    """Write ``scores.json``, the figures, and the page ``index.html`` with all of it.

    Returns:
        Path of the page.

    Raises:
        UserError: if ``folder`` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give --out a folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(_everything(found)))
    pictures = _draw(found, folder)
    tables: dict[str, Table] = {
        name.capitalize(): shown for name, shown in score_tables(found.rows).items()
    }
    tables |= {title: comparison_table(*pair) for title, pair in found.pairs.items()}
    page = evaluation_page("Evaluation", lead=notes_on(found), tables=tables, pictures=pictures)
    (folder / "index.html").write_text(page)
    return folder / "index.html"


def _score_files(asked: EvaluationRequest, tasks: Path) -> EvaluationResult:
    split = _split_of(tasks) if asked.split == "auto" else asked.split
    found = EvaluationResult(of=f"official task lists of split {split} in {tasks}")
    for name in asked.models:
        descriptors, lists = described(Path(name), tasks=tasks, split=split)
        found.rows[name] = evaluate(descriptors, lists)
    if len(found.rows) == 2:
        (ours, theirs), (first, second) = found.rows, found.rows.values()
        found.pairs[f"{ours} less {theirs}"] = first, second
    return found


def _score_on_store(
    asked: EvaluationRequest, workspace: Workspace, uri: str | None
) -> EvaluationResult:
    store = workspace.store(asked.data or "mini")
    split = store.split(asked.split)
    test = exam(store, split, asked.tasks)
    lists = f"lists in {asked.tasks}" if asked.tasks else "lists drawn from a seed"
    found = EvaluationResult(
        of=f"{store.path.name}, test part of split {split.name}, {lists}",
        test=test,
        noisy=asked.given[0] == "noisy",
    )
    heads: dict[str, dict[str, Scores]] = {}
    for name in asked.models:
        heads[name] = _score_model(name, asked, test, found, workspace, uri)
    if len(heads) == 2:
        (ours, theirs), (first, second) = heads, heads.values()
        for given in asked.given:
            title = f"{ours} less {theirs}, {given} patches"
            found.pairs[title] = first[given], second[given]
    for yardstick in yardsticks() if asked.yardsticks else ():
        for seen, scores in examine(yardstick, test, asked.given).items():
            found.rows[f"{yardstick.name}, {seen}"] = scores
    return found


def _score_model(
    name: str,
    asked: EvaluationRequest,
    test: Scored,
    found: EvaluationResult,
    workspace: Workspace,
    uri: str | None,
) -> dict[str, Scores]:
    """Add the rows of a model; its headline scores by which patches are given."""
    if holds_descriptors(name):
        found.rows[name] = score_files(Path(name), test)
        return dict.fromkeys(asked.given, found.rows[name])
    who, heads = examinee(name, workspace, uri=uri), {}
    for given in asked.given:
        scores = examine(who, test, [given])
        heads[given] = next(iter(scores.values()))
        several = len(asked.models) > 1 or asked.yardsticks
        found.rows |= {f"{name}, {seen}" if several else seen: s for seen, s in scores.items()}
    return heads


def _split_of(tasks: Path) -> str:
    """The split whose files a folder holds.

    Raises:
        UserError: if it holds none, or several.
    """
    stem = "verif_pos_split-"
    splits = sorted(path.stem.removeprefix(stem) for path in tasks.glob(f"{stem}*.csv"))
    if len(splits) != 1:
        there = f"of the splits {', '.join(splits)}" if splits else f"of no split ({stem}X.csv)"
        raise UserError(f"{tasks} holds task files {there}; choose one with --split")
    return splits[0]


def notes_on(found: EvaluationResult) -> list[str]:
    """Sentences about what the scores are of."""
    words = [found.of, *about(next(iter(found.rows.values())))]
    if any("denoised" in name for name in found.rows):
        words.append(DENOISER)
    return words + [COLLAPSED.format(name) for name, s in found.rows.items() if s.collapsed]


def _everything(found: EvaluationResult) -> dict[str, object]:
    rows = {
        name: scores.to_dict()
        | {"intervals": {task: asdict(bound) for task, bound in intervals(scores).items()}}
        for name, scores in found.rows.items()
    }
    pairs = {
        title: {task: asdict(one) for task, one in compare(*pair).items()}
        for title, pair in found.pairs.items()
    }
    return {"of": found.of, "scores": rows, "comparisons": pairs}


def _draw(found: EvaluationResult, folder: Path) -> list[Shown]:
    first = next(iter(found.rows))
    figures = {
        Shown("precision_recall.png", "Precision and recall of verification, level by level."): (
            precision_recall(found.rows)
        ),
        Shown("matching_by_sequence.png", "Matching mAP of every sequence."): (
            matching_by_sequence(found.rows)
        ),
    }
    if found.test is not None:
        caption = f"The sequences that “{first}” matches worst and best, with their patches."
        shown = Shown("sequences.png", caption)
        scores = found.rows[first]
        figures[shown] = extremes(scores, _patches(found.test, ends(scores), noisy=found.noisy))
    for shown, figure in figures.items():
        (folder / shown.file).write_bytes(png(figure))
    return list(figures)


def _patches(test: Scored, names: list[str], *, noisy: bool) -> dict[str, np.ndarray]:
    store = test.patches.store
    pixels = store.noisy if noisy else store.clean
    starts = {name: store.starts[store.names.index(name)] for name in names}
    counts = {name: store.counts[store.names.index(name)] for name in names}
    return {name: pixels[starts[name] : starts[name] + counts[name]] for name in names}
