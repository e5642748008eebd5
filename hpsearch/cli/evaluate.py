"""``hpsearch evaluate``: the official protocol on a model or on descriptor files."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from hpsearch.cli.app import HOME, Home, TrackingUri, app, out
from hpsearch.errors import UserError
from hpsearch.evaluation import LEVELS, Scores, read_tasks
from hpsearch.evaluation import evaluate as score
from hpsearch.evaluation.bootstrap import intervals
from hpsearch.evaluation.descriptor_files import read_descriptors
from hpsearch.models import describe
from hpsearch.models.serving import SETTINGS, load_pipeline
from hpsearch.reporting.text import Table, plain
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.registry import load_descriptor, quieten_mlflow
from hpsearch.training.judging import judge_function, judged_part

TASKS = ("verification", "matching", "retrieval")


@app.command(rich_help_panel="Models")
def evaluate(
    model: Annotated[
        str, typer.Argument(help="models:/NAME@ALIAS, a folder of `train`, or of descriptor CSVs.")
    ],
    data: Annotated[str, typer.Option(help="mini, tiny, or the path of a store.")] = "mini",
    split: Annotated[str, typer.Option(help="auto, a, b, c, illum, view, mini, seeded.")] = "auto",
    tasks: Annotated[Path | None, typer.Option(help="Folder of official task files.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Clean patches, not noisy.")] = False,
    to: Annotated[Path | None, typer.Option(help="Write everything as JSON.")] = None,
    tracking_uri: TrackingUri = None,
    home: Home = HOME,
) -> None:
    """Score a model on the test sequences: verification, matching, retrieval.

    With --tasks, descriptors in the official layout are scored on the benchmark's own lists.

    Example: hpsearch evaluate models:/patch-descriptor@champion --data mini
    """
    workspace = Workspace(home)
    if tasks is not None:
        scores = _official(model, tasks, split)
    else:
        store = workspace.store(data)
        test = judged_part(store, store.split(split))
        uri = workspace.tracking(tracking_uri).uri
        scores = judge_function(_function(model, uri), test, noisy=not clean)
    _print(scores)
    if to is not None:
        to.write_text(json.dumps(scores.to_dict()))
        out.print(f"\n{to}", soft_wrap=True)


def _function(model: str, uri: str):
    if model.startswith("models:/"):
        quieten_mlflow()
        return load_descriptor(model, uri).predict
    if not (Path(model) / SETTINGS).is_file():
        raise UserError(
            f"{model!r} is no model; give models:/NAME@ALIAS or a folder that `hpsearch train` made"
        )
    pipeline = load_pipeline(Path(model))
    return lambda patches: describe(pipeline, patches, device=torch.device("cpu"))


def _official(folder: str, tasks: Path, split: str) -> Scores:
    descriptors = read_descriptors(Path(folder))
    return score(
        descriptors,
        read_tasks(
            tasks,
            split=split,
            names=tuple(descriptors),
            counts=[len(views) for views in descriptors.values()],
        ),
    )


def _print(scores: Scores) -> None:
    flat, bounds = scores.flat(), intervals(scores)
    rows = []
    for task in TASKS:
        levels = [f"{flat[f'{task}/{level}']:.4f}" for level in LEVELS]
        rows.append((task, *levels, f"{flat[task]:.4f}", _interval(bounds[task])))
    rows.append(("mean of three", "", "", "", f"{flat['mAP']:.4f}", _interval(bounds["mAP"])))
    header = ("mAP", *LEVELS, "mean", "95 % over sequences")
    out.print(plain(Table(header, tuple(rows), frozenset({"mAP"}))), markup=False)
    if scores.collapsed:
        out.print("The descriptors have collapsed to one point; these scores mean nothing.")
    points = int(np.sum(scores.points))
    out.print(f"{len(scores.names)} sequences, {points:,} points; retrieval with the largest pool")


def _interval(bounds) -> str:
    return f"[{bounds.low:.4f}, {bounds.high:.4f}]"
