"""Pruners of a search: ASHA, PASHA, Hyperband, freeze-thaw and median stopping.

The step of a report is the number of patches that its trial has seen. Trials overshoot a step by
up to a batch, so a rung uses the first report at or beyond it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Annotated, Any, Literal

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.errors import UserError
from hpsearch.search.halving import (
    TRAINS_ON_ATTR,
    ProgressiveHalving,
    SuccessiveHalving,
    direction_sign,
    rung_steps,
)
from hpsearch.search.samplers import GP, NSGA2, Sampler, log_warnings_only

MIN_PEERS = 3
"""Minimum number of trials at a step before the median rule prunes."""


class ASHA(FrozenConfig):
    """Asynchronous successive halving: at each rung the best 1/reduction_factor of trials continue.

    Example:
        >>> ASHA(grace_period=6_000, reduction_factor=3)
        ASHA(kind='asha', grace_period=6000, reduction_factor=3.0)
    """

    kind: Literal["asha"] = "asha"
    grace_period: int | None = Field(default=None, ge=1)
    """Patches that every trial sees before it may be pruned; None for the first report."""
    reduction_factor: float = Field(default=3, gt=1)


class PASHA(FrozenConfig):
    """Progressive ASHA: trials train longer only while the ranking at the top is not settled.

    As ASHA up to a highest rung, the second one at first. Of the trials that reach that rung, only
    a new best one trains on. Where two rungs rank their best trials differently, the highest rung
    is the one above.

    Example:
        >>> PASHA(grace_period=6_000).reduction_factor
        3.0
    """

    kind: Literal["pasha"] = "pasha"
    grace_period: int | None = Field(default=None, ge=1)
    """Patches that every trial sees before it may be pruned; None for the first report."""
    reduction_factor: float = Field(default=3, gt=1)


class Hyperband(FrozenConfig):
    """Optuna's Hyperband: brackets of successive halving with increasing grace periods."""

    kind: Literal["hyperband"] = "hyperband"
    grace_period: int | None = Field(default=None, ge=1)
    """Patches that every trial sees before it may be pruned; None for the first report."""
    reduction_factor: int = Field(default=3, ge=2)


class Median(FrozenConfig):
    """Median stopping rule: prunes trials below the median of the others at the same step."""

    kind: Literal["median"] = "median"
    grace_period: int | None = Field(default=None, ge=1)
    """Patches that every trial sees before it may be pruned; None for the first report."""


class FreezeThaw(FrozenConfig):
    """Freeze-thaw: at a report, a worker continues with the most promising trial.

    That is the same trial, a paused one or a new one, whichever has the highest upper bound under
    the model of sampler ``GP()``, which it needs. A paused trial resumes from its checkpoint. The
    trials of a search are those that have begun; when all have, paused ones are still trained as
    long as they may become the best, and the others then count as pruned at their last value. At
    a limit of time or patches they stay paused, for ``resume`` with a larger one.

    Source: Swersky, Snoek and Adams, Freeze-Thaw Bayesian Optimization, arXiv 2014.

    Example:
        >>> FreezeThaw()
        FreezeThaw(kind='freeze_thaw', grace_period=None)
    """

    kind: Literal["freeze_thaw"] = "freeze_thaw"
    grace_period: int | None = Field(default=None, ge=1)
    """Patches that every trial sees before it may be paused; None for the first report."""


class NoPruner(FrozenConfig):
    """Absence of pruning: every trial is trained to the end."""

    kind: Literal["none"] = "none"


Pruner = Annotated[
    ASHA | PASHA | Hyperband | Median | FreezeThaw | NoPruner, Field(discriminator="kind")
]


def build_pruner(settings: Pruner, *, grace_period: int, budget: int) -> BasePruner:
    """Build Optuna's pruner, or ours, from its settings.

    Args:
        settings: pruner as stated in the search.
        grace_period: patches, if the settings have none.
        budget: patches of a full trial.
    """
    match settings:
        case ASHA():
            first = settings.grace_period or grace_period
            rungs = rung_steps(first, budget=budget, reduction_factor=settings.reduction_factor)
            return SuccessiveHalving(rungs, settings.reduction_factor)
        case PASHA():
            first = settings.grace_period or grace_period
            rungs = rung_steps(first, budget=budget, reduction_factor=settings.reduction_factor)
            return ProgressiveHalving(rungs, settings.reduction_factor)
        case Hyperband():
            return HyperbandPruner(
                min_resource=settings.grace_period or grace_period,
                max_resource=budget,
                reduction_factor=settings.reduction_factor,
            )
        case Median():
            return MedianStoppingRule(settings.grace_period or grace_period)
        case FreezeThaw() | NoPruner():  # a searcher of its own pauses trials
            return NopPruner()


@dataclass
class MedianStoppingRule(BasePruner):
    """Median stopping: prunes a trial whose best value is below the median of others' means.

    The others are all trials that reached the step: running, completed or pruned. Optuna's
    ``MedianPruner`` compares with completed trials that reported at exactly the same step, which
    trials with other batches do not; in replays of recorded searches it cost more.

    Source: Golovin et al., Google Vizier, KDD 2017, section 3.2.1.

    Args:
        grace_period: patches seen before a trial may be pruned.
    """

    grace_period: float

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Decide at a report, if enough other trials have reached its step."""
        step = trial.last_step
        if step is None or step < self.grace_period:
            return False
        others = [
            other.intermediate_values
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number and (other.last_step or -1) >= step
        ]
        before = [[v for at, v in values.items() if at <= step] for values in others]
        sign = direction_sign(study)
        means = [sign * fmean(values) for values in before if values]
        best = max(sign * value for value in trial.intermediate_values.values())
        return len(means) >= MIN_PEERS and best < median(means)


class PrunerWithHistory:
    """Pruner with the reports of a search from its event log, including earlier sessions.

    The reports are kept in an in-memory study of the first objective in their original order, so
    that any Optuna pruner decides after a crash as without one. Trials of a warm start are not
    included.

    Args:
        pruner: any of Optuna's.
        direction: direction of the objective.
        name: name of the search, from which Optuna's Hyperband derives its brackets.
        events: events of the log.
    """

    def __init__(
        self,
        pruner: BasePruner,
        *,
        direction: Literal["maximize", "minimize"],
        name: str,
        events: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        log_warnings_only()
        self._study = optuna.create_study(study_name=name, pruner=pruner, direction=direction)
        self._trials: list[optuna.Trial] = []
        self._latest: dict[int, int] = {}
        self._pruned: set[int] = set()
        self._finished: set[int] = set()
        self._numbers: dict[str, int] = {}
        self.replay(events)

    def should_prune(self, number: int, *, seen: int, value: float) -> bool:
        """Add a report, and return whether its trial should be pruned.

        A repeated report, as after a crash, gets the same decision.
        """
        if seen > self._latest.get(number, -1) and number not in self._finished:
            self._latest[number] = seen
            trial = self._trial(number)
            trial.report(value, seen)
            if trial.should_prune():
                self._pruned.add(number)
        return number in self._pruned

    def train_on(self, number: int, parent: str | None) -> None:
        """Let a trial that trains another on begin with its reports, which were judged before.

        Args:
            number: number of the trial.
            parent: id of the other one; None or an unknown one changes nothing.
        """
        if parent not in self._numbers or number in self._latest:
            return
        origin, trial = self._numbers[parent], self._trial(number)
        trial.set_user_attr(TRAINS_ON_ATTR, origin)
        values = self._study.get_trials(deepcopy=False)[origin].intermediate_values
        for seen, value in values.items():
            trial.report(value, seen)
            self._latest[number] = seen

    def finish(self, number: int, *, completed: bool) -> None:
        """Mark a trial as ended, for pruners that use completed trials."""
        if number in self._finished:
            return
        self._finished.add(number)
        trial = self._trial(number)
        frozen = self._study.get_trials(deepcopy=False)[number]
        if completed and frozen.last_step is not None:
            self._study.tell(trial, frozen.intermediate_values[frozen.last_step])
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def _trial(self, number: int) -> optuna.Trial:
        while len(self._trials) <= number:
            self._trials.append(self._study.ask())
        return self._trials[number]

    def replay(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take in further events of the log, for example those of other processes."""
        numbers = self._numbers
        for event in events:
            match event["event"]:
                case "start" if event.get("kind", "trial") == "trial":
                    numbers[event["trial"]] = event["number"]
                    self.train_on(event["number"], event.get("drawn", {}).get("parent"))
                case "report" if event["trial"] in numbers:
                    number, value = numbers[event["trial"]], event["objective"]
                    self.should_prune(number, seen=event["seen"], value=value)
                case "trial_finished" if event["trial"] in numbers:
                    status = event.get("status")
                    if status in ("completed", "infeasible", "pruned", "collapsed", "diverged"):
                        completed = status != "pruned"
                        self.finish(numbers[event["trial"]], completed=completed)


def check_may_ask(pruner: Pruner, search: str) -> None:
    """Check that trials of a search may be trained by any program, which cannot pause them.

    Raises:
        UserError: if its pruner pauses trials.
    """
    if isinstance(pruner, FreezeThaw):
        raise UserError(
            f"pruner {pruner.kind!r} of search {search!r} pauses trials and resumes them, as only "
            f"hpsearch itself can; train it with `hpsearch resume {search}`, or create a search "
            "with pruner=ASHA()",
            code="pruner-pauses",
        )


def check_sampler(sampler: Sampler, num_objectives: int, pruner: Pruner) -> None:
    """Check that sampler and pruner fit the search and each other.

    Raises:
        UserError: if it cannot.
    """
    if isinstance(pruner, FreezeThaw) and num_objectives > 1:
        raise UserError(
            f"pruner {pruner.kind!r} is for one objective, and this search has {num_objectives}; "
            "set pruner=NoPruner()",
            code="pruner-with-objectives",
        )
    if isinstance(pruner, FreezeThaw) and not isinstance(sampler, GP):
        raise UserError(
            f"pruner {pruner.kind!r} compares trials by the model of sampler 'gp', and this search "
            f"has sampler {sampler.kind!r}; set sampler=GP(), or pruner=ASHA()",
            code="pruner-with-sampler",
        )
    if isinstance(sampler, GP) and num_objectives > 1:
        raise UserError(
            f"sampler {sampler.kind!r} is for one objective, and this search has "
            f"{num_objectives}; use sampler=TPE() or sampler=NSGA2()",
            code="sampler-with-objectives",
        )
    if isinstance(sampler, NSGA2) and not isinstance(pruner, NoPruner):
        raise UserError(
            f"sampler {sampler.kind!r} learns only from trials that are trained to the end, and "
            f"pruner {pruner.kind!r} stops most of them before; set pruner=NoPruner(), or "
            "sampler=TPE(), which learns from all",
            code="sampler-with-pruner",
        )
