"""Searchers for replays: rows at random, Ray's bridge to Optuna, and ours.

On rows, only a row can be tried, so TPE cannot draw its candidates. It ranks rows instead: of 24
that are left, as many as it would have drawn, it takes the best one by its model of good and bad
trials. Model, settings and reported results are those of the bridge that it belongs to. The process
ranks as many random rows as it would have had candidates. On a surrogate, every searcher proposes
what it likes, through its own bridge.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher as RaySearcher
from ray.tune.search.optuna import OptunaSearch
from replay import Report, Row, Table, as_result
from surrogate import Surrogate

from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.search import gp_sampler
from hpsearch.search.freeze_thaw import EXPLORATION, predict_ends
from hpsearch.search.samplers import Sampler, SubsetTPESampler
from hpsearch.search.space_file import load_search
from hpsearch.search.space_points import Point
from hpsearch.search.trial_queue import TrialQueue

CANDIDATES = 24
"""Number of candidates of TPE, Optuna's default."""


class Left:
    """Rows that have not been tried, in a random order, and the one that was taken last."""

    def __init__(self, table: Table, *, seed: int) -> None:
        self.table, self.rng = table, np.random.default_rng([seed, 1])
        order = np.random.default_rng(seed).permutation(len(table.rows))
        self.rows = [int(row) for row in order]
        self.taken = -1

    def some(self) -> list[int]:
        """Candidates among the rows that are left."""
        return [int(row) for row in self.rng.permutation(self.rows)[:CANDIDATES]]

    def take(self, row: int) -> None:
        self.rows.remove(row)
        self.taken = row


class Rows:
    """Random search: rows in random order; with a seed, the others begin with the same ones."""

    def __init__(self, table: Table, *, seed: int) -> None:
        self._left = Left(table, seed=seed)

    def ask(self, name: str) -> Row | None:
        if not self._left.rows:
            return None
        self._left.take(self._left.rows[0])
        return self._left.table.rows[self._left.taken]

    def report(self, name: str, report: Report) -> None: ...

    def end(self, name: str, report: Report) -> None: ...


class RowTPE(optuna.samplers.BaseSampler):
    """TPE that takes one of the rows that are left."""

    def __init__(self, tpe: TPESampler, left: Left, subset: SubsetTPESampler | None = None) -> None:
        self._tpe, self._left, self._subset = tpe, left, subset

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._tpe.infer_relative_search_space(self._shown(study, trial), trial)

    def _shown(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        """Study for the model: all trials, or the subset of the product's sampler."""
        return study if self._subset is None else self._subset.subset(study, trial)

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Choose the row; its parameters follow one by one."""
        states = (TrialState.COMPLETE, TrialState.PRUNED)
        known = len(study.get_trials(deepcopy=False, states=states))
        if known < self._tpe._n_startup_trials:
            self._left.take(self._left.rows[0])
            return {}
        some, parts = self._left.some(), self._parts(search_space)
        gain = np.sum([self._gain(study, trial, part, some) for part in parts], axis=0)
        self._left.take(some[int(np.argmax(gain))])
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._left.table.rows[self._left.taken].params[param_name]

    def _parts(self, joint: Mapping[str, BaseDistribution]) -> list[dict[str, BaseDistribution]]:
        """Names that TPE models together; each of the others is a part of its own."""
        groups = self._tpe._search_space_group
        parts = [dict(part) for part in groups.search_spaces] if groups else [dict(joint)]
        known = {name for part in parts for name in part}
        every = self._left.table.distributions.items()
        return [part for part in [*parts, *({n: d} for n, d in every if n not in known)] if part]

    def _gain(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        part: Mapping[str, BaseDistribution],
        rows: Sequence[int],
    ) -> np.ndarray:
        """Log-likelihood ratio of a part of each row, good trials to bad ones."""
        space = dict(sorted(part.items()))
        below, above = self._split(study, trial)
        good = self._tpe._build_parzen_estimator(study, space, below, handle_below=True)
        bad = self._tpe._build_parzen_estimator(study, space, above, handle_below=False)
        params = [self._left.table.rows[row].params for row in rows]
        has = [i for i, given in enumerate(params) if all(name in given for name in space)]
        gain = np.zeros(len(rows))
        if has:
            points = {
                name: np.array([kind.to_internal_repr(params[i][name]) for i in has], dtype=float)
                for name, kind in space.items()
            }
            gain[has] = self._tpe._compute_acquisition_func(points, good, bad)
        return gain

    def _split(self, study: optuna.Study, trial: FrozenTrial) -> tuple[list, list]:
        states = [TrialState.COMPLETE, TrialState.PRUNED]
        states += [TrialState.RUNNING] if self._tpe._constant_liar else []
        trials = self._shown(study, trial).get_trials(deepcopy=False, states=tuple(states))
        others = [other for other in trials if other.number != trial.number]
        ended = sum(other.state != TrialState.RUNNING for other in others)
        return _split_trials(study, others, (self._tpe._gamma or default_gamma)(ended))


class RowGP:
    """The product's Gaussian process that takes one of the rows that are left."""

    def __init__(self, table: Table, *, seed: int) -> None:
        self._left = Left(table, seed=seed)
        self._rows: dict[str, Row] = {}
        self._trials: dict[str, FrozenTrial] = {}
        self._budget = max(row.reports[-1]["seen"] for row in table.rows)

    def ask(self, name: str) -> Row | None:
        if not self._left.rows:
            return None
        self._left.take(self._choose())
        self._rows[name] = self._left.table.rows[self._left.taken]
        return self._rows[name]

    def report(self, name: str, report: Report) -> None:
        before = self._trials[name].intermediate_values if name in self._trials else {}
        row = self._rows[name]
        self._trials[name] = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(row.params),
            distributions=dict(row.distributions),
            intermediate_values={**before, report["seen"]: report["objective"]},
            constraints={"collapsed": float(report["collapsed"])},
        )

    def end(self, name: str, report: Report) -> None:
        self.report(name, report)

    def _choose(self) -> int:
        if len(self._trials) < gp_sampler.STARTUP_TRIALS:
            return self._left.rows[0]
        trials = gp_sampler.trials_to_fit(
            list(self._trials.values()), StudyDirection.MAXIMIZE, gp_sampler.MAX_TRIALS_FITTED
        )
        some = self._left.rng.permutation(self._left.rows)[: gp_sampler.CANDIDATES]
        mean, deviation = predict_ends(
            [gp_sampler.point_of(trial) for trial in trials],
            gp_sampler.read_reports(trials, StudyDirection.MAXIMIZE, self._budget),
            [self._left.table.rows[row].point for row in some],
            [row.point for name, row in self._rows.items() if name not in self._trials],
        )
        return int(some[np.argmax(mean + EXPLORATION * deviation)])


class RowOracle(Rows):
    """Sampler that knows the final value of every row: no sampler is cheaper with a pruner."""

    def __init__(self, table: Table, *, seed: int, startup_trials: int) -> None:
        super().__init__(table, seed=seed)
        self._startup = startup_trials

    def ask(self, name: str) -> Row | None:
        self._startup -= 1
        if self._startup < 0:
            self._left.rows.sort(key=lambda row: -self._left.table.rows[row].final)
        return super().ask(name)


class Bridged:
    """A searcher of Ray's, whose sampler takes rows."""

    def __init__(self, bridge: RaySearcher, left: Left) -> None:
        self._bridge, self._left = bridge, left

    def ask(self, name: str) -> Row | None:
        if not self._left.rows:
            return None
        self._bridge.suggest(name)
        return self._left.table.rows[self._left.taken]

    def report(self, name: str, report: Report) -> None:
        self._bridge.on_trial_result(name, report)

    def end(self, name: str, report: Report) -> None:
        self._bridge.on_trial_complete(trial_id=name, result=report)


class InMemory(OptunaSearcher):
    """The product's bridge with its study in memory."""

    def __init__(
        self,
        space: Path,
        left: Left | None,
        *,
        seed: int,
        constrained: bool = True,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(Path("replay"), space=space, trials=10**6)
        self._constrained = constrained
        search = load_search(space).with_changes(seed=seed, initial_points=())
        if sampler is not None:
            search = search.with_changes(sampler=sampler)
        study = optuna.create_study(storage=InMemoryStorage(), direction=search.objective.direction)
        allocations = TrialQueue(search.planned_points, search.seeds_per_point, search.is_finite)
        self._opened, self._left = (search, study, allocations), left

    def _sampler_for(self, point: int) -> optuna.Study:
        study = super()._sampler_for(point)
        if self._left is None:
            return study
        assert isinstance(study.sampler, SubsetTPESampler), "the space asks for TPE"
        study.sampler = RowTPE(study.sampler.tpe, self._left, study.sampler)
        return study

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        super().on_trial_result(trial_id, as_result(result))

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result is not None and result["collapsed"] and not self._constrained:
            result = {**result, "status": "completed", "collapsed": False}
        message = None if result is None else as_result(result)
        super().on_trial_complete(trial_id, result=message, error=error)


def ours(table: Table, space: Path, *, seed: int, constrained: bool = True) -> Bridged:
    """The product's bridge and its TPE.

    Args:
        constrained: whether a collapse violates a constraint, or is but the worst value.
    """
    left = Left(table, seed=seed)
    return Bridged(InMemory(space, left, seed=seed, constrained=constrained), left)


def stock(table: Table, space: Path, *, seed: int) -> Bridged:
    """Ray's own bridge, as it comes: Optuna's default TPE, and a stopped trial is complete."""
    left = Left(table, seed=seed)
    bridge, _ = stock_bridge(space, RowTPE(TPESampler(seed=seed), left))
    return Bridged(bridge, left)


def stock_bridge(
    space: Path, sampler: optuna.samplers.BaseSampler
) -> tuple[OptunaSearch, list[optuna.Trial]]:
    """Ray's own bridge, and a list of the trials that it has started."""
    suggest, started = load_search(space).suggest, list[optuna.Trial]()

    def captured(trial: Any) -> dict[str, Any]:
        suggest(trial)
        started.append(trial)
        return {}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = OptunaSearch(
            captured,
            metric="objective",
            mode="max",
            sampler=sampler,  # type: ignore[arg-type]
        )
    return bridge, started


class FreeStock:
    """Ray's own bridge on a surrogate; with Optuna's random sampler, random search."""

    def __init__(
        self, surrogate: Surrogate, space: Path, sampler: optuna.samplers.BaseSampler, *, seed: int
    ) -> None:
        self._bridge, self._started = stock_bridge(space, sampler)
        self._surrogate, self._rng = surrogate, np.random.default_rng([seed, 2])

    def ask(self, name: str) -> Row | None:
        self._bridge.suggest(name)
        trial = self._started[-1]
        return self._surrogate.run(Point(trial.params, trial.distributions), self._rng)

    def report(self, name: str, report: Report) -> None:
        self._bridge.on_trial_result(name, report)

    def end(self, name: str, report: Report) -> None:
        self._bridge.on_trial_complete(trial_id=name, result=report)


class FreeOurs:
    """The product's bridge on a surrogate, with one of its samplers."""

    def __init__(self, surrogate: Surrogate, space: Path, sampler: Sampler, *, seed: int) -> None:
        self._bridge = InMemory(space, None, seed=seed, sampler=sampler)
        self._surrogate, self._rng = surrogate, np.random.default_rng([seed, 2])

    def ask(self, name: str) -> Row | None:
        if not isinstance(self._bridge.suggest(name), dict):
            return None
        trial = self._bridge._running[name]
        return self._surrogate.run(Point(trial.params, trial.distributions), self._rng)

    def report(self, name: str, report: Report) -> None:
        self._bridge.on_trial_result(name, report)

    def end(self, name: str, report: Report) -> None:
        self._bridge.on_trial_complete(trial_id=name, result=report)
