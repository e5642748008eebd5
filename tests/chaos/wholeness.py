"""What is asked of every search that was hurt: nothing lost, nothing doubled, all books agree."""

from collections.abc import Mapping
from itertools import pairwise

from mlflow import MlflowClient
from optuna.trial import TrialState

from hpsearch.running.checkpointed import SECONDS
from hpsearch.search.study import open_study
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.entries import points
from hpsearch.tracking.names import IDENTITY, TRIAL
from hpsearch.tracking.runs import Run
from hpsearch.training.artifacts import MADE, SPARED
from hpsearch.training.trial import prepare_trial

from .searches import wait_for

TIMES = (SECONDS, MADE, SPARED)
Point = tuple[str, str, int, float, int]
"""Trial, metric, step, value, milliseconds."""


def trials(folder: SearchFolder) -> list[Run]:
    return [run for run in folder.runs() if run.kind == "trial"]


def lost_trials(folder: SearchFolder) -> int:
    return sum(run.status != "completed" for run in trials(folder))


def lost_points(folder: SearchFolder) -> int:
    """Reports that are missing, or other than those of a trial that nobody hurt."""
    return sum(len(_told(run) ^ undisturbed(folder, run)) for run in trials(folder) if run.reports)


def _told(run: Run) -> set[tuple]:
    return {(r["seen"], *timeless(r["metrics"])) for r in run.reports}


def undisturbed(folder: SearchFolder, run: Run) -> set[tuple]:
    """What the same trial reports when it is trained here, in one go."""
    reports = prepare_trial(run.config, folder.job()).reports()
    return {(report.seen, *timeless(report.metrics)) for report in reports}


def timeless(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted((name, value) for name, value in metrics.items() if name not in TIMES)


def assert_study_agrees(folder: SearchFolder) -> None:
    """The study has ended every trial once, with the values that the ledger holds."""
    study = open_study(folder.path, search=folder.search(), url=folder.record.study)
    found = [(t.state, t.intermediate_values) for t in study.get_trials()]
    assert found == [
        (TrialState.COMPLETE, {r["seen"]: r["objective"] for r in run.reports})
        for run in trials(folder)
    ]


def assert_mlflow_agrees(folder: SearchFolder, uri: str) -> int:
    """Every point of every metric once, as the ledger holds it; how many there are."""
    told, found = in_ledger(folder), in_mlflow(folder, MlflowClient(uri))
    assert len(found) == len(told), "none is lost or doubled"
    assert found == told
    return len(told)


def in_ledger(folder: SearchFolder) -> list[Point]:
    return sorted(
        (run.id, point.key, point.step, point.value, point.timestamp)
        for run in trials(folder)
        for report in run.reports
        for point in points(report)
    )


def in_mlflow(folder: SearchFolder, client: MlflowClient) -> list[Point]:
    """Those of a second run of a trial too."""
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    rule = f"tags.`{IDENTITY}` = '{folder.ledger.identity()}' and tags.`{TRIAL}` LIKE '%'"
    names = {run.id for run in trials(folder)}
    return sorted(
        (run.data.tags[TRIAL], key, p.step, p.value, p.timestamp)
        for run in client.search_runs([experiment.experiment_id], rule)
        if run.data.tags[TRIAL] in names
        for key in run.data.metrics
        for p in client.get_metric_history(run.info.run_id, key)
    )


def patches_since_report(folder: SearchFolder, moment: float) -> int:
    """Patches that running trials had trained after their last report, at their latest pace.

    Args:
        moment: seconds since 1970.
    """
    return sum(_since_report(run, moment) for run in trials(folder))


def _since_report(run: Run, moment: float) -> int:
    before = [(r["time"], r["seen"]) for r in run.reports if r["time"] <= moment]
    if len(before) < 2 or (run.ended is not None and run.ended <= moment):
        return 0
    (t0, seen0), (t1, seen1) = list(pairwise(before))[-1]
    return round(min(moment - t1, t1 - t0) / (t1 - t0) * (seen1 - seen0))


def first_report_after(folder: SearchFolder, moment: float) -> float:
    """Seconds from a moment to the first report of a trial that started again after it."""

    def reports() -> list[float]:
        events = folder.ledger.events()
        starts = [e["time"] for e in events if _is(e, "start", moment)]
        return [e["time"] for e in events if starts and _is(e, "report", min(starts))]

    wait_for(reports)
    return min(reports()) - moment


def _is(event: Mapping[str, object], kind: str, moment: float) -> bool:
    return event["event"] == kind and event["time"] > moment  # type: ignore[operator]
