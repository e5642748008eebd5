"""Samplers of a search, and a TPE with constant cost per trial."""

import logging
import warnings
from collections.abc import Container, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from hpsearch.config.base import FrozenConfig
from hpsearch.search.gp_sampler import GPSampler, best_and_spread
from hpsearch.search.space_points import Suggest


class TPE(FrozenConfig):
    """Tree-structured Parzen estimator, also for several objectives and conditional spaces."""

    kind: Literal["tpe"] = "tpe"


class Random(FrozenConfig):
    """Random search over the space."""

    kind: Literal["random"] = "random"


class GP(FrozenConfig):
    """Gaussian process over learning curves that reads every report, also of pruned trials.

    For one objective, in spaces with conditions. Source: Freeze-Thaw (Swersky et al. 2014).

    Example:
        >>> GP().startup_trials
        8
    """

    kind: Literal["gp"] = "gp"
    startup_trials: int = Field(default=8, ge=2)
    """Trials with a report before the process is fitted; points are random until then."""


class NSGA2(FrozenConfig):
    """NSGA-II, an evolutionary algorithm for several objectives."""

    kind: Literal["nsga2"] = "nsga2"


class Grid(FrozenConfig):
    """Grid search: every combination once; no parameter may be continuous."""

    kind: Literal["grid"] = "grid"


class Fixed(FrozenConfig):
    """Evaluation of given points only.

    Example:
        >>> Fixed(points=[{"lr": 0.1}, {"lr": 0.01}]).points[1]
        {'lr': 0.01}
    """

    kind: Literal["fixed"] = "fixed"
    points: tuple[Mapping[str, Any], ...] = Field(min_length=1)
    """Parameter values by the names that ``suggest`` uses; each has all of them."""


Sampler = Annotated[TPE | Random | GP | NSGA2 | Grid | Fixed, Field(discriminator="kind")]

STARTUP_TRIALS = 6
"""Random trials before a model is fitted. Replays of recorded searches with 12 were worse."""
MAX_MODEL_REPEATS = 3
"""Draws in a row of known configurations after which points are random until one is new."""
POPULATION_SIZE = 10
"""Population of NSGA-II. Optuna's default of 50 is random search for most of 100 trials."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
MAX_TRIALS_FITTED = 250
"""Maximum number of trials that TPE fits its model to, with one objective."""
BEST_TRIALS_KEPT = 25
"""Best trials among them: the maximum that Optuna's TPE counts as good."""


def log_warnings_only() -> None:
    """Let Optuna log its warnings, but not a line for each trial.

    Warnings of TPE about independent sampling are dropped: ``Search.remarks`` has them, once.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for handler in logging.getLogger("optuna").handlers:
        handler.addFilter(_is_not_in_remarks)


def _is_not_in_remarks(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not ("sampled independently" in message and "TPESampler" in message)


class Searched(Protocol):
    """Settings of a search that its sampler depends on; ``Search`` has them."""

    @property
    def sampler(self) -> Sampler: ...
    @property
    def seed(self) -> int: ...
    @property
    def suggest(self) -> Suggest: ...
    @property
    def budget(self) -> int: ...


def build_sampler(search: Searched, *, point: int, repeats: int = 0) -> BaseSampler:
    """Build the sampler that draws the ``point``-th point of a search.

    Each point has its own random stream, so a search that is resumed after a crash draws the same
    points as without the crash, with no state except the study.

    Args:
        search: the search.
        point: number of the point.
        repeats: draws in a row, just before this one, of configurations that had been trained. They
            give a model nothing new, so it may draw the same forever; after some, points are
            random.
    """
    stream = int(np.random.SeedSequence([search.seed, point]).generate_state(1)[0])
    match Random() if repeats >= MAX_MODEL_REPEATS else search.sampler:
        case TPE():
            return SubsetTPESampler(seed=stream)
        case GP(startup_trials=startup):
            return GPSampler(
                search.suggest, seed=stream, budget=search.budget, startup_trials=startup
            )
        case NSGA2():
            return optuna.samplers.NSGAIISampler(seed=stream, population_size=POPULATION_SIZE)
        case Random() | Grid() | Fixed():
            return optuna.samplers.RandomSampler(seed=stream)


class SubsetTPESampler(BaseSampler):
    """Optuna's multivariate TPE, fitted to at most ``max_trials`` finished trials.

    Optuna's TPE reads, ranks and models all finished trials for each group of parameters that occur
    together, so that a draw after 2,000 trials costs five times as much as one after 250. In a
    longer search with one objective, this sampler uses the best trials and an even spread of the
    others. Up to ``max_trials``, and with several objectives, it draws the same as Optuna's.

    Args:
        seed: seed of the draws.
        max_trials: maximum number of finished trials that the model is fitted to.

    Example:
        >>> study = optuna.create_study(sampler=SubsetTPESampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=10)
    """

    def __init__(self, *, seed: int, max_trials: int = MAX_TRIALS_FITTED) -> None:
        self._max_trials = max_trials
        self._shown: tuple[int, optuna.Study] | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # for ``group``
            # constant_liar=False: it treats running trials as bad, including promising ones;
            # replays of recorded searches needed fewer patches without it
            self.tpe = TPESampler(
                seed=seed,
                multivariate=True,
                group=True,
                n_startup_trials=STARTUP_TRIALS,
                constant_liar=False,
            )
            """Optuna's sampler, which fits the model and draws from it."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters of the trials in the subset."""
        return self.tpe.infer_relative_search_space(self.subset(study, trial), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draw the parameters of one trial, each group jointly."""
        return self.tpe.sample_relative(self.subset(study, trial), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Draw a parameter that no trial in the subset has."""
        shown = self.subset(study, trial)
        return self.tpe.sample_independent(shown, trial, param_name, param_distribution)

    def subset(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        """Study of the finished trials that the model is fitted to, cached for one trial."""
        if self._shown is None or self._shown[0] != trial.number:
            trials = study.get_trials(deepcopy=False, states=FINISHED)
            if len(study.directions) == 1:
                trials = select_trials(trials, study.direction, self._max_trials)
            self._shown = (trial.number, _study_of(trials, study.directions, self.tpe))
        return self._shown[1]


def select_trials(
    trials: Sequence[FrozenTrial], direction: StudyDirection, count: int
) -> list[FrozenTrial]:
    """Select the best trials and an even spread over time of the others, ``count`` in all."""
    sign = 1 if direction == StudyDirection.MINIMIZE else -1
    return best_and_spread(trials, lambda trial: _rank(trial, sign), BEST_TRIALS_KEPT, count)


def _rank(trial: FrozenTrial, sign: int) -> tuple[float, float, float]:
    """Rank as Optuna's TPE does, lower is better: completed, then pruned, then infeasible trials.

    A pruned trial with more steps is better.
    """
    violation = sum(value for value in trial.constraints.values() if value > 0)
    if violation > 0:
        return (2, violation, 0)
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return (0, sign * trial.value, 0)
    step = trial.last_step
    return (1, 1, 0) if step is None else (1, -step, sign * trial.intermediate_values[step])


class _ReadOnlyTrials(InMemoryStorage):
    """Storage of one study that returns given trials without copying them."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = list(trials)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]


def _study_of(
    trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection], sampler: BaseSampler
) -> optuna.Study:
    storage, name = _ReadOnlyTrials(trials), "subset"
    storage.create_new_study(directions, name)
    return optuna.load_study(study_name=name, storage=storage, sampler=sampler)
