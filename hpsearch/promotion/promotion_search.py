"""Where a promotion lives: a search of its own beside the one it promotes."""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hpsearch.errors import UserError
from hpsearch.promotion.retraining_plan import PLAN_FILE, RetrainingPlan, make_plan
from hpsearch.search.stopping import Limits
from hpsearch.search.workspace import SearchFolder, SearchRecord

DEFAULT_TOP, DEFAULT_SEEDS = 3, 3
SPACE_TEMPLATE = '''\
"""Configurations of the search named below, trained again with other seeds."""

from pathlib import Path

from hpsearch.search.stopping import Limits
from hpsearch.promotion.retraining_plan import chosen_search

HERE = Path(__file__).absolute().parent
SEARCH = chosen_search(HERE.with_name({parent!r}) / "space.py", HERE / {plan!r})
'''


@dataclass(frozen=True)
class Promotion:
    """What is trained again, and where."""

    parent: SearchFolder
    plan: RetrainingPlan
    child: SearchFolder | None
    """None if it has not begun."""

    @property
    def seconds_per_training(self) -> float | None:
        """What one training took in the search, as the median of those chosen; None if unknown."""
        labels = {one.trial for one in self.plan.selected}
        runs = [run for run in self.parent.runs() if run.label in labels and run.reports]
        known = [run.reports[-1]["seconds"] for run in runs if "seconds" in run.reports[-1]]
        return median(known) if known else None

    @property
    def concurrency(self) -> int:
        """Trainings at once on this machine, as in the search."""
        record = self.parent.record
        return record.max_concurrent_trials or record.cpus or os.cpu_count() or 1


def prepare(folder: SearchFolder, *, top: int | None, seeds: int | None) -> Promotion:
    """The promotion of a search: as it was begun, or as it would begin now.

    Raises:
        UserError: if it was begun with other numbers, or its name is taken, or no trial completed.
    """
    name = f"{folder.name}-promotion"
    if not folder.workspace.folder(name).exists():
        return Promotion(folder, _plan(folder, top, seeds), None)
    child = folder.workspace.open(name)
    if child.record.space != _space_path(folder):
        raise UserError(
            f"search {name!r} is in the way of the promotion of {folder.name!r}; rename the folder "
            f"{child.path}"
        )
    child = SearchFolder(
        child.workspace, child.path, _promotion_record(folder, child.record.trials)
    )
    if not (child.path / PLAN_FILE).exists():
        return Promotion(folder, _plan(folder, top, seeds), child)
    found = RetrainingPlan.read(child.path / PLAN_FILE)
    _check_same_plan(found, child, top=top, seeds=seeds)
    return Promotion(folder, found, child)


def begin(promotion: Promotion) -> SearchFolder:
    """Make the folder of a promotion, unless it is there."""
    parent, child = promotion.parent, promotion.child
    if child is None:
        record = _promotion_record(parent, len(promotion.plan.configs))
        with TemporaryDirectory() as temporary:
            space = Path(temporary) / "space.py"
            space.write_text(SPACE_TEMPLATE.format(parent=parent.name, plan=PLAN_FILE))
            child = parent.workspace.create(f"{parent.name}-promotion", space, record)
    if not (child.path / PLAN_FILE).exists():
        promotion.plan.write(child.path / PLAN_FILE)
    return child


def _plan(folder: SearchFolder, top: int | None, seeds: int | None) -> RetrainingPlan:
    objective = folder.search().objective
    return make_plan(
        folder.name, folder.runs(), objective, top=top or DEFAULT_TOP, seeds=seeds or DEFAULT_SEEDS
    )


def _promotion_record(folder: SearchFolder, trials: int) -> SearchRecord:
    """As the search, without what decides which points it tries."""
    new = {"space": _space_path(folder), "trials": trials, "limits": Limits()}
    return folder.record.model_copy(
        update={**new, "space_path": None, "study": None, "warm_start_from": None}
    )


def _space_path(folder: SearchFolder) -> str:
    return f"promotion of {folder.name}"


def _check_same_plan(
    plan: RetrainingPlan, child: SearchFolder, *, top: int | None, seeds: int | None
) -> None:
    if top not in (None, plan.top) or seeds not in (None, plan.seeds):
        raise UserError(
            f"search {plan.parent!r} is being promoted with --top {plan.top} "
            f"--seeds {plan.seeds}; leave the numbers out to go on, or remove {child.path} to "
            "choose again"
        )
