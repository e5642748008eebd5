"""Ray Tune runs the trials of a search, and can go on after the driver died."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray
from ray import tune

from hpsearch.errors import UserError
from hpsearch.files import is_full_disk
from hpsearch.running.evictions import evictions_are_deaths
from hpsearch.running.failures import Halted, full_disk
from hpsearch.running.farewell import Farewell
from hpsearch.running.head import answers
from hpsearch.running.keeper import Luggage, pack
from hpsearch.running.lives import Lives
from hpsearch.running.notice import draining
from hpsearch.running.optuna_bridge import StudySearch
from hpsearch.running.placing import PlacedSearch, bundles
from hpsearch.running.quiet import deaths_told_once
from hpsearch.running.reconcile import reconcile
from hpsearch.running.tune_ledger import JudgeScheduler, LedgerCallback, LimitStopper
from hpsearch.running.watchdog import Silence, Watchdog
from hpsearch.running.workers import train
from hpsearch.search.limits import Meter
from hpsearch.search.resources import Fleet, Resources
from hpsearch.search.schedulers import Judge, build_rule
from hpsearch.search.search import Search
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.ledger import Event

LOCAL = "local"
"""Address of a Ray of one's own, on this machine."""
TUNE_FOLDER = "tune"
MANY = 10_000
"""Trials at once, for Tune: how many there are is for the fleet to say."""
PATIENCE = 10.0
"""Seconds that the head of a cluster has to answer."""
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",  # nothing is ever read from what Tune writes down
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end its trials without a word
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of a trial that was stopped while it raised
    "THP_MEM_ALLOC_ENABLE": "1",  # workers train in a thread; see keep_freed_memory
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a bad report ends its trial, not the search
}


def start_ray(*, address: str | None = None, cpus: int | None = None) -> None:
    """Join a cluster, or start Ray on this machine.

    Raises:
        UserError: if there is no cluster at ``address``, or it is a dashboard's.
    """
    if address is not None and address.startswith("http"):
        raise UserError(
            f"{address} is a dashboard, and a search joins the cluster itself: give HEAD:6379, or "
            "send the search there with `hpsearch submit`"
        )
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the ledger says why trials fail
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address in (None, LOCAL):
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # nothing listens beyond loopback
        ray.init(address=LOCAL, num_cpus=cpus, include_dashboard=False, **quiet)
        return
    _knock(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise _nobody(address) from error


def _knock(address: str) -> None:
    """Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return  # auto, or something that Ray refuses at once
    if not answers(f"{host}:{port}", patience=PATIENCE):
        raise _nobody(address)


def _nobody(address: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address}; start one, or give another with --address (`local` "
        "for this machine alone)"
    )


def stop_ray() -> None:
    """Give the machine back, or leave the cluster."""
    ray.shutdown()


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
            scheduler=JudgeScheduler(_judge(search, events), lives),
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


def check_room(resources: Resources, at_once: int | None) -> None:
    """Make sure that the cluster can hold a trial, and so many at once.

    Raises:
        UserError: saying what is missing.
    """
    Fleet(resources, nodes(), at_once)


def nodes() -> list[dict[str, float]]:
    """What each node of the cluster has that is not about to be taken away."""
    going = draining()
    there = (n for n in ray.nodes() if n["Alive"] and n["NodeID"] not in going)
    return [node["Resources"] for node in there]


def _judge(search: Search, events: list[Event]) -> Judge:
    rule = build_rule(
        search.stopping,
        grace=search.first_rung,
        budget=search.budget,
        reduction=search.reduction,
    )
    maximize = search.objective.direction == "maximize"
    return Judge(rule, maximize=maximize, events=events)


def _luggage(folder: SearchFolder) -> Luggage:
    job = folder.job()
    computing = job.computing.model_copy(update={"device": folder.resources().device})
    return pack(replace(job, computing=computing), folder.path, folder.trials)


def _trainable(search: Search, luggage: Luggage) -> Callable[[dict], None]:
    function = partial(train, luggage=luggage, objective=search.objective, folds=search.folds)
    return tune.with_resources(function, bundles)


def _dirname(trial: Any) -> str:
    return f"{trial.config['id']}-{trial.trial_id}"
