"""A ledger as a search would have written it, without training."""

from hpsearch.config import SGD, TrialConfig
from hpsearch.config.formatting import flatten
from hpsearch.tracking.event_log import EventLog

REPORTS = ((4, "completed"), (3, "completed"), (1, "pruned"))


def write_trials(event_log: EventLog, fingerprint: str = "f" * 64) -> None:
    """Three trials, eight reports."""
    dataset = {"name": "tiny", "fingerprint": fingerprint, "path": "/x", "profile": "{}"}
    shared = flatten(TrialConfig(optimizer=SGD(lr=0.1), patches=1920))
    shared.pop("optimizer.lr")
    event_log.append(
        "search", params={"space": "space.py"}, dataset=dataset, direction="maximize",
        constants=shared,
    )  # fmt: skip
    for number, (reports, status) in enumerate(REPORTS):
        trial = f"t{number}"
        config = TrialConfig(optimizer=SGD(lr=0.1 * (number + 1)), patches=1920)
        event_log.append("start", trial=trial, number=number, config=config.model_dump(mode="json"))
        for i in range(1, reports + 1):
            value = 0.11 * number + 0.1 * i
            metrics = {"train/loss": 1 / i, "val/mAP": value, "val/matching/hard": value / 2}
            event_log.append("report", trial=trial, seen=480 * i, objective=value, metrics=metrics)
        event_log.append("trial_finished", trial=trial, status=status)
    event_log.append(
        "search_finished", status="completed", test={"winner, trial 001": [0.5, 0.4, 0.6, 0.5]}
    )
