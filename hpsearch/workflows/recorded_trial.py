"""Trials of a search as a source of trainings: what each depended on, and what it reported."""

from dataclasses import dataclass, replace

from hpsearch.config import ComputeConfig
from hpsearch.execution.resumable_trial import SECONDS_METRIC
from hpsearch.execution.system_metrics import PREFIX
from hpsearch.promotion.model_evaluation import find_run
from hpsearch.search.resources import DEVICE_OF_KIND, MEMORY_SHARE_METRIC, ResourceAllocation
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.run_state import Run
from hpsearch.training.artifact_cache import COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC
from hpsearch.training.loop import Report
from hpsearch.training.trial import TrialEnvironment
from hpsearch.workflows.observer import Observer

MACHINE_METRICS = (
    SECONDS_METRIC,
    COMPUTED_SECONDS_METRIC,
    SAVED_SECONDS_METRIC,
    MEMORY_SHARE_METRIC,
)
"""Metrics that a repetition does not repeat."""


@dataclass(frozen=True, kw_only=True)
class RecordedTrial:
    """Trial of a search, with everything that its training depended on."""

    search: str
    """Name of the search."""
    run: Run
    env: TrialEnvironment
    threads: int
    num_folds: int | None = None
    """Folds of its cross-validation; None without one."""

    def environment(self, device: str | None = None) -> TrialEnvironment:
        """Environment of the search, on another device if one is given."""
        if device is None:
            return self.env
        values = {**self.env.computing.model_dump(), "device": device}
        return replace(self.env, computing=ComputeConfig.model_validate(values))

    def difference(self, report: Report) -> str | None:
        """First difference of a report from the one of the search; empty if all metrics are equal.

        None if the search has no report of so many patches. Times are not compared.
        """
        recorded = next((r for r in self.run.reports if r["seen"] == report.seen), None)
        if recorded is None:
            return None
        here, there = (_repeatable(metrics) for metrics in (report.metrics, recorded["metrics"]))
        names = sorted(here.keys() | there.keys(), key=lambda name: (name != "val/mAP", name))
        wrong = next((name for name in names if here.get(name) != there.get(name)), None)
        if wrong is None:
            return ""
        return (
            f"{wrong} is {_number(here.get(wrong))} here and {_number(there.get(wrong))} there at "
            f"{report.seen:,} patches"
        )


def recorded_trial(ref: str, workspace: Workspace) -> RecordedTrial:
    """Find a trial of a search, to repeat it with the data, split, folds and device of the search.

    Args:
        ref: ``SEARCH/TRIAL``, by the trial's number; the baseline is ``SEARCH/baseline``.
        workspace: home folder with the search.

    Raises:
        UserError: if there is no such search or trial, or its patches have changed.
    """
    name, _, trial = ref.partition("/")
    context = workspace.open(name)
    run = find_run(context.runs, trial, search=name)
    env, is_trial = context.environment, run.kind == "trial"
    if not is_trial:
        return RecordedTrial(search=name, run=run, env=env, threads=1)
    place = _allocation(context, run)
    device = context.resources.device
    if device == "auto":
        device = DEVICE_OF_KIND[place.kind]
    computing = env.computing.model_copy(update={"device": device})
    return RecordedTrial(
        search=name,
        run=run,
        env=replace(env, computing=computing),
        threads=place.threads,
        num_folds=context.search.num_folds,
    )


def _allocation(context: SearchContext, run: Run) -> ResourceAllocation:
    """Resources that a trial held when it last started; those of a CPU if they are not known."""
    found = [
        event["allocation"]
        for event in context.event_log.events()
        if event["event"] == "start" and event["trial"] == run.id and "allocation" in event
    ]
    if found:
        return ResourceAllocation.model_validate(found[-1])
    return ResourceAllocation(kind="cpu", cpus=context.resources.cpus)


def report_comparison(recorded: RecordedTrial, reports: list[Report], observer: Observer) -> None:
    """Report whether a repetition has given the numbers of the search."""
    name = f"trial {recorded.run.label} of search {recorded.search!r}"
    compared = [(report, recorded.difference(report)) for report in reports]
    known = [(report, found) for report, found in compared if found is not None]
    wrong = next((found for _, found in known if found), None)
    if wrong:
        observer.warning(
            f"This is not {name} again: {wrong}. The machine, the device, the number of threads or "
            "a library's version is another."
        )
    elif known:
        score = known[-1][0].metrics.get("val/mAP", 0.0)
        observer.message(
            f"{name} again, to the last bit: val/mAP {score:.4f} at {known[-1][0].seen:,} patches"
        )
    if recorded.run.status == "pruned":
        observer.message(f"The search pruned it at {recorded.run.seen:,} patches.")


def _repeatable(metrics: dict[str, float]) -> dict[str, float]:
    return {
        name: value
        for name, value in metrics.items()
        if name not in MACHINE_METRICS and not name.startswith(PREFIX)
    }


def _number(value: float | None) -> str:
    return "missing" if value is None else f"{value:.8g}"
