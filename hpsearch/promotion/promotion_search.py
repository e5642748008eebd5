"""Search that retrains the best configurations of another search."""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hpsearch.config import TrialConfig
from hpsearch.errors import UserError
from hpsearch.promotion.retraining_plan import (
    PLAN_FILE,
    RetrainingPlan,
    make_plan,
    retraining_search,
)
from hpsearch.search.search_context import SearchContext
from hpsearch.search.stopping import Limits
from hpsearch.search.time_estimate import END_S, run_seconds
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.mlflow_tags import FINGERPRINT_TAG, INPUT_KIND_TAG, SPLIT_TAG

DEFAULT_TOP, DEFAULT_SEEDS = 3, 3
SPACE_TEMPLATE = '''\
"""Configurations of the search named below, retrained with other seeds."""

from pathlib import Path

from hpsearch.search.stopping import Limits
from hpsearch.promotion.retraining_plan import chosen_search

HERE = Path(__file__).absolute().parent
SEARCH = chosen_search(HERE.with_name({parent!r}) / "space.py", HERE / {plan!r})
'''


@dataclass(frozen=True)
class Promotion:
    """Promotion of a search: retraining plan and folder."""

    parent: SearchContext
    plan: RetrainingPlan
    child: SearchContext | None
    """Search of the retrainings; None before the promotion starts."""

    @property
    def seconds_per_training(self) -> float | None:
        """Median seconds of the selected trials, with their start; None if unknown."""
        labels = {one.trial for one in self.plan.selected}
        known = [run_seconds(run) for run in self.parent.runs if run.label in labels]
        return median(known) if any(known) else None

    def seconds_of(self, trainings: int) -> float | None:
        """Estimated seconds of so many trainings, with Ray's start, test scores and registration.

        None if unknown.
        """
        if self.seconds_per_training is None:
            return None
        rounds = -(-trainings // self.concurrency)
        return rounds * self.seconds_per_training + END_S

    @property
    def concurrency(self) -> int:
        """Number of concurrent trainings on this machine, as in the search."""
        record = self.parent.record
        return record.max_concurrent_trials or record.cpus or os.cpu_count() or 1


def prepare(context: SearchContext, *, top: int | None, seeds: int | None) -> Promotion:
    """Open the promotion of a search, or plan it if it has not started.

    Raises:
        UserError: if it started with other numbers, its name is taken, or no trial completed.
    """
    name = f"{context.name}-promotion"
    if not Workspace(context.home).paths(name).folder.exists():
        return Promotion(context, _plan(context, top, seeds), None)
    child = Workspace(context.home).open(name)
    if child.record.space != _space_path(context):
        raise UserError(
            f"a search {name!r} exists, which is the name of the promotion of {context.name!r}; "
            f"rename the folder {child.paths.folder}",
            code="name-in-use",
        )
    child = SearchContext(child.paths, _promotion_record(context, child.record.trials))
    if not (child.paths.folder / PLAN_FILE).exists():
        return Promotion(context, _plan(context, top, seeds), child)
    found = RetrainingPlan.read(child.paths.folder / PLAN_FILE)
    _check_same_plan(found, child, top=top, seeds=seeds)
    return Promotion(context, found, child)


def begin(promotion: Promotion) -> SearchContext:
    """Create the folder of a promotion, unless it exists."""
    parent, child = promotion.parent, promotion.child
    if child is None:
        record = _promotion_record(parent, len(promotion.plan.configs))
        with TemporaryDirectory() as temporary:
            space = Path(temporary) / "space.py"
            space.write_text(SPACE_TEMPLATE.format(parent=parent.name, plan=PLAN_FILE), "utf-8")
            child = Workspace(parent.home).create(f"{parent.name}-promotion", space, record)
    if not (child.paths.folder / PLAN_FILE).exists():
        promotion.plan.write(child.paths.folder / PLAN_FILE)
    return child.with_search(retraining_search(parent.search, promotion.plan))


def _plan(context: SearchContext, top: int | None, seeds: int | None) -> RetrainingPlan:
    objective = context.objective
    return make_plan(
        context.name, context.runs, objective, top=top or DEFAULT_TOP, seeds=seeds or DEFAULT_SEEDS
    )


def _promotion_record(context: SearchContext, trials: int) -> SearchRecord:
    """Record of the promotion: as the search's, without the settings that select points."""
    new = {"space": _space_path(context), "trials": trials, "limits": Limits()}
    return context.record.model_copy(
        update={
            **new,
            "space_path": None,
            "study": None,
            "warm_start_from": None,
            "overrides": {},
        }
    )


def _space_path(context: SearchContext) -> str:
    return f"promotion of {context.name}"


def _check_same_plan(
    plan: RetrainingPlan, child: SearchContext, *, top: int | None, seeds: int | None
) -> None:
    if top not in (None, plan.top) or seeds not in (None, plan.seeds):
        raise UserError(
            f"search {plan.parent!r} is being promoted with --top {plan.top} "
            f"--seeds {plan.seeds}; omit the numbers to resume, or remove "
            f"{child.paths.folder} to "
            "select again",
            code="promotion-in-progress",
        )


def test_terms(context: SearchContext, config: TrialConfig) -> dict[str, str]:
    """Tags that identify the test patches of a configuration of a search."""
    return {
        FINGERPRINT_TAG: context.data.test_store.fingerprint,
        SPLIT_TAG: context.data.test_split.name,
        INPUT_KIND_TAG: config.evaluate_on,
    }
