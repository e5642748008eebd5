"""Retraining plan of a promotion.

The best trial of a search is a maximum over noisy scores and therefore biased upwards. So the best
configurations are retrained, each with several new seeds, and ranked by the mean over seeds of the
objective on validation (``retraining_results.py``). A training that collapses, diverges or fails
counts with the worst value.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

import optuna
from pydantic import Field

from hpsearch.atomic_files import write_atomic
from hpsearch.config import TrialConfig
from hpsearch.config.base import FrozenConfig
from hpsearch.errors import UserError
from hpsearch.schema import from_json, to_json
from hpsearch.search.objective import Objective
from hpsearch.search.overrides import with_overrides
from hpsearch.search.pruners import NoPruner
from hpsearch.search.samplers import Fixed
from hpsearch.search.search import Search
from hpsearch.search.search_context import SearchContext
from hpsearch.search.search_record import PLAN_FILE, SearchRecord
from hpsearch.search.space_file import load_search
from hpsearch.search.workspace import resume_command
from hpsearch.tracking.run_state import Run, mean_by_seed
from hpsearch.untrusted import reading

MAX_SEEDS = 1_000
"""Most trainings of a configuration."""


class SelectedConfig(FrozenConfig):
    """Configuration that is selected for retraining."""

    trial: str
    """Label of the configuration's best trial."""
    objective: float
    """Mean objective over its seeds in the search, before retraining."""
    config: TrialConfig
    """Configuration with the highest seed that it was trained with."""


class RetrainingScale(FrozenConfig):
    """Scale of the retrainings where it differs from that of the search; None as in the search."""

    budget: int | None = Field(default=None, ge=1)
    """Patches seen by each training."""
    width: float | None = Field(default=None, gt=0)
    """Width of the descriptor network."""
    data: str | None = None
    """Name of another patch set."""

    @property
    def suffix(self) -> str:
        """Suffix of the promotion's name; empty at the scale of the search."""
        parts = (
            None if self.budget is None else f"-{self.budget}",
            None if self.width is None else f"-w{self.width:g}",
            None if self.data is None else f"-{self.data}",
        )
        return "".join(part for part in parts if part is not None)

    def apply(self, config: TrialConfig) -> TrialConfig:
        """Copy of a configuration at this scale.

        Raises:
            UserError: if the descriptor has no such width.
        """
        changes: dict[str, Any] = {} if self.budget is None else {"patches": self.budget}
        if self.width is not None:
            if not hasattr(config.descriptor, "width"):
                raise UserError(
                    f"descriptor {config.descriptor.kind!r} has no width; omit --width",
                    code="no-width",
                )
            changes["descriptor"] = {**config.descriptor.model_dump(), "width": self.width}
        return TrialConfig.model_validate({**config.model_dump(), **changes})


SAME_SCALE = RetrainingScale()


class RetrainingPlan(FrozenConfig):
    """Configurations and seeds that a promotion trains."""

    former_names: ClassVar[Mapping[str, str]] = {"selected": "chosen"}

    parent: str
    """Name of the search."""
    top: int
    """Number of configurations requested; ``selected`` may be shorter."""
    seeds: int
    selected: tuple[SelectedConfig, ...]
    """Selected configurations, best first, as they were in the search."""
    scale: RetrainingScale = SAME_SCALE
    gates: tuple[str, ...] = ()
    """Limits that the network must keep to become champion, in addition to those of the search."""

    @property
    def configs(self) -> list[TrialConfig]:
        """Configurations of all trainings: each with its first new seed, then with the next."""
        return [
            self.config(one, one.config.seed + repeat)
            for repeat in range(1, self.seeds + 1)
            for one in self.selected
        ]

    def config(self, selected: SelectedConfig, seed: int) -> TrialConfig:
        """Configuration of a training of a selected configuration."""
        return self.scale.apply(selected.config).model_copy(update={"seed": seed})

    @classmethod
    def read(cls, path: Path) -> "RetrainingPlan":
        """Read a plan from its file.

        Raises:
            UserError: if the file is damaged, or a newer hpsearch wrote it.
        """
        remedy = "restore it, or remove its folder and promote again"
        with reading(path, "plan of a promotion", remedy):
            return cls.model_validate(from_json(path.read_text("utf-8"), path))

    def write(self, path: Path) -> None:
        """Write the plan to a file atomically."""
        write_atomic(path, to_json(self.model_dump(mode="json"), indent=1))


def make_plan(
    search: str,
    runs: Sequence[Run],
    objective: Objective,
    *,
    top: int,
    seeds: int,
    scale: RetrainingScale = SAME_SCALE,
) -> RetrainingPlan:
    """Select the best configurations of a search that completed a trial.

    Args:
        search: name of the search.
        runs: runs of the search.
        objective: objective of the search.
        top: maximum number of configurations.
        seeds: trainings per configuration, at least 1, with seeds that the search has not used.
        scale: budget and width of the trainings.

    Raises:
        UserError: if no trial completed, or a configuration does not exist at that scale.
    """
    if seeds > MAX_SEEDS:
        raise UserError(
            f"{seeds} trainings of each configuration are too many; ask for at most {MAX_SEEDS:,}",
            code="too-many-seeds",
        )
    groups: dict[TrialConfig, list[Run]] = {}
    for run in runs:
        if run.kind == "trial" and run.status == "completed":
            groups.setdefault(run.config.model_copy(update={"seed": 0}), []).append(run)
    if not groups:
        raise UserError(
            f"no trial of search {search!r} completed, so there is nothing to promote; finish the "
            "search, or widen its space",
            code="no-completed-trial",
        )
    chosen = [_select(trials, objective) for trials in groups.values()]
    chosen.sort(key=lambda one: one.objective, reverse=objective.direction == "maximize")
    plan = RetrainingPlan(
        parent=search,
        top=top,
        seeds=seeds,
        selected=tuple(chosen[:top]),
        scale=scale,
    )
    _ = plan.configs  # each is checked
    return plan


def chosen_search(parent: Path, plan_file: Path) -> Search:
    """Load the search of a promotion; its space file calls this.

    Args:
        parent: space file of the search that is promoted.
        plan_file: file of the plan.
    """
    plan = RetrainingPlan.read(plan_file)
    overrides = SearchRecord.read(parent.parent).overrides
    return retraining_search(with_overrides(load_search(parent), overrides), plan)


def all_gates(parent: Search, plan: RetrainingPlan) -> tuple[str, ...]:
    """Limits that a champion keeps: constraints and gates of the search, and those of the plan."""
    return tuple(dict.fromkeys((*parent.constraints, *parent.gates, *plan.gates)))


def retraining_search(parent: Search, plan: RetrainingPlan) -> Search:
    """Search of the configurations of a plan, without pruning.

    Args:
        parent: the search that is promoted.
        plan: configurations to retrain.
    """
    configs = plan.configs

    def suggest(trial: optuna.Trial) -> TrialConfig:
        return configs[trial.suggest_int("training", 0, len(configs) - 1)]

    return parent.with_changes(
        **_budget_changes(parent, plan.scale.budget),
        suggest=suggest,
        trials=len(configs),
        sampler=Fixed(points=tuple({"training": number} for number in range(len(configs)))),
        initial_points=(),
        seeds_per_point=1,
        pruner=NoPruner(),
        extra_objectives=(),
        constraints=(),  # at another width they are gates, and no reason to stop
        gates=all_gates(parent, plan),
        num_folds=None,
        warm_start_from=None,
        patience=None,
        time_limit=None,
    )


def _budget_changes(parent: Search, budget: int | None) -> dict[str, Any]:
    """Settings of a search with another budget and as many reports."""
    if budget is None:
        return {}
    return {
        "budget": budget,
        "report_every": max(1, round(parent.report_every * budget / parent.budget)),
        "baseline": parent.baseline.model_copy(update={"patches": budget}),
    }


def check_not_promotion(context: SearchContext) -> None:
    """Check that a search is not one of a promotion, which finishes differently.

    Raises:
        UserError: if it is.
    """
    if (context.paths.folder / PLAN_FILE).exists():
        name = RetrainingPlan.read(context.paths.folder / PLAN_FILE).parent
        raise UserError(
            f"{context.name!r} is the promotion of search {name!r}; resume it with "
            f"`{resume_command(context)}`",
            code="search-is-promotion",
        )


def _select(trials: list[Run], objective: Objective) -> SelectedConfig:
    values = [final_objective(run, objective) for run in trials]
    pick = max if objective.direction == "maximize" else min
    best = trials[values.index(pick(values))]
    seed = max(run.config.seed for run in trials)
    config = best.config.model_copy(update={"seed": seed})
    objective_mean = fmean(mean_by_seed(zip(trials, values, strict=True)))
    return SelectedConfig(trial=best.label, objective=objective_mean, config=config)


def final_objective(run: Run, objective: Objective) -> float:
    """Objective of a run at its end; the worst value if it did not complete."""
    completed = run.status == "completed" and run.reports
    return float(run.reports[-1]["objective"]) if completed else objective.worst
