"""Description of a search: space, objective, sampler, pruner and limits."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from pydantic import Field, PrivateAttr, model_validator

from hpsearch.config import DEFAULT_COMPUTE, ComputeConfig, TrialConfig
from hpsearch.config.base import FrozenConfig, old_names_silent
from hpsearch.config.custom import custom_parts
from hpsearch.config.custom_import import pinned
from hpsearch.config.custom_source import SpaceFolder
from hpsearch.errors import UserError
from hpsearch.search.constraints import Constraint, parse_constraints
from hpsearch.search.grid import (
    check_storable,
    enumerate_grid,
    validate_point,
    varying_names,
    varying_remark,
)
from hpsearch.search.objective import MEAN_MAP, Objective
from hpsearch.search.old_spellings import read_old_spellings
from hpsearch.search.prior_sampler import Near, require_prior
from hpsearch.search.pruners import ASHA, NoPruner, Pruner, check_sampler
from hpsearch.search.resources import ONE_CPU, Resources
from hpsearch.search.samplers import (
    NSGA2,
    TPE,
    Fixed,
    Grid,
    Sampler,
    log_warnings_only,
)
from hpsearch.search.space_errors import check_suggested, is_storage_error, suggest_error

MAX_TRIALS = 1_000_000
"""Most trials of a search; its state and its estimates hold all of them."""
NUM_DRAWS = 64
Distributions = Mapping[str, BaseDistribution]


class Search(FrozenConfig):
    """Description of a search, which a file in ``search_spaces/`` exports as ``SEARCH``.

    Example:
        >>> from hpsearch.config import SGD, TrialConfig
        >>> def suggest(trial):
        ...     lr = trial.suggest_float("lr", 0.01, 1, log=True)
        ...     return TrialConfig(optimizer=SGD(lr=lr), patches=48_000)
        >>> search = Search(
        ...     suggest=suggest, budget=48_000, report_every=12_000, trials=16,
        ...     pruner=ASHA(reduction_factor=3), baseline=TrialConfig(patches=48_000),
        ... )
    """

    suggest: Callable[[optuna.Trial], TrialConfig]
    """Function that draws one configuration; conditions are ``if`` statements."""
    budget: int = Field(ge=1)
    """Patches of a full trial."""
    report_every: int
    """Patches between two reports; each report runs a validation."""
    trials: int | None = Field(default=None, ge=1)
    """Trials to train, repeats with other seeds included; None for all points of a finite sampler
    (``Grid`` or ``Fixed``)."""
    baseline: TrialConfig
    """Configuration that is trained for the same budget and compared with the winner."""
    objective: Objective = MEAN_MAP
    """Metric that is optimized, measured on validation sequences."""
    extra_objectives: tuple[Objective, ...] = ()
    """Further objectives. The search then looks for the Pareto front; its winner is the best of the
    front in ``objective``."""
    constraints: tuple[str, ...] = ()
    """Limits such as ``us_per_patch < 20`` at a trial's end; one that violates some cannot win."""
    gates: tuple[str, ...] = ()
    """Limits of a champion alone, such as ``task_drop < 0.01`` (loss in the mAP of a task)."""
    pruner: Pruner | None = None
    """Pruner of trials; if None, ASHA for a search with one objective and a report before the
    budget."""
    num_folds: int | None = Field(default=None, ge=2)
    """Folds of a cross-validation over the training sequences, each trained for its share of the
    budget; the objective is the mean over the folds so far, reported as each ends."""
    resources: Resources = ONE_CPU
    """Resources of a trial; those that are None are derived from the cluster."""
    sampler: Sampler = TPE()
    seeds_per_point: int = Field(default=1, ge=1)
    """Trials of each point, with training seeds 0, 1 … (added to the seed that ``suggest`` sets, if
    it sets one)."""
    initial_points: tuple[Mapping[str, Any], ...] = ()
    """Points to try first, as parameter values by the names that ``suggest`` uses; the sampler
    draws the values that a point omits."""
    prior: Mapping[str, Near] = Field(default_factory=dict)
    """Values that are probably good, by name, such as ``{"lr": 1e-3}``; a share of the trials is
    drawn near them, and less where the best trials contradict them."""
    warm_start_from: str | None = None
    """Earlier search whose trials the sampler starts with."""
    patience: int | None = Field(default=None, ge=1)
    """Trials in a row without an improvement after which no more are started, counted from 0 when
    the search is extended; None for no limit."""
    data: str = "mini"
    """Data set by name (``mini``, ``tiny``), or path of a patch store."""
    validation_data: str | None = None
    """Data set to validate on, apart from its test part; that of ``data`` if None."""
    test_data: str | None = None
    """Data set whose test part winner and baselines are evaluated on; that of ``data`` if None."""
    validation_points: int = 64
    """Points of each validation sequence that a report is evaluated on."""
    time_limit: float | None = None
    """Seconds after which all trials are interrupted; None for no limit."""
    compute: ComputeConfig = DEFAULT_COMPUTE
    """Device, precision, compilation and determinism of every trial."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler, in [0, 2³²)."""

    _folder: SpaceFolder | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _read_old_spellings(cls, values: Any) -> Any:
        return read_old_spellings(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _check_sampling(self) -> "Search":
        if self.trials is None and not self.is_finite:
            raise UserError(
                f"sampler {self.sampler.kind!r} needs a number of trials; set trials",
                code="missing-trials",
            )
        if self.initial_points and self.is_finite:
            raise UserError(
                f"sampler {self.sampler.kind!r} has its own points; leave initial_points out",
                code="conflicting-points",
            )
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise UserError(f"the objectives must differ, got {', '.join(names)}")
        _ = self.limits, self.promotion_gates
        return self

    @model_validator(mode="after")
    def _check_reports(self) -> "Search":
        if not 0 < self.report_every <= self.budget:
            raise UserError(
                f"report_every must lie between 1 and the budget of {self.budget} patches, "
                f"got {self.report_every}"
            )
        if self.num_folds is not None and self.validation_data is not None:
            raise UserError(
                "num_folds validates on the training sequences in turn; leave validation_data out",
                code="folds-with-validation-data",
            )
        if self.num_folds is not None and self.num_folds > self.budget:
            raise UserError(f"num_folds must be below the budget, got {self.num_folds}")
        if not self.first_report <= self.grace_patches <= self.budget:
            raise UserError(
                f"grace_period must lie between the first report at {self.first_report} patches "
                f"and the budget of {self.budget}, got {self.grace_patches}",
                code="invalid-grace-period",
            )
        if not isinstance(self.pruner, NoPruner | None) and self.grace_patches == self.budget:
            raise UserError(
                f"pruner {self.pruner.kind!r} has no rung: its grace period of "
                f"{self.grace_patches} patches is the whole budget; lower grace_period or "
                "report_every, or set pruner=NoPruner()",
                code="no-rung",
            )
        return self

    def with_changes(self, **fields: Any) -> "Search":
        """Copy of the search with other settings, validated again."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self)(**own | fields).from_folder(self._folder)

    def from_folder(self, folder: SpaceFolder | None) -> "Search":
        """This search, whose own objects come from a folder, unless it has one already.

        Raises:
            UserError: if an object of the baseline has no module there.
        """
        if folder is None or self._folder is not None:
            return self
        new = self.model_copy(update={"baseline": pinned(self.baseline, folder)})
        new._folder = folder
        return new

    @property
    def folder(self) -> SpaceFolder | None:
        """Folder of the space file that it was read from; None if it was defined in Python."""
        return self._folder

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives; the first selects the winner."""
        return (self.objective, *self.extra_objectives)

    @cached_property
    def limits(self) -> tuple[Constraint, ...]:
        """Constraints of the search, parsed."""
        return parse_constraints(self.constraints)

    @cached_property
    def promotion_gates(self) -> tuple[Constraint, ...]:
        """Limits that a champion keeps: the constraints and the gates, parsed."""
        return parse_constraints(dict.fromkeys((*self.constraints, *self.gates)), gate=True)

    @property
    def is_finite(self) -> bool:
        """True if all points are known before the search starts."""
        return isinstance(self.sampler, Grid | Fixed)

    @cached_property
    def planned_points(self) -> Sequence[Mapping[str, Any]]:
        """Points to start with; all points, if the sampler is finite.

        Raises:
            UserError: if the sampler is a grid and the space is continuous.
        """
        match self.sampler:
            case Grid():
                return enumerate_grid(self.suggest_config)
            case Fixed(points=points):
                return points
            case _:
                return self.initial_points

    def num_trials(self, requested: int | None = None) -> int:
        """Number of trials to train; ``requested`` replaces ``trials``.

        Raises:
            UserError: if the sampler is a grid and the space is continuous, or there are too many.
        """
        wanted = requested or self.trials
        if wanted is not None and wanted > MAX_TRIALS:
            raise UserError(
                f"{wanted} trials are too many; ask for at most {MAX_TRIALS:,}",
                code="too-many-trials",
            )
        if wanted is not None and not self.is_finite:
            return wanted
        available = self.seeds_per_point * len(self.planned_points)
        return available if wanted is None else min(wanted, available)

    @property
    def active_pruner(self) -> Pruner:
        """Pruner, by default ASHA if trials can be compared before they end."""
        if self.pruner is not None:
            return self.pruner
        # several objectives give no order to prune by
        comparable = not self.extra_objectives and self.first_report < self.budget
        return ASHA() if comparable else NoPruner()

    @property
    def first_report(self) -> int:
        """Patches seen at a trial's first report."""
        return self.report_every if self.num_folds is None else self.budget // self.num_folds

    @property
    def grace_patches(self) -> int:
        """Patches before a trial may be pruned."""
        pruner = self.active_pruner
        if isinstance(pruner, NoPruner) or pruner.grace_period is None:
            return self.first_report
        return pruner.grace_period

    def suggest_config(self, trial: optuna.Trial, *, repeat: int = 0) -> TrialConfig:
        """Draw one configuration and validate it.

        Args:
            trial: Optuna trial.
            repeat: number that is added to the training seed.

        Raises:
            UserError: if ``suggest`` raises, returns something else, or disagrees on the budget.
            StorageInternalError, SQLAlchemyError, OSError: if the study's storage fails.
        """
        try:
            with old_names_silent():
                config = self.suggest(trial)
        except Exception as error:
            if is_storage_error(error):
                raise
            raise suggest_error(error) from error
        config = pinned(check_suggested(config, self.budget), self._folder, self.suggest)
        return config.model_copy(update={"seed": config.seed + repeat}) if repeat else config

    def validate_space(self, draws: int = 8) -> None:
        """Draw a few configurations, to find mistakes in the space before Ray starts.

        Raises:
            UserError: as ``suggest_config``, if a given point is not in the space, a study cannot
                store a value, or the sampler cannot learn from the trials of this search.
        """
        for distributions in self._draw_distributions(draws):
            check_storable(distributions)
        if self.prior:
            require_prior(self.prior, self._draw_distributions(NUM_DRAWS), finite=self.is_finite)
        for point in () if isinstance(self.sampler, Grid) else self.planned_points:
            validate_point(self.suggest_config, point, complete=self.is_finite)
        self.num_trials()
        check_sampler(self.sampler, len(self.objectives), self.active_pruner)
        self._rehearse_own_objects(draws)

    def _rehearse_own_objects(self, draws: int) -> None:
        configs = [pinned(self.baseline, self._folder, self.suggest), *self.examples(draws)]
        if any(any(custom_parts(config)) for config in configs):
            from hpsearch.training.custom_parts import rehearse

            rehearse(configs)

    def examples(self, draws: int = 8) -> list[TrialConfig]:
        """Configurations of the given points, unless they are a grid, and of random ones."""
        study = _random_study(self.seed)
        points = () if isinstance(self.sampler, Grid) else self.planned_points
        for point in points:
            study.enqueue_trial(dict(point))
        return [self.suggest_config(study.ask()) for _ in range(draws + len(points))]

    def _draw_distributions(self, draws: int) -> list[Distributions]:
        """Draw configurations at random; return the distributions of their parameters, by name."""
        study, found = _random_study(self.seed), list[Distributions]()
        with warnings.catch_warnings():
            # ``check_storable`` refuses such choices, with their parameter's name
            warnings.filterwarnings("ignore", "Choices for a categorical", UserWarning)
            for _ in range(draws):
                trial = study.ask()
                self.suggest_config(trial)
                found.append(trial.distributions)
        return found

    def remarks(self) -> list[str]:
        """Sentences about what the sampler cannot do in this space, which Optuna would log."""
        if not isinstance(self.sampler, NSGA2 | TPE):
            return []
        drawn = self._draw_distributions(NUM_DRAWS)
        if isinstance(self.sampler, NSGA2):
            names, what = varying_names(drawn), "are not in every trial or change their range"
            consequence = "draws them at random instead of inheriting them"
        else:
            names = varying_names(drawn, conditional=False)
            what, consequence = "change their range", "draws them independently of the others"
        return varying_remark(names, what, f"{self.sampler.kind} {consequence}")


def _random_study(seed: int) -> optuna.Study:
    log_warnings_only()
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
