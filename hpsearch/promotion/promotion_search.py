"""Search that retrains the best configurations of another search."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hpsearch.config import TrialConfig
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.promotion.retraining_plan import (
    PLAN_FILE,
    SAME_SCALE,
    RetrainingPlan,
    RetrainingScale,
    make_plan,
    retraining_search,
)
from hpsearch.search.constraints import parse_constraints
from hpsearch.search.search_context import SearchContext
from hpsearch.search.search_data import SearchData
from hpsearch.search.search_record import PROMOTION_OF
from hpsearch.search.stopping import Limits
from hpsearch.search.time_estimate import END_S, run_seconds
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.mlflow_tags import FINGERPRINT_TAG, INPUT_KIND_TAG, SPLIT_TAG
from hpsearch.untrusted import check_name

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
    store: PatchStore | None = None
    """Other patches to train, validate and test on; None for those of the search."""

    @property
    def name(self) -> str:
        """Name of the search of the retrainings."""
        return promotion_name(self.parent, self.plan.scale)

    @property
    def data(self) -> SearchData:
        """Patches that the trainings use."""
        return self.parent.data if self.store is None else SearchData.divide(self.store, "auto")

    @property
    def budget(self) -> int:
        """Patches seen by each training."""
        return self.plan.scale.budget or self.parent.search.budget

    @property
    def seconds_per_training(self) -> float | None:
        """Median seconds of the selected trials, with their start, at the budget of the plan.

        None if unknown, as at another width.
        """
        labels = {one.trial for one in self.plan.selected}
        known = [run_seconds(run) for run in self.parent.runs if run.label in labels]
        if self.plan.scale.width is not None or not any(known):
            return None
        return median(known) * self.budget / self.parent.search.budget

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


def promotion_name(context: SearchContext, scale: RetrainingScale) -> str:
    """Name of the promotion of a search at a scale."""
    return f"{context.name}-promotion{scale.suffix}"


def prepare(
    context: SearchContext,
    *,
    top: int | None,
    seeds: int | None,
    scale: RetrainingScale = SAME_SCALE,
    store: PatchStore | None = None,
    gates: Sequence[str] = (),
) -> Promotion:
    """Open the promotion of a search, or plan it if it has not started.

    Args:
        context: the search.
        top: number of configurations to retrain.
        seeds: trainings of each.
        scale: budget and width of the trainings; each scale has a promotion of its own.
        store: other patches to train, validate and test on.
        gates: limits that the network must keep to become champion.

    Raises:
        UserError: if it started with other numbers, its name is taken, or no trial completed.
    """
    name = check_name(promotion_name(context, scale), "a search")
    if not Workspace(context.home).paths(name).folder.exists():
        return Promotion(context, _plan(context, top, seeds, scale, gates), None, store)
    child = Workspace(context.home).open(name)
    if child.record.space != _space_path(context):
        raise UserError(
            f"a search {name!r} exists, which is the name of the promotion of {context.name!r}; "
            f"rename the folder {child.paths.folder}",
            code="name-in-use",
        )
    if store is not None and child.record.fingerprint != store.fingerprint:
        raise UserError(
            f"{name!r} was started with other patches of that name (fingerprint "
            f"{child.record.fingerprint[:12]}, now {store.fingerprint[:12]}); rename the store",
            code="other-patches",
        )
    child = SearchContext(child.paths, _promotion_record(context, child.record.trials, store))
    if not (child.paths.folder / PLAN_FILE).exists():
        return Promotion(context, _plan(context, top, seeds, scale, gates), child, store)
    found = RetrainingPlan.read(child.paths.folder / PLAN_FILE)
    _check_same_plan(found, child, top=top, seeds=seeds)
    if gates:  # they decide at the end, so another call may change them
        parse_constraints(gates, gate=True)
        found = found.model_copy(update={"gates": tuple(gates)})
    return Promotion(context, found, child, store)


def begin(promotion: Promotion) -> SearchContext:
    """Create the folder of a promotion, unless it exists."""
    parent, child = promotion.parent, promotion.child
    if child is None:
        record = _promotion_record(parent, len(promotion.plan.configs), promotion.store)
        with TemporaryDirectory() as temporary:
            space = Path(temporary) / "space.py"
            space.write_text(SPACE_TEMPLATE.format(parent=parent.name, plan=PLAN_FILE), "utf-8")
            child = Workspace(parent.home).create(promotion.name, space, record)
    plan_file = child.paths.folder / PLAN_FILE
    if not plan_file.exists() or RetrainingPlan.read(plan_file).gates != promotion.plan.gates:
        promotion.plan.write(child.paths.folder / PLAN_FILE)
    return child.with_search(retraining_search(parent.search, promotion.plan))


def _plan(
    context: SearchContext,
    top: int | None,
    seeds: int | None,
    scale: RetrainingScale,
    gates: Sequence[str],
) -> RetrainingPlan:
    top, seeds = top or DEFAULT_TOP, seeds or DEFAULT_SEEDS
    parse_constraints(gates, gate=True)
    objective = context.objective
    plan = make_plan(context.name, context.runs, objective, top=top, seeds=seeds, scale=scale)
    return plan.model_copy(update={"gates": tuple(gates)})


def _promotion_record(
    context: SearchContext, trials: int, store: PatchStore | None
) -> SearchRecord:
    """Record of the promotion: as the search's, without the settings that select points."""
    new = {"space": _space_path(context), "trials": trials, "limits": Limits()}
    if store is not None:
        new |= {
            "store": str(store.path.absolute()),
            "fingerprint": store.fingerprint,
            "split": "auto",
            **dict.fromkeys(("validation_store", "validation_fingerprint")),
            **dict.fromkeys(("test_store", "test_fingerprint")),
        }
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
    return f"{PROMOTION_OF}{context.name}"


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


def test_terms(data: SearchData, config: TrialConfig) -> dict[str, str]:
    """Tags that identify the test patches that a configuration is evaluated on."""
    return {
        FINGERPRINT_TAG: data.test_store.fingerprint,
        SPLIT_TAG: data.test_split.name,
        INPUT_KIND_TAG: config.evaluate_on,
    }
