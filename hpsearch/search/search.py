"""A search: what may vary, what counts, how to sample and when to stop."""

import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import optuna

from hpsearch.config import AS_FOUND, Computing, TrialConfig
from hpsearch.config.formatting import Flat, flatten
from hpsearch.errors import UserError
from hpsearch.search.grid import check_point, combinations
from hpsearch.search.objective import MEAN_MAP, Objective
from hpsearch.search.pruners import SchedulerName
from hpsearch.search.resources import ONE_CPU, Resources
from hpsearch.search.samplers import LISTED, SamplerName


def drawn(
    suggest: Callable[[optuna.Trial], TrialConfig], trial: optuna.Trial, *, budget: int
) -> TrialConfig:
    """What ``suggest`` gives, checked to be what a search can use.

    Raises:
        UserError: if ``suggest`` raises, returns something else, or disagrees on the budget.
    """
    try:
        config = suggest(trial)
    except UserError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"suggest raised {type(error).__name__} at {Path(where.filename).name}:"
            f"{where.lineno} ({first_line(error)}); mend the space and run it again"
        ) from error
    if not isinstance(config, TrialConfig):
        raise UserError(f"suggest must return a TrialConfig, but returned {type(config).__name__}")
    if config.patches != budget:
        raise UserError(
            f"suggest set patches={config.patches}, but the search's budget is {budget}; "
            "pass patches=BUDGET in suggest so that every trial costs the same"
        )
    return config


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else "no message"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a file in ``search_spaces/`` exports as ``SEARCH``.

    Attributes:
        suggest: draws one configuration; conditions are ``if``s, what follows is computed.
        budget: patches that a full trial sees.
        report_every: patches between two reports; a report costs a validation.
        trials: how many to train, repeats with other seeds included; None for all there are, if
            the sampler is ``grid`` or ``chosen``.
        baseline: trained for the same budget, as a yardstick for the winner.
        objective: what counts, measured on validation sequences.
        also: further objectives. The search then looks for trials that no other beats in all of
            them; its winner is the best of these in ``objective``.
        scheduler: who is stopped early: ``asha`` (successive halving), ``hyperband`` (the same in
            brackets that begin to stop later and later), ``median`` (who is below the median of
            the others) or ``none``; by default ASHA, if there is one objective and there are
            reports before the budget.
        grace: patches that every trial may see before it may be stopped.
        reduction: at each rung, the best 1/reduction go on.
        folds: validate on each training sequence once, in so many folds, each trained for its
            share of the budget; the objective is the mean over the folds so far, reported as each
            ends.
        resources: what a trial asks for; found from the cluster, where it is None.
        sampler: ``tpe`` (also for several objectives and conditional spaces), ``random``, ``gp``
            (Gaussian process; slow above a few hundred trials), ``nsga2`` (several objectives),
            ``grid`` (every combination once; nothing may be continuous) or ``chosen`` (the points
            in ``first`` and no other).
        seeds: how often each point is trained, with training seeds 0, 1 … (added to the seed that
            ``suggest`` sets, if it sets one).
        first: points to try first, as parameter values by the names that ``suggest`` uses; the
            sampler draws what a point leaves out.
        warm_from: an earlier search whose trials the sampler is told of before it begins.
        patience: trials that may end in a row without an improvement before no more are begun,
            counted anew when the search is extended; None for no limit.
        data: a set by name (``mini``, ``tiny``) or the path of a patch store.
        validation_points: points of each validation sequence that a report is scored on.
        time_limit: seconds after which no trial goes on; None for no limit.
        computing: device, precision, compilation and determinism of every trial.
        seed: of the sampler.
    """

    suggest: Callable[[optuna.Trial], TrialConfig]
    budget: int
    report_every: int
    trials: int | None = None
    baseline: TrialConfig
    objective: Objective = MEAN_MAP
    also: Sequence[Objective] = ()
    scheduler: SchedulerName | None = None
    grace: int | None = None
    reduction: float = 3
    folds: int | None = None
    resources: Resources = ONE_CPU
    sampler: SamplerName = "tpe"
    seeds: int = 1
    first: Sequence[Mapping[str, Any]] = ()
    warm_from: str | None = None
    patience: int | None = None
    data: str = "mini"
    validation_points: int = 64
    time_limit: float | None = None
    computing: Computing = AS_FOUND
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_sampling()
        self._check_stopping()

    def _check_stopping(self) -> None:
        if not 0 < self.report_every <= self.budget:
            raise UserError(
                f"report_every must lie between 1 and the budget of {self.budget} patches, "
                f"got {self.report_every}"
            )
        if self.folds is not None and not 2 <= self.folds <= self.budget:
            raise UserError(f"folds must be 2 or more, or None; got {self.folds}")
        if self.scheduler not in (None, *get_args(SchedulerName)):
            known = ", ".join(get_args(SchedulerName))
            raise UserError(f"there is no scheduler {self.scheduler!r}; choose one of {known}")
        if self.reduction <= 1:
            raise UserError(f"reduction must be above 1, got {self.reduction}")
        if not self.first_report <= self.first_rung <= self.budget:
            raise UserError(
                f"grace must lie between the first report at {self.first_report} patches and the "
                f"budget of {self.budget}, got {self.grace}"
            )
        if self.scheduler not in (None, "none") and self.first_rung == self.budget:
            raise UserError(
                f"{self.scheduler} has no rung: every trial may see {self.first_rung} patches, "
                "which is the whole budget; lower grace or report_every, or set scheduler='none'"
            )

    def _check_sampling(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise UserError(f"a search needs at least one trial, got trials={self.trials}")
        if self.sampler not in get_args(SamplerName):
            known = ", ".join(get_args(SamplerName))
            raise UserError(f"there is no sampler {self.sampler!r}; choose one of {known}")
        if self.trials is None and not self.listed:
            raise UserError(f"sampler {self.sampler!r} never ends; set trials to how many to train")
        if self.sampler == "chosen" and not self.first:
            raise UserError("sampler 'chosen' tries the points in first, but first is empty")
        if self.sampler == "grid" and self.first:
            raise UserError("sampler 'grid' tries every combination anyway; leave first out")
        if self.seeds < 1:
            raise UserError(f"each point is trained at least once, got seeds={self.seeds}")
        if self.patience is not None and self.patience < 1:
            raise UserError(f"patience must be at least one trial, got {self.patience}")
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise UserError(f"the objectives must differ, got {', '.join(names)}")

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All that counts; the first decides who wins."""
        return (self.objective, *self.also)

    @property
    def listed(self) -> bool:
        """Whether all points are known before the search begins."""
        return self.sampler in LISTED

    @cached_property
    def planned(self) -> Sequence[Mapping[str, Any]]:
        """The points to begin with; all there are, if ``listed``.

        Raises:
            UserError: if the space is no grid, but the sampler is.
        """
        return combinations(self.draw) if self.sampler == "grid" else self.first

    def total(self, asked: int | None = None) -> int:
        """How many trials there are to train, if ``asked`` are asked for instead of ``trials``.

        Raises:
            UserError: if the space is no grid, but the sampler is.
        """
        asked = asked or self.trials
        if not self.listed:
            assert asked is not None, "checked at birth"
            return asked
        there_are = self.seeds * len(self.planned)
        return there_are if asked is None else min(asked, there_are)

    @property
    def stopping(self) -> SchedulerName:
        """The scheduler by name."""
        if self.scheduler is not None:
            return self.scheduler
        ranked = not self.also  # trials with several objectives have no order to stop by
        return "asha" if ranked and self.first_rung < self.budget else "none"

    @property
    def first_report(self) -> int:
        """Patches that a trial has seen when it first reports."""
        return self.report_every if self.folds is None else self.budget // self.folds

    @property
    def first_rung(self) -> int:
        """Patches before a trial may be stopped."""
        return self.first_report if self.grace is None else self.grace

    def draw(self, trial: optuna.Trial, *, repeat: int = 0) -> TrialConfig:
        """One configuration, checked to be what a search can use.

        Args:
            repeat: added to the training seed.

        Raises:
            UserError: if ``suggest`` raises, returns something else, or disagrees on the budget.
        """
        config = drawn(self.suggest, trial, budget=self.budget)
        return config.model_copy(update={"seed": config.seed + repeat}) if repeat else config

    def rehearse(self, draws: int = 8) -> None:
        """Draw a few configurations, so that a mistake in the space shows before Ray starts.

        Raises:
            UserError: as ``draw``.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed))
        for _ in range(draws):
            self.draw(study.ask())
        for point in self.first:
            check_point(self.draw, point, whole=self.listed)
        self.total()


def load_search(path: Path) -> Search:
    """Run a space file and take its ``SEARCH``.

    Raises:
        UserError: if there is no such file, it does not run, or it exports no Search.
    """
    if not path.is_file():
        raise UserError(f"there is no search space at {path}; pass the path of a Python file")
    module_name = f"hpsearch_space_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file; a search space ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickling look their module up by name
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{path.name}: {error}") from error
    except Exception as error:
        raise UserError(
            f"{path} does not run: {type(error).__name__}: {first_line(error)}"
        ) from error
    search = getattr(module, "SEARCH", None)
    if not isinstance(search, Search):
        raise UserError(f"{path} must export SEARCH = Search(...), found {type(search).__name__}")
    return search


DRAWS = 64


def constants(search: Search, *, draws: int = DRAWS) -> dict[str, Flat]:
    """Settings that have one value wherever they occur among configurations drawn at random.

    A setting that follows from its variant is such a one. A rare value may be missed; who uses this
    compares each trial with the values.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=search.seed))
    for point in search.first:
        study.enqueue_trial(dict(point))
    seen: dict[str, set[Flat]] = {}
    for _ in range(draws + len(search.first)):
        for name, value in flatten(search.draw(study.ask())).items():
            seen.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in seen.items() if len(values) == 1}
