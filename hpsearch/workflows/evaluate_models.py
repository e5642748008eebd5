"""Evaluation of models on test patches, and its files.

Heavy modules are imported inside functions, after all checks that do not need them.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hpsearch.atomic_files import check_target_folder, write_atomic
from hpsearch.data.splits import TrialSplit
from hpsearch.defaults import DEFAULT_HOME
from hpsearch.errors import UserError
from hpsearch.evaluation import Scores
from hpsearch.evaluation.bootstrap import compare, intervals
from hpsearch.evaluation.descriptor_io import is_descriptor_folder
from hpsearch.evaluation.patch_pairs import PatchPairScores
from hpsearch.reporting.evaluation_report import (
    comparison_table,
    patch_pair_table,
    score_notes,
    score_tables,
)
from hpsearch.reporting.text_tables import TextTable
from hpsearch.search.workspace import Workspace

if TYPE_CHECKING:
    from hpsearch.data.patch_store import PatchStore
    from hpsearch.promotion.model_evaluation import InputKind
    from hpsearch.reporting.search_figures import ReportFigure
    from hpsearch.training.validation import EvaluationSet

DENOISER_NOTE = (
    "denoised: noisy patches through the denoiser; clean, denoised: clean ones through it; "
    "noisy and clean: without a denoiser"
)
PAIR_NOTE = (
    "FPR95: share of the pairs of different points that are at or below the distance that "
    "accepts 95 % of the pairs of one point; lower is better"
)
COLLAPSED_NOTE = (
    "The descriptors of {} have collapsed to one point, so these scores are meaningless."
)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Request for an evaluation: models, patches and tasks."""

    models: tuple[str, ...]
    """Model to evaluate, and the one it is compared with, if any."""
    data: str | None = None
    """``mini``, ``tiny``, or the path of a patch store; ``mini`` if None."""
    split: str = "auto"
    tasks: Path | None = None
    """Folder of official task files; tasks are sampled if None."""
    given: "tuple[InputKind, ...]" = ("noisy",)
    """Kinds of patches that the models are evaluated on."""
    baselines: bool = False
    """True if normalized pixels, SIFT and RootSIFT are evaluated too."""


@dataclass
class EvaluationResult:
    """Scores by row name, with the data for figures and comparisons."""

    what: str
    """Description of patches and task lists."""
    rows: dict[str, Scores] = field(default_factory=dict)
    pairs: dict[str, tuple[Scores, Scores]] = field(default_factory=dict)
    """Pairs of scores that are compared, by title."""
    test_set: "EvaluationSet | None" = None
    noisy: bool = True
    """True if the first row is of noisy patches."""
    on_pairs: dict[str, PatchPairScores] = field(default_factory=dict)
    """Scores by row name on a store without levels; ``rows`` is then empty."""


def evaluate_models(
    request: EvaluationRequest, *, tracking_uri: str | None = None, home: str | Path = DEFAULT_HOME
) -> EvaluationResult:
    """Evaluate everything that is requested on the same patches and tasks.

    Args:
        request: models, patches, tasks.
        tracking_uri: address of MLflow; SQLite in ``home`` if None.
        home: folder of data, searches and MLflow's files.

    Raises:
        UserError: if there is nothing to evaluate, or a model, file or task list is not usable.
    """
    workspace = Workspace(Path(home))
    if not request.models and not request.baselines:
        raise UserError("there is nothing to score; give a MODEL, or --baselines")
    files = all(is_descriptor_folder(model) for model in request.models) and not request.baselines
    if request.tasks is not None and not request.tasks.is_dir():
        raise UserError(
            f"there is no folder of task files at {request.tasks}; correct --tasks",
            code="no-task-files",
        )
    if files and request.tasks is not None and request.data is None:
        return _score_files(request, request.tasks)
    return _score_on_store(request, workspace, tracking_uri)


def save_evaluation(result: EvaluationResult, folder: Path) -> Path:
    """Write ``scores.json``, the figures, and the page ``index.html``.

    Returns:
        Path of the page.

    Raises:
        UserError: if ``folder`` is a file, or cannot be written.
    """
    from hpsearch.reporting.evaluation_page import render_evaluation_page

    check_target_folder(folder, "--output")
    write_atomic(folder / "scores.json", json.dumps(_to_json(result)))
    pictures = _draw_figures(result, folder) if result.rows else []
    tables: dict[str, TextTable] = {
        name.capitalize(): shown for name, shown in score_tables(result.rows).items()
    }
    if result.on_pairs:
        tables = {"Verification of pairs": patch_pair_table(result.on_pairs)}
    tables |= {title: comparison_table(*pair) for title, pair in result.pairs.items()}
    page = render_evaluation_page(
        "Evaluation", lead=notes_on(result), tables=tables, figures=pictures
    )
    write_atomic(folder / "index.html", page)
    return folder / "index.html"


def _score_files(request: EvaluationRequest, tasks: Path) -> EvaluationResult:
    split = _split_of(tasks) if request.split == "auto" else request.split

    from hpsearch.evaluation.protocol import evaluate
    from hpsearch.promotion.model_evaluation import load_descriptors

    found = EvaluationResult(what=f"official task lists of split {split} in {tasks}")
    for name in request.models:
        descriptors, lists = load_descriptors(Path(name), tasks=tasks, split=split)
        found.rows[name] = evaluate(descriptors, lists)
    if len(found.rows) == 2:
        (ours, theirs), (first, second) = found.rows, found.rows.values()
        found.pairs[f"{ours} less {theirs}"] = first, second
    return found


def _score_on_store(
    request: EvaluationRequest, workspace: Workspace, uri: str | None
) -> EvaluationResult:
    store = workspace.store(request.data or "mini")
    if not store.has_levels:
        return _score_on_pairs(request, store, workspace, uri)
    split = store.split(request.split)

    from hpsearch.promotion.model_evaluation import (
        classical_baselines,
        evaluate_model,
        load_test_set,
    )

    test = load_test_set(store, split, request.tasks)
    lists = f"task lists in {request.tasks}" if request.tasks else "task lists sampled with a seed"
    found = EvaluationResult(
        what=f"{store.path.name}, test part of split {split.name}, {lists}",
        test_set=test,
        noisy=request.given[0] == "noisy",
    )
    heads: dict[str, dict[str, Scores]] = {}
    for name in request.models:
        heads[name] = _score_model(name, request, test, found, workspace, uri)
    if len(heads) == 2:
        (ours, theirs), (first, second) = heads, heads.values()
        for given in request.given:
            title = f"{ours} less {theirs}, {given} patches"
            found.pairs[title] = first[given], second[given]
    for baseline in classical_baselines() if request.baselines else ():
        for seen, scores in evaluate_model(baseline, test, request.given).items():
            found.rows[f"{baseline.name}, {seen}"] = scores
    return found


def _score_on_pairs(
    request: EvaluationRequest, store: "PatchStore", workspace: Workspace, uri: str | None
) -> EvaluationResult:
    """Evaluate on the pairs of all sequences of a store without levels."""
    from hpsearch.promotion import model_evaluation
    from hpsearch.training.validation import PatchPairSet

    if request.tasks is not None:
        store.check_levels("an evaluation by task lists")
    for name in filter(is_descriptor_folder, request.models):
        store.check_levels(f"the official layout of descriptors in {name}")
    test = PatchPairSet.sample(store.select(store.names, TrialSplit("all", store.names, (), ())))
    found = EvaluationResult(what=f"pairs of {store.path.name}", noisy=request.given[0] == "noisy")
    models = [
        model_evaluation.load_model_functions(name, workspace, uri=uri) for name in request.models
    ]
    if request.baselines:
        models += model_evaluation.classical_baselines()
    for model in models:
        for seen, scores in model_evaluation.evaluate_model(model, test, request.given).items():
            found.on_pairs[f"{model.name}, {seen}"] = scores
    return found


def _score_model(
    name: str,
    request: EvaluationRequest,
    test: "EvaluationSet",
    result: EvaluationResult,
    workspace: Workspace,
    uri: str | None,
) -> dict[str, Scores]:
    """Add the rows of a model; return its headline scores by kind of patches."""
    from hpsearch.promotion import model_evaluation

    if is_descriptor_folder(name):
        result.rows[name] = model_evaluation.evaluate_descriptors(Path(name), test)
        return dict.fromkeys(request.given, result.rows[name])
    who, heads = model_evaluation.load_model_functions(name, workspace, uri=uri), {}
    for given in request.given:
        scores = model_evaluation.evaluate_model(who, test, [given])
        heads[given] = next(iter(scores.values()))
        several = len(request.models) > 1 or request.baselines
        result.rows |= {f"{name}, {seen}" if several else seen: s for seen, s in scores.items()}
    return heads


def _split_of(tasks: Path) -> str:
    """Split of the task files in a folder.

    Raises:
        UserError: if the folder contains files of no split, or of several.
    """
    stem = "verif_pos_split-"
    splits = sorted(path.stem.removeprefix(stem) for path in tasks.glob(f"{stem}*.csv"))
    if len(splits) != 1:
        there = f"of the splits {', '.join(splits)}" if splits else f"of no split ({stem}X.csv)"
        raise UserError(f"{tasks} contains task files {there}; choose one with --split")
    return splits[0]


def notes_on(result: EvaluationResult) -> list[str]:
    """Notes on the meaning of the scores."""
    if result.on_pairs:
        return [result.what, PAIR_NOTE]
    words = [result.what, *score_notes(next(iter(result.rows.values())))]
    if any("denoised" in name for name in result.rows):
        words.append(DENOISER_NOTE)
    return words + [COLLAPSED_NOTE.format(name) for name, s in result.rows.items() if s.collapsed]


def _to_json(result: EvaluationResult) -> dict[str, object]:
    if result.on_pairs:
        scores = {name: scores.to_dict() for name, scores in result.on_pairs.items()}
        return {"of": result.what, "scores": scores, "comparisons": {}}
    rows = {
        name: scores.to_dict()
        | {"intervals": {task: asdict(bound) for task, bound in intervals(scores).items()}}
        for name, scores in result.rows.items()
    }
    pairs = {
        title: {task: asdict(one) for task, one in compare(*pair).items()}
        for title, pair in result.pairs.items()
    }
    return {"of": result.what, "scores": rows, "comparisons": pairs}


def _draw_figures(result: EvaluationResult, folder: Path) -> "list[ReportFigure]":
    """Figures of the page, which are also written as PNG files."""
    from hpsearch.reporting import evaluation_page as page
    from hpsearch.reporting.plot_style import png
    from hpsearch.reporting.search_figures import ReportFigure

    names, first = " and ".join(result.rows), next(iter(result.rows))
    figures = [
        ReportFigure(
            "precision_recall",
            partial(page.plot_precision_recall, result.rows),
            f"Precision over recall of {names}, by level.",
            "Precision and recall of verification, level by level.",
        ),
        ReportFigure(
            "matching_by_sequence",
            partial(page.plot_matching_by_sequence, result.rows),
            f"Matching mAP of {names}, by sequence.",
            "Matching mAP of every sequence.",
        ),
    ]
    if result.test_set is not None:
        scores = result.rows[first]
        patches = _test_patches(result.test_set, page.best_and_worst(scores), noisy=result.noisy)
        figures.append(
            ReportFigure(
                "sequences",
                partial(page.plot_best_and_worst, scores, patches),
                "Patches of the sequences that match worst and best.",
                f"The sequences that “{first}” matches worst and best, with their patches.",
            )
        )
    for figure in figures:
        write_atomic(folder / f"{figure.name}.png", png(figure.figure))
    return figures


def _test_patches(test: "EvaluationSet", names: list[str], *, noisy: bool) -> dict[str, np.ndarray]:
    store = test.patches.store
    pixels = store.noisy if noisy else store.clean
    starts = {name: store.starts[store.names.index(name)] for name in names}
    counts = {name: store.counts[store.names.index(name)] for name in names}
    return {name: pixels[starts[name] : starts[name] + counts[name]] for name in names}
