"""What a newer hpsearch has written is refused in a sentence, and is not taken for damaged."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hpsearch.atomic_files import read_with_checksum, write_with_checksum
from hpsearch.errors import UserError
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.models.serialization import load_pipeline
from hpsearch.promotion.final_evaluation import load_scores, load_trained
from hpsearch.promotion.retraining_plan import PLAN_FILE, check_not_promotion
from hpsearch.promotion.score_cache import ScoreCache
from hpsearch.schema import KEY, SCHEMA_VERSION, NewerSchema
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_sync import SyncStateFile

from .conftest import unpack

pytestmark = pytest.mark.filterwarnings("ignore::hpsearch.errors.OldSpellingWarning")


def newer(path: Path) -> Path:
    """A JSON file as the next version might write it; of a ledger the first line."""
    first, _, rest = path.read_text().partition("\n")
    event_log = path.suffix == ".jsonl"
    content = json.loads(first if event_log else path.read_text())
    text = json.dumps({**content, KEY: SCHEMA_VERSION + 1})
    path.write_text(f"{text}\n{rest}" if event_log else text)
    return path


def newer_checkpoint(path: Path) -> Path:
    content = read_with_checksum(path)
    assert content is not None
    state = torch.load(io.BytesIO(content), weights_only=True)
    buffer = io.BytesIO()
    torch.save({**state, KEY: SCHEMA_VERSION + 1}, buffer)
    write_with_checksum(path, buffer.getvalue())
    return path


def scores_looked_up(context: SearchContext) -> None:
    winner = next(run for run in context.runs if run.label == "006")
    pipeline = load_trained(winner, context).pipeline()
    book = ScoreCache.for_search(context)
    book.scores(pipeline, noisy=True, name="winner")  # written down by this version
    newer(book._path(pipeline, noisy=True))
    book.scores(pipeline, noisy=True, name="winner")


READ: dict[str, tuple[str, Callable[[SearchContext], object]]] = {
    "record": ("search.json", lambda context: Workspace(context.home).open(context.name)),
    "ledger": ("ledger.jsonl", lambda context: context.runs),
    "test scores": ("test_scores.json", load_scores),
    "position": (
        "published.json",
        lambda context: SyncStateFile(context.paths.folder / "published.json").read("x"),
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_a_newer_file_of_a_search_is_refused(tmp_path: Path, kind: str) -> None:
    context = Workspace(unpack(tmp_path)).open("finished")
    name, read = READ[kind]
    read(context)
    newer(context.paths.folder / name)
    with pytest.raises(
        NewerSchema, match=rf"{name} was written by a newer hpsearch .*; update hpsearch"
    ):
        read(Workspace(context.home).open("finished"))


def test_a_newer_plan_is_refused(tmp_path: Path) -> None:
    context = Workspace(unpack(tmp_path)).open("finished-promotion")
    newer(context.paths.folder / PLAN_FILE)
    with pytest.raises(NewerSchema, match=PLAN_FILE):
        check_not_promotion(context)
    with pytest.raises(UserError, match=f"{PLAN_FILE} was written by a newer hpsearch"):
        _ = context.search


def test_a_newer_model_is_refused(tmp_path: Path) -> None:
    settings = next(unpack(tmp_path).rglob("pipeline.json"))
    load_pipeline(settings.parent)
    newer(settings)
    with pytest.raises(NewerSchema, match="update hpsearch"):
        load_pipeline(settings.parent)


def test_newer_scores_are_refused(tmp_path: Path) -> None:
    context = Workspace(unpack(tmp_path)).open("finished")
    with pytest.raises(NewerSchema, match="update hpsearch"):
        scores_looked_up(context)


def test_a_newer_checkpoint_is_refused_and_kept(tmp_path: Path) -> None:
    context = Workspace(unpack(tmp_path)).open("stopped")
    cut = next(run for run in context.runs if run.status == "interrupted")
    content = newer_checkpoint(context.paths.trials_dir / cut.id / "trial.pt").read_bytes()
    with pytest.raises(NewerSchema, match="update hpsearch"):
        next(
            run_with_checkpoints(
                cut.config, context.environment, CheckpointHooks(context.paths.trials_dir / cut.id)
            )
        )
    assert (context.paths.trials_dir / cut.id / "trial.pt").read_bytes() == content
