"""Description of a search: space, objective, sampler, pruner and limits."""

import importlib.util
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import optuna
from pydantic import Field, ValidationError, model_validator

from hpsearch.config import DEFAULT_COMPUTE, ComputeConfig, TrialConfig
from hpsearch.config.base import FrozenConfig, old_names_silent, old_names_warned
from hpsearch.config.formatting import Flat, flatten
from hpsearch.errors import OldSpellingWarning, UserError
from hpsearch.search.grid import enumerate_grid, validate_point
from hpsearch.search.objective import MEAN_MAP, Objective
from hpsearch.search.old_spellings import read_old_spellings
from hpsearch.search.pruners import ASHA, NoPruner, Pruner
from hpsearch.search.resources import ONE_CPU, Resources
from hpsearch.search.samplers import TPE, Fixed, Grid, Sampler
from hpsearch.untrusted import validation_sentence

NUM_DRAWS = 64


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
    warm_start_from: str | None = None
    """Earlier search whose trials the sampler starts with."""
    patience: int | None = Field(default=None, ge=1)
    """Trials in a row without an improvement after which no more are started, counted from 0 when
    the search is extended; None for no limit."""
    data: str = "mini"
    """Data set by name (``mini``, ``tiny``), or path of a patch store."""
    validation_points: int = 64
    """Points of each validation sequence that a report is evaluated on."""
    time_limit: float | None = None
    """Seconds after which all trials are interrupted; None for no limit."""
    compute: ComputeConfig = DEFAULT_COMPUTE
    """Device, precision, compilation and determinism of every trial."""
    seed: int = 0
    """Seed of the sampler."""

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
        return self

    @model_validator(mode="after")
    def _check_reports(self) -> "Search":
        if not 0 < self.report_every <= self.budget:
            raise UserError(
                f"report_every must lie between 1 and the budget of {self.budget} patches, "
                f"got {self.report_every}"
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
        return type(self)(
            **{name: getattr(self, name) for name in type(self).model_fields} | fields
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives; the first selects the winner."""
        return (self.objective, *self.extra_objectives)

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
            UserError: if the sampler is a grid and the space is continuous.
        """
        wanted = requested or self.trials
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
        """
        try:
            with old_names_silent():
                config = self.suggest(trial)
        except UserError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"suggest raised {type(error).__name__} at {Path(where.filename).name}:"
                f"{where.lineno} ({first_line(error)}); correct the space and rerun",
                code="suggest-failed",
            ) from error
        if not isinstance(config, TrialConfig):
            raise UserError(
                f"suggest must return a TrialConfig, but returned {type(config).__name__}",
                code="suggest-returned-other",
            )
        if config.patches != self.budget:
            raise UserError(
                f"suggest set patches={config.patches}, but the search's budget is {self.budget}; "
                "pass patches=BUDGET in suggest so that all trials have the same budget",
                code="other-budget",
            )
        return config.model_copy(update={"seed": config.seed + repeat}) if repeat else config

    def validate_space(self, draws: int = 8) -> None:
        """Draw a few configurations, to find mistakes in the space before Ray starts.

        Raises:
            UserError: as ``suggest_config``, or if a given point is not in the space.
        """
        study = _random_study(self.seed)
        for _ in range(draws):
            self.suggest_config(study.ask())
        for point in () if isinstance(self.sampler, Grid) else self.planned_points:
            validate_point(self.suggest_config, point, complete=self.is_finite)
        self.num_trials()


def first_line(error: BaseException) -> str:
    """Message of an error, reduced to one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else "no message"


def load_search(path: Path) -> Search:
    """Run a space file and return its ``SEARCH``.

    A file with names of version 0.1.0 gives one ``OldSpellingWarning``.

    Raises:
        UserError: if the file is missing, fails to run, or exports no Search.
    """
    if not path.is_file():
        raise UserError(
            f"there is no search space at {path}; pass the path of a Python file",
            code="no-such-space",
        )
    with warnings.catch_warnings(record=True) as caught, old_names_warned():
        warnings.simplefilter("always", OldSpellingWarning)
        module = _run_file(path)
    _warn_once(path, caught)
    search = getattr(module, "SEARCH", None)
    if not isinstance(search, Search):
        raise UserError(
            f"{path} must export SEARCH = Search(...), found {type(search).__name__}",
            code="no-search-exported",
        )
    return search


class _SpaceFileLoader(SourceFileLoader):
    """Loader that compiles the file as it is now and leaves no ``__pycache__`` next to it."""

    def path_stats(self, path: str) -> NoReturn:
        """Make the import system read and write no bytecode."""
        raise OSError(f"{path} has no cached bytecode")


def _validation_code(error: ValidationError) -> str:
    """Code of the first check that failed; ``invalid-setting`` for a check of pydantic."""
    cause = error.errors()[0].get("ctx", {}).get("error")
    return cause.code if isinstance(cause, UserError) else "invalid-setting"


def _run_file(path: Path) -> ModuleType:
    module_name = f"hpsearch_space_{path.stem}"
    if path.suffix != ".py":
        raise UserError(f"{path} is not a Python file; a search space ends in .py")
    loader = _SpaceFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise UserError(
            f"{path} is not a Python file; a search space ends in .py", code="no-python-file"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look up their module by name
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise UserError(
            f"{path.name}: {validation_sentence(error)}", code=_validation_code(error)
        ) from error
    except UserError as error:
        raise UserError(f"{path.name}: {error}", code=error.code) from error
    except (Exception, SystemExit) as error:  # the latter would end the command silently
        raise UserError(
            f"{path} fails to run ({type(error).__name__}: {first_line(error)}); correct the file",
            code="space-failed",
        ) from error
    return module


def _warn_once(path: Path, caught: Sequence[warnings.WarningMessage]) -> None:
    old = {
        str(one.message).removeprefix("old names: "): None
        for one in caught
        if one.category is OldSpellingWarning
    }
    for one in caught:
        if one.category is not OldSpellingWarning:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if old:
        warnings.warn(
            f"{path.name} has old names: {'; '.join(old)}", OldSpellingWarning, stacklevel=3
        )


def fixed_settings(search: Search, *, draws: int = NUM_DRAWS) -> dict[str, Flat]:
    """Find settings with a single value among randomly drawn configurations.

    This includes settings that follow from their variant. A rare value may be missed, so the caller
    compares each trial with the result.
    """
    study = _random_study(search.seed)
    points = () if isinstance(search.sampler, Grid) else search.planned_points
    for point in points:
        study.enqueue_trial(dict(point))
    seen: dict[str, set[Flat]] = {}
    for _ in range(draws + len(points)):
        for name, value in flatten(search.suggest_config(study.ask())).items():
            seen.setdefault(name, set()).add(value)
    return {name: values.pop() for name, values in seen.items() if len(values) == 1}


def _random_study(seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
