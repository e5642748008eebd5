"""What happens between the last trial and the judging of the winner."""

from pathlib import Path

from hpsearch.data.patch_store import PatchStore
from hpsearch.execution.cross_validation import folded
from hpsearch.execution.resumable_trial import Post
from hpsearch.promotion.final_evaluation import best_run, trained
from hpsearch.search.outcome import guarded
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.search_session import train_winner

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
    folder = Workspace(tmp_path / "home").create("folds", tmp_path / "space.py", record)
    config, ledger = folder.search().baseline, folder.ledger
    ledger.append("start", trial="000", number=0, config=config.model_dump(mode="json"))
    for report in folded(config, folder.job(), Post(folder.trials / "000"), k=2):
        said = guarded(report, folder.search().objective)
        fields = {key: said[key] for key in ("seen", "objective", "metrics")}
        ledger.append("report", trial="000", **fields)
    ledger.append("end", trial="000", status="completed")
    for _ in range(2):  # the second finds it trained
        train_winner(folder, Observer())
        winner = trained(best_run(folder.runs(), folder.search().objective), folder)
        assert winner.progress.seen == 240
    assert [run.seen for run in folder.runs()] == [240], "the ledger keeps what the folds said"
