"""What is asked of every search that was hurt: nothing lost, nothing doubled, all books agree."""

import io
from collections.abc import Mapping
from itertools import pairwise

import torch
from mlflow import MlflowClient
from optuna.trial import TrialState

from hpsearch.atomic_files import read_with_checksum
from hpsearch.execution.resumable_trial import SECONDS_METRIC
from hpsearch.execution.system_metrics import PREFIX
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study import open_study
from hpsearch.tracking.run_state import Run
from hpsearch.training.artifact_cache import COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC
from hpsearch.training.trial import CHECKPOINT_FILE, build_trial

from ..tracking.outages import expected, found
from .conftest import Note
from .searches import trials, wait_for

TIMES = (SECONDS_METRIC, COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC)


def assert_whole(fault: str, note: Note, context: SearchContext, **cost: float) -> None:
    """Nothing is lost and the study agrees, which the table is told.

    Args:
        fault: what was done to the search.
        cost: ``patches`` trained again, and ``seconds`` until it went on.
    """
    assert_study_agrees(context)
    lost = sum(run.status != "completed" for run in trials(context))
    points = sum(lost_points(context, run) for run in trials(context))
    note(fault, trials=lost, points=points, **cost)
    assert lost == points == 0


def lost_points(context: SearchContext, run: Run) -> int:
    """Reports that are missing, or other than those of a trial that nobody hurt."""
    reports = build_trial(run.config, context.environment).reports()
    undisturbed = {(report.seen, *timeless(report.metrics)) for report in reports}
    return len({(r["seen"], *timeless(r["metrics"])) for r in run.reports} ^ undisturbed)


def timeless(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    kept = {name: value for name, value in metrics.items() if not name.startswith(PREFIX)}
    return sorted((name, value) for name, value in kept.items() if name not in TIMES)


def assert_study_agrees(context: SearchContext) -> None:
    """The study has ended every trial once, with the values that the ledger holds."""
    study = open_study(context.paths.folder, search=context.search, url=context.record.study)
    search_state = [(t.state, t.intermediate_values) for t in study.get_trials()]
    assert search_state == [
        (TrialState.COMPLETE, {r["seen"]: r["objective"] for r in run.reports})
        for run in trials(context)
    ]


def assert_mlflow_agrees(context: SearchContext, uri: str) -> int:
    """Every point of every metric once, as the ledger holds it; how many there are."""
    names = {run.id for run in trials(context)}
    search_state = sorted(point for point in expected(context.event_log) if point[0] in names)
    kept = sorted(
        point for point in found(context.event_log, MlflowClient(uri)) if point[0] in names
    )
    assert len(kept) == len(search_state), "none is lost or doubled"
    assert kept == search_state
    return len(search_state)


def saved(context: SearchContext, trial: str) -> int:
    """Patches seen at the checkpoint of a trial."""
    content = read_with_checksum(context.paths.trials_dir / trial / CHECKPOINT_FILE)
    assert content is not None
    return torch.load(io.BytesIO(content), weights_only=True)["progress"]["seen"]


def patches_since_report(context: SearchContext, moment: float) -> int:
    """Patches that running trials had trained after their last report, at their latest pace.

    Args:
        moment: seconds since 1970.
    """
    return sum(_since_report(run, moment) for run in trials(context))


def _since_report(run: Run, moment: float) -> int:
    before = [(r["time"], r["seen"]) for r in run.reports if r["time"] <= moment]
    if len(before) < 2 or (run.ended is not None and run.ended <= moment):
        return 0
    (t0, seen0), (t1, seen1) = list(pairwise(before))[-1]
    return round(min(moment - t1, t1 - t0) / (t1 - t0) * (seen1 - seen0))


def first_report_after(context: SearchContext, moment: float) -> float:
    """Seconds from a moment to the first report of a trial that started again after it."""

    def reports() -> list[float]:
        events = context.event_log.events()
        starts = [e["time"] for e in events if _is(e, "start", moment)]
        return [e["time"] for e in events if starts and _is(e, "report", min(starts))]

    wait_for(reports)
    return min(reports()) - moment


def _is(event: Mapping[str, object], kind: str, moment: float) -> bool:
    return event["event"] == kind and event["time"] > moment  # type: ignore[operator]
