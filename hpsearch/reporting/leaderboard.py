"""Leaderboard of a search, and summary of its compute."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hpsearch.collapse_thresholds import is_reported_collapsed
from hpsearch.config.formatting import diff_summaries
from hpsearch.tracking.run_state import Run, RunStatus
from hpsearch.training.artifact_cache import COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC

Direction = Literal["maximize", "minimize"]

STATUS_ORDER: tuple[RunStatus, ...] = (
    "completed",
    "running",
    "interrupted",
    "paused",
    "infeasible",
    "pruned",
    "failed",
    "diverged",
    "collapsed",
)
"""Rank of each status in the leaderboard; a collapsed trial is last, whatever its retrieval mAP."""
WITHOUT_SCORE = STATUS_ORDER.index("pruned") + 0.5
"""Rank of a trial that has no score yet: after all that have one, before those that failed."""


class Row(NamedTuple):
    """Row of the leaderboard."""

    rank: int
    """Rank in the leaderboard, from 1."""
    run: Run
    status: RunStatus
    objective: float | None
    """Objective at the last report; None without a report."""
    diff: str
    """Summary of the configuration, without settings that all trials share."""


class TaskScores(NamedTuple):
    """Scores of the three tasks and their mean, mAP in [0, 1]."""

    verification: float
    matching: float
    retrieval: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Summary of the trials of a search: statuses, and compute in patches and seconds."""

    completed: int
    infeasible: int = 0
    """Number of trials that violate a constraint."""
    running: int
    interrupted: int
    paused: int = 0
    pruned: int
    failed: int
    diverged: int
    collapsed: int
    budget: int
    """Patches that all these trials see if each is trained to the end, with its last batch."""
    trained: int
    """Patches seen, failed trials included."""
    overshoot: int
    """Patches by which last batches, which are never cut, pass the trials' budget."""
    saved_by_pruning: int
    """Patches not trained because a pruner stopped a trial."""
    saved_by_detection: int
    """Patches not trained because a trial had collapsed, diverged, or costs a patch too much."""
    lost_to_failures: int
    """Patches seen by trials that then failed."""
    restarts: int
    """Number of resumes of trials after a failure of the worker or driver."""
    restarts_from_scratch: int
    """Number of restarts from scratch because of a damaged checkpoint."""
    retrained_patches: int
    """Patches trained again after resumes and restarts, not included in ``trained``."""
    cache_seconds_computed: float
    """Seconds of computing shared denoisers and warm starts, summed over trials."""
    cache_seconds_saved: float
    """Seconds saved by reading them from the cache, summed over trials."""
    seconds: float
    """Wall-clock seconds from the start of the first trial to the last event."""
    trial_seconds: float
    """Seconds of training and validation, summed over trials."""

    @property
    def trials(self) -> int:
        """Number of all trials, of any status."""
        return sum(getattr(self, status) for status in STATUS_ORDER)

    @property
    def share_saved(self) -> float:
        """Share of the whole budget that pruning saved, in [0, 1]."""
        return self._share(self.saved_by_pruning)

    @property
    def share_detected(self) -> float:
        """Share of the whole budget that collapse detection saved, in [0, 1]."""
        return self._share(self.saved_by_detection)

    @property
    def share_trained(self) -> float:
        """Trained share of the whole budget, in [0, 1]."""
        return self._share(self.trained)

    def _share(self, patches: int) -> float:
        return patches / self.budget if self.budget else 0.0


def shown_status(run: Run) -> RunStatus:
    """Status of a run; a constant encoder counts as collapsed, however it was stopped."""
    constant = is_reported_collapsed(run.last)
    return "collapsed" if constant and run.status in ("completed", "pruned") else run.status


def last_objective(run: Run) -> float | None:
    """Guarded objective at the last report; None without a report."""
    return run.reports[-1]["objective"] if run.reports else None


def trials_of(runs: Iterable[Run]) -> list[Run]:
    """Trials among ``runs``, without baselines."""
    return [run for run in runs if run.kind == "trial"]


def leaderboard(
    runs: Sequence[Run], *, direction: Direction, limit: int | None = None
) -> list[Row]:
    """Rows of trials sorted by status (see ``STATUS_ORDER``), objective and number.

    A trial without a score ranks after those with one, unless these failed. Baselines are excluded.
    Differences of configurations are relative to all trials, including those beyond ``limit``.
    """
    trials = trials_of(runs)
    sign = -1 if direction == "maximize" else 1

    def key(pair: tuple[Run, str]) -> tuple[float, bool, float, int]:
        run, _ = pair
        value, group = last_objective(run), STATUS_ORDER.index(shown_status(run))
        if value is None:
            return max(group, WITHOUT_SCORE), True, 0.0, run.number
        return group, False, sign * value, run.number

    differences = diff_summaries([run.config for run in trials])
    ranked = sorted(zip(trials, differences, strict=True), key=key)
    return [
        Row(rank, run, shown_status(run), last_objective(run), differs)
        for rank, (run, differs) in enumerate(ranked[:limit], 1)
    ]


def summarize(runs: Sequence[Run], *, budget: int) -> Summary:
    """Summarize the trials of a search.

    Args:
        runs: trials, and baselines, which are ignored.
        budget: patches seen by a complete trial.
    """
    trials = trials_of(runs)
    counts = Counter(shown_status(run) for run in trials)
    return Summary(
        **{status: counts[status] for status in STATUS_ORDER},
        budget=sum(max(_budget(run, budget), run.seen) - run.inherited for run in trials),
        overshoot=sum(max(0, run.seen - _budget(run, budget)) for run in trials),
        trained=sum(max(0, run.seen - run.inherited) for run in trials),
        saved_by_pruning=_unused_budget(trials, ("pruned",), budget),
        saved_by_detection=_unused_budget(trials, ("collapsed", "diverged", "infeasible"), budget),
        lost_to_failures=sum(run.seen for run in trials if run.status == "failed"),
        restarts=sum(run.retries for run in trials),
        restarts_from_scratch=sum(len(run.restarted_attempts) for run in trials),
        retrained_patches=sum(run.retrained_patches for run in trials),
        cache_seconds_computed=sum(
            (_constant_metric(run, COMPUTED_SECONDS_METRIC) for run in trials), 0.0
        ),
        cache_seconds_saved=sum(
            (_constant_metric(run, SAVED_SECONDS_METRIC) for run in trials), 0.0
        ),
        seconds=_wall_seconds(trials),
        trial_seconds=sum((trial_seconds(run) for run in trials), 0.0),
    )


def trial_seconds(run: Run) -> float:
    """Seconds of training and validation of a trial, from its reports."""
    return float(run.reports[-1].get("seconds", 0.0)) if run.reports else 0.0


def task_scores(metrics: Mapping[str, float], *, prefix: str = "val/") -> TaskScores | None:
    """Scores of the three tasks and their mean from metrics; None if one is missing."""
    names = [f"{prefix}{name}" for name in ("verification", "matching", "retrieval", "mAP")]
    if not all(name in metrics for name in names):
        return None
    return TaskScores(*(metrics[name] for name in names))


def _constant_metric(run: Run, name: str) -> float:
    """Metric that is equal in all reports, except that of a failure, which lacks it."""
    return max((report["metrics"].get(name, 0.0) for report in run.reports), default=0.0)


def _unused_budget(trials: list[Run], statuses: tuple[str, ...], budget: int) -> int:
    return sum(max(0, _budget(run, budget) - run.seen) for run in trials if run.status in statuses)


def _budget(run: Run, budget: int) -> int:
    """Budget of a trial, which is smaller than the search's if that was raised since."""
    return min(budget, run.config.patches)


def _wall_seconds(trials: list[Run]) -> float:
    if not trials:
        return 0.0
    return max(last_event_time(run) for run in trials) - min(run.started for run in trials)


def last_event_time(run: Run) -> float:
    """Time of a run's end, or of its last report, seconds since 1970."""
    if run.ended is not None:
        return run.ended
    return run.reports[-1].get("time", run.started) if run.reports else run.started
