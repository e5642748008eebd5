"""What a search found, as rows and sums: the leaderboard, the compute it took, the yardsticks."""

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
    "pruned",
    "failed",
    "diverged",
    "collapsed",
)
"""Who stands before whom. A constant encoder comes last, whatever its retrieval mAP says."""


class Row(NamedTuple):
    """One line of the leaderboard."""

    rank: int
    """From 1."""
    run: Run
    status: RunStatus
    objective: float | None
    """At the last report; None if there was none."""
    diff: str
    """The configuration in words, without what all trials share."""


class TaskScores(NamedTuple):
    """mAP in [0, 1] of the three tasks and their mean."""

    verification: float
    matching: float
    retrieval: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How the trials of a search ended, and what they cost in patches."""

    completed: int
    running: int
    interrupted: int
    pruned: int
    failed: int
    diverged: int
    collapsed: int
    budget: int
    """Patches that all these trials would see if each was trained to the end."""
    trained: int
    """Patches seen, failed trials included."""
    saved_by_pruning: int
    """Patches not trained because ASHA stopped a trial."""
    saved_by_detection: int
    """Patches not trained because a trial had collapsed or diverged."""
    lost_to_failures: int
    """Patches seen by trials that then failed."""
    restarts: int
    """How often a trial went on after its worker or the driver died."""
    restarts_from_scratch: int
    """How often one began from nothing, because its checkpoint was damaged."""
    retrained_patches: int
    """Patches trained a second time after that; beyond those trained."""
    cache_seconds_computed: float
    """Summed over trials: time in making denoisers and first weights that trials share."""
    cache_seconds_saved: float
    """Summed over trials: what making them again would have taken."""
    seconds: float
    """From the start of the first trial to the last sign of life."""
    trial_seconds: float
    """Summed over trials: time in training and validation."""

    @property
    def trials(self) -> int:
        """All of them, however they ended."""
        return sum(getattr(self, status) for status in STATUS_ORDER)

    @property
    def share_saved(self) -> float:
        """Part of the whole budget that pruning saved, in [0, 1]."""
        return self._share(self.saved_by_pruning)

    @property
    def share_detected(self) -> float:
        """Part of the whole budget that detecting collapse saved, in [0, 1]."""
        return self._share(self.saved_by_detection)

    @property
    def share_trained(self) -> float:
        """Part of the whole budget that was trained; a little over 1 if batches overshoot."""
        return self._share(self.trained)

    def _share(self, patches: int) -> float:
        return patches / self.budget if self.budget else 0.0


def shown_status(run: Run) -> RunStatus:
    """How a run ended, where a constant encoder counts as collapsed however it was stopped."""
    constant = is_reported_collapsed(run.last)
    return "collapsed" if constant and run.status in ("completed", "pruned") else run.status


def last_objective(run: Run) -> float | None:
    """The guarded objective at the last report."""
    return run.reports[-1]["objective"] if run.reports else None


def trials_of(runs: Iterable[Run]) -> list[Run]:
    """The trials among ``runs``; yardsticks do not compete."""
    return [run for run in runs if run.kind == "trial"]


def leaderboard(
    runs: Sequence[Run], *, direction: Direction, limit: int | None = None
) -> list[Row]:
    """Trials by how they ended (see ``STATUS_ORDER``), then by objective, then by number.

    Yardsticks do not compete. What differs is judged over all trials, also those beyond ``limit``.
    """
    trials = trials_of(runs)
    sign = -1 if direction == "maximize" else 1

    def key(pair: tuple[Run, str]) -> tuple[int, bool, float, int]:
        run, _ = pair
        value = last_objective(run)
        worth = 0.0 if value is None else sign * value
        return STATUS_ORDER.index(shown_status(run)), value is None, worth, run.number

    words = diff_summaries([run.config for run in trials])
    ranked = sorted(zip(trials, words, strict=True), key=key)
    return [
        Row(rank, run, shown_status(run), last_objective(run), differs)
        for rank, (run, differs) in enumerate(ranked[:limit], 1)
    ]


def summarize(runs: Sequence[Run], *, budget: int) -> Summary:
    """Count and add up the trials of a search.

    Args:
        runs: trials, and yardsticks, which are left out.
        budget: patches that a full trial sees.
    """
    trials = trials_of(runs)
    counts = Counter(shown_status(run) for run in trials)
    return Summary(
        **{status: counts[status] for status in STATUS_ORDER},
        budget=budget * len(trials),
        trained=sum(run.seen for run in trials),
        saved_by_pruning=_unused_budget(trials, ("pruned",), budget),
        saved_by_detection=_unused_budget(trials, ("collapsed", "diverged"), budget),
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
    """Time that a trial spent in training and validation, as far as its reports say."""
    return float(run.reports[-1].get("seconds", 0.0)) if run.reports else 0.0


def task_scores(metrics: Mapping[str, float], *, prefix: str = "val/") -> TaskScores | None:
    """The three tasks and their mean out of a report's metrics; None where one is missing."""
    names = [f"{prefix}{name}" for name in ("verification", "matching", "retrieval", "mAP")]
    if not all(name in metrics for name in names):
        return None
    return TaskScores(*(metrics[name] for name in names))


def _constant_metric(run: Run, name: str) -> float:
    """A metric that is the same in all reports but that of a failure, which lacks it."""
    return max((report["metrics"].get(name, 0.0) for report in run.reports), default=0.0)


def _unused_budget(trials: list[Run], statuses: tuple[str, ...], budget: int) -> int:
    return sum(max(0, budget - run.seen) for run in trials if run.status in statuses)


def _wall_seconds(trials: list[Run]) -> float:
    if not trials:
        return 0.0
    return max(_last_event_time(run) for run in trials) - min(run.started for run in trials)


def _last_event_time(run: Run) -> float:
    if run.ended is not None:
        return run.ended
    return run.reports[-1].get("time", run.started) if run.reports else run.started
