"""Searchers for replays: rows at random, Ray's bridge to Optuna, and ours."""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import InMemoryStorage
from ray.tune.search import Searcher as RaySearcher
from ray.tune.search.optuna import OptunaSearch
from replay import Report, Table

from hpsearch.search.optuna_bridge import StudySearch
from hpsearch.search.points import Places
from hpsearch.search.search import Search, load_search

Point = Mapping[str, Any]
MakeSampler = Callable[[int], optuna.samplers.BaseSampler]
"""From a seed."""


class Rows:
    """Random search: rows in random order, after those nearest to the points to try first."""

    def __init__(self, table: Table, *, seed: int, first: Sequence[Point] = ()) -> None:
        free = np.ones(len(table.rows), dtype=bool)
        for point in first:
            free[table.nearest(point, free)] = False
        self._order = [*np.flatnonzero(~free)]
        self._order += [*np.random.default_rng(seed).permutation(np.flatnonzero(free))]

    def ask(self, name: str) -> int | None:
        return int(self._order.pop(0)) if self._order else None

    def report(self, name: str, report: Report) -> None: ...

    def end(self, name: str, report: Report) -> None: ...


class Snapped:
    """A searcher of Ray's whose proposals become the nearest rows, in its study too."""

    def __init__(self, table: Table, bridge: RaySearcher, study: optuna.Study) -> None:
        self._table, self._bridge, self._study = table, bridge, study
        self._free = np.ones(len(table.rows), dtype=bool)

    def ask(self, name: str) -> int | None:
        if not self._free.any():
            return None
        self._bridge.suggest(name)
        frozen = self._study.get_trials(deepcopy=False)[-1]
        index = self._table.nearest(frozen.params, self._free)
        self._free[index] = False
        row, known = self._table.rows[index], copy.copy(frozen)
        known.params, known.distributions = dict(row.params), dict(row.distributions)
        # what TPE would believe of a trial that runs, instead of its parameters
        attributes = frozen.system_attrs.items()
        known.system_attrs = {k: v for k, v in attributes if not k.startswith("tpe:relative")}
        self._study._storage._set_trial(frozen._trial_id, known)  # type: ignore[attr-defined]
        return index

    def report(self, name: str, report: Report) -> None:
        self._bridge.on_trial_result(name, report)

    def end(self, name: str, report: Report) -> None:
        self._bridge.on_trial_complete(trial_id=name, result=report)


class InMemory(StudySearch):
    """Our bridge on a study in memory, with a seed, and if asked with another sampler."""

    def __init__(self, search: Search, space: Path, sampler: MakeSampler | None) -> None:
        super().__init__(Path("replay"), space=space, trials=10**6)
        study = optuna.create_study(storage=InMemoryStorage(), direction=search.objective.direction)
        places = Places(search.planned, search.seeds, search.listed)
        self._opened, self.study = (search, study, places), study
        self._make, self._seed = sampler, search.seed

    def _sampling(self, point: int) -> optuna.Study:
        study = super()._sampling(point)
        if self._make is not None:
            study.sampler = self._make(hash((self._seed, point)) % 2**32)
        return study


def ours(
    table: Table,
    space: Path,
    *,
    seed: int,
    sampler: MakeSampler | None = None,
    first: Sequence[Point] = (),
) -> Snapped:
    """The product's bridge, with its own sampler or another."""
    bridge = InMemory(replace(load_search(space), seed=seed, first=first), space, sampler)
    return Snapped(table, bridge, bridge.study)


def stock(table: Table, space: Path, *, seed: int) -> Snapped:
    """Ray's own bridge, as it comes: TPE with Optuna's defaults, a stopped trial is complete."""
    suggest = load_search(space).suggest

    def captured(trial: Any) -> dict[str, Any]:
        suggest(trial)
        return {}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bridge = OptunaSearch(captured, metric="objective", mode="max", seed=seed)
    return Snapped(table, bridge, bridge._ot_study)
