"""The baseline of a search survives a kill; descriptors without training are scored once."""

from itertools import islice
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.evaluation.baselines import root_sift
from hpsearch.execution.resumable_trial import CheckpointHooks, run_with_checkpoints
from hpsearch.promotion import final_evaluation
from hpsearch.promotion.final_evaluation import (
    BASELINE_NAME,
    ROOT_SIFT_NAME,
    evaluate_classical,
    train_baseline,
)
from hpsearch.promotion.score_cache import ScoreCache
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.training.validation import build_test_set, evaluate_function

SPACE = Path(__file__).parents[1] / "end_to_end" / "space.py"


def search(home: Path, store: PatchStore, name: str) -> SearchContext:
    record = SearchRecord(
        space="space.py", store=str(store.path), fingerprint=store.fingerprint, split="auto",
        tracking_uri="", trials=1,
    )  # fmt: skip
    return Workspace(home).create(name, SPACE, record)


def test_a_baseline_that_was_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny: PatchStore
) -> None:
    undisturbed = train_baseline(search(tmp_path, tiny, "undisturbed"))
    killed = search(tmp_path, tiny, "killed")
    config = killed.search.baseline
    dump = config.model_dump(mode="json")
    killed.event_log.append("start", trial=BASELINE_NAME, number=-1, kind="baseline", config=dump)
    report = list(
        islice(
            run_with_checkpoints(
                config, killed.environment, CheckpointHooks(killed.paths.trials_dir / BASELINE_NAME)
            ),
            2,
        )
    )
    resumed = train_baseline(killed)
    assert resumed.status == "completed"
    seen = [event["seen"] for event in killed.event_log.events() if event["event"] == "report"]
    assert seen == [report[-1].seen, *(r["seen"] for r in undisturbed.reports[2:])]
    assert resumed.last["val/mAP"] == undisturbed.last["val/mAP"]
    assert train_baseline(killed) == resumed, "done is done"


def test_root_sift_is_scored_on_the_test_part_and_once_in_a_home(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ScoreCache(tmp_path, tiny, tiny.split())
    test = build_test_set(tiny, tiny.split())
    found = {noisy: evaluate_classical(cache, noisy=noisy) for noisy in (True, False)}
    for noisy, scores in found.items():
        expected = evaluate_function(root_sift, test, noisy=noisy)
        assert scores[ROOT_SIFT_NAME].to_dict() == expected.to_dict()
    assert found[True][ROOT_SIFT_NAME].mean < found[False][ROOT_SIFT_NAME].mean
    monkeypatch.setattr(final_evaluation, "CLASSICAL_BASELINES", {ROOT_SIFT_NAME: None})
    again = evaluate_classical(ScoreCache(tmp_path, tiny, tiny.split()), noisy=True)
    assert again[ROOT_SIFT_NAME].to_dict() == found[True][ROOT_SIFT_NAME].to_dict()
