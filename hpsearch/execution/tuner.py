"""Runs the trials of a search with Ray Tune."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ray import tune

from hpsearch.atomic_files import is_full_disk
from hpsearch.execution.checkpoint_store import Luggage, pack
from hpsearch.execution.hang_detector import Silence, Watchdog
from hpsearch.execution.optuna_searcher import StudySearch, reconcile
from hpsearch.execution.placement import Fleet, PlacedSearch, bundles
from hpsearch.execution.ray_patches import deaths_told_once, evictions_are_deaths
from hpsearch.execution.ray_runtime import nodes
from hpsearch.execution.retry_policy import Halted, Lives, full_disk
from hpsearch.execution.shutdown import Farewell
from hpsearch.execution.tune_callbacks import LedgerCallback, LimitStopper, PruningScheduler
from hpsearch.execution.worker import train
from hpsearch.search.pruners import PrunerWithHistory, build_pruner
from hpsearch.search.search import Search
from hpsearch.search.stopping import Meter
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.event_log import Event

TUNE_FOLDER = "tune"
MANY = 10_000
"""Trials at once, for Tune: how many there are is for the fleet to say."""


@dataclass(frozen=True)
class Session:
    """How a session of a search ended."""

    exhausted: bool
    """Whether there was no more trial to begin."""
    limit: str
    """The limit that was reached, in words; empty if none was."""


def run_session(folder: SearchFolder) -> Session:
    """Run the trials of a search that is new or goes on, until none is left, a limit, or Ctrl-C.

    Tune begins afresh each time: the study knows which trials there are, the ledger what they have
    said, their checkpoints where they stand.

    Raises:
        UserError: if the cluster cannot hold a trial, or not so many at once.
        Halted: if a disk is full.
    """
    try:
        return _run(folder)
    except Halted:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise _stopped(folder, full_disk([folder.path])) from error
        raise


def _run(folder: SearchFolder) -> Session:
    search, record = folder.search(), folder.record
    reconcile(folder)
    fleet = Fleet(folder.resources(), nodes(), record.concurrent)
    lives, silence, events = Lives(), Silence(record.hang_after), folder.ledger.events()
    lives.hear(events)
    silence.learn(events)
    study = StudySearch(
        folder.path,
        space=folder.space,
        trials=record.trials,
        url=record.study,
        forgiven=record.forgiven,
    )
    luggage = _luggage(folder)
    farewell = Farewell(tell=lambda: luggage.keeper.end.remote(), busy=lambda: fleet.busy)
    placed = PlacedSearch(study, fleet, lives, farewell, nodes)
    stopper = LimitStopper(Meter(record.limits, folder.ledger), farewell)
    tuner = tune.Tuner(
        _trainable(search, luggage),
        tune_config=tune.TuneConfig(
            search_alg=placed,
            scheduler=PruningScheduler(_build_pruner(search, folder.name, events), lives),
            num_samples=-1,  # the study says when there are enough
            max_concurrent_trials=MANY,
            reuse_actors=True,  # a fresh worker costs two seconds and a torch import
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(folder.path.absolute()),
            callbacks=[LedgerCallback(folder.ledger, lives, farewell), Watchdog(silence, lives)],
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=0),  # who goes on is for us to say
            verbose=0,
        ),
    )
    with evictions_are_deaths(), deaths_told_once(), farewell.on_ctrl_c():
        tuner.fit()
    if stopper.full_disk:
        raise _stopped(folder, stopper.full_disk)
    return Session(placed.exhausted, stopper.reached)


def _stopped(folder: SearchFolder, full: str) -> Halted:
    return Halted(
        f"{full}, so search {folder.name!r} has stopped; nothing is lost: make room there and go on"
    )


def _build_pruner(search: Search, name: str, events: list[Event]) -> PrunerWithHistory:
    pruner = build_pruner(
        search.active_pruner, grace_period=search.first_report, budget=search.budget
    )
    direction = search.objective.direction
    return PrunerWithHistory(pruner, direction=direction, name=name, events=events)


def _luggage(folder: SearchFolder) -> Luggage:
    job = folder.job()
    computing = job.computing.model_copy(update={"device": folder.resources().device})
    return pack(replace(job, computing=computing), folder.path, folder.trials)


def _trainable(search: Search, luggage: Luggage) -> Callable[[dict], None]:
    function = partial(train, luggage=luggage, objective=search.objective, folds=search.num_folds)
    return tune.with_resources(function, bundles)


def _dirname(trial: Any) -> str:
    return f"{trial.config['id']}-{trial.trial_id}"
