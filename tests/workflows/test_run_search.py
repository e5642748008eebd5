"""What happens between the last trial and the judging of the winner."""

from pathlib import Path

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.cross_validation import run_cross_validation
from hpsearch.execution.resumable_trial import CheckpointHooks
from hpsearch.promotion.final_evaluation import best_run, load_trained
from hpsearch.search.outcome import to_result
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.workflows.finish_search import train_winner
from hpsearch.workflows.observer import Observer

SPACE = """
from hpsearch.config import L2Net, RandomTriplets, TrialConfig
from hpsearch.search.search import Search

CONFIG = TrialConfig(descriptor=L2Net(width=0.125), sampler=RandomTriplets(batch=20), patches=240)
SEARCH = Search(suggest=lambda trial: CONFIG, budget=240, report_every=120, trials=1, num_folds=2,
                validation_points=8, baseline=CONFIG)
"""


def test_the_winner_of_a_search_in_folds_is_trained_on_the_whole_training_part(
    tmp_path: Path, tiny: PatchStore
) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    record = SearchRecord(
        space="space.py", store=str(tiny.path), fingerprint=tiny.fingerprint, split="auto",
        tracking_uri="", trials=1,
    )  # fmt: skip
    context = Workspace(tmp_path / "home").create("folds", tmp_path / "space.py", record)
    config, event_log = context.search.baseline, context.event_log
    event_log.append("start", trial="000", number=0, config=config.model_dump(mode="json"))
    for report in run_cross_validation(
        config, context.environment, CheckpointHooks(context.paths.trials_dir / "000"), k=2
    ):
        output = to_result(report, context.search.objective)
        fields = {key: output[key] for key in ("seen", "objective", "metrics")}
        event_log.append("report", trial="000", **fields)
    event_log.append("trial_finished", trial="000", status="completed")
    for _ in range(2):  # the second finds it trained
        train_winner(context, Observer())
        winner = load_trained(best_run(context.runs, context.search.objective), context)
        assert winner.progress.seen == 240
    assert [run.seen for run in context.runs] == [240], "the ledger keeps what the folds said"
