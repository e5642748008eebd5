"""Ray Tune runs the trials of a search, and can go on after the driver died."""

import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from hpsearch.errors import UserError
from hpsearch.search.optuna_bridge import StudySearch
from hpsearch.search.outcome import outcome
from hpsearch.search.workers import train
from hpsearch.search.workspace import SearchFolder
from hpsearch.tracking.ledger import Ledger

TUNE_FOLDER = "tune"
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "2",  # what a dead driver may forget
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "THP_MEM_ALLOC_ENABLE": "1",  # workers train in a thread; see keep_freed_memory
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a bad report ends its trial, not the search
}


class LedgerCallback(tune.Callback):
    """Writes what happens to the ledger; it keeps nothing, so it survives the driver."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial starts, or goes on after a crash."""
        config = trial.config
        self._ledger.append(
            "start", trial=trial.trial_id, number=config["number"], config=config["trial"]
        )

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """A report came."""
        fields = {key: result[key] for key in ("seen", "objective", "metrics")}
        self._ledger.append(
            "report", trial=trial.trial_id, **fields, seconds=result["time_total_s"]
        )

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial ended, by itself or because the scheduler stopped it."""
        result = trial.last_result or {}
        status, reason = outcome(result) if "status" in result else ("failed", "no report came")
        self._ledger.append("end", trial=trial.trial_id, status=status, reason=reason)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial raised, or its worker died for good."""
        error = trial.get_error()
        lines = str(error).strip().splitlines() if error else ["no message"]
        self._ledger.append("end", trial=trial.trial_id, status="failed", reason=lines[-1][:500])


class RungKeeper(tune.Callback):
    """Saves ASHA's rungs with the experiment; Tune itself forgets them when it resumes."""

    def __init__(self, scheduler: AsyncHyperBandScheduler) -> None:
        self._scheduler = scheduler

    def get_state(self) -> dict:
        """The rungs of every bracket."""
        return {"rungs": [bracket._rungs for bracket in self._scheduler._brackets]}

    def set_state(self, state: dict) -> None:
        """Put the rungs back."""
        for bracket, rungs in zip(self._scheduler._brackets, state["rungs"], strict=True):
            bracket._rungs = rungs


def start_ray(*, address: str | None = None, cpus: int | None = None) -> None:
    """Join a cluster, or start Ray on this machine.

    Raises:
        UserError: if there is no cluster at ``address``.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        return
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # nothing listens beyond loopback
        ray.init(num_cpus=cpus, include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"no Ray cluster answers at {address}; check it or leave it out") from error


def stop_ray() -> None:
    """Give the machine back, or leave the cluster."""
    ray.shutdown()


def run_search(folder: SearchFolder) -> None:
    """Run the trials of a new search until all have ended, time is up, or Ctrl-C."""
    search, record = folder.search(), folder.record
    scheduler = AsyncHyperBandScheduler(
        time_attr="seen",
        metric="objective",
        mode=search.objective.mode,
        max_t=search.budget,
        grace_period=search.first_rung,
        reduction_factor=search.reduction,
    )
    tuner = tune.Tuner(
        _trainable(folder),
        tune_config=tune.TuneConfig(
            search_alg=StudySearch(folder.path, space=folder.space, trials=record.trials),
            scheduler=scheduler,
            num_samples=record.trials,
            max_concurrent_trials=record.concurrent or slots(),
            time_budget_s=search.time_limit,
            reuse_actors=True,  # a fresh worker costs two seconds and a torch import
            trial_dirname_creator=_dirname,
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=str(folder.path.absolute()),
            callbacks=[LedgerCallback(folder.ledger), RungKeeper(scheduler)],
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    )
    tuner.fit()


def resume_search(folder: SearchFolder) -> None:
    """Go on where a search stood.

    Raises:
        UserError: if there is nothing to go on from.
    """
    path = str((folder.path / TUNE_FOLDER).absolute())
    if not tune.Tuner.can_restore(path):
        raise UserError(
            f"search {folder.name!r} stopped before its first trial; search again with a new name"
        )
    tune.Tuner.restore(path, trainable=_trainable(folder)).fit()


def slots() -> int:
    """Trials that fit on the cluster at once, one CPU each."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def _trainable(folder: SearchFolder) -> Callable[[dict], None]:
    objective = folder.search().objective
    function = partial(
        train, job=folder.job(), objective=objective, trials=folder.trials.absolute()
    )
    return tune.with_resources(function, {"cpu": 1})


def _dirname(trial: Any) -> str:
    return f"{trial.config['number']:04d}-{trial.trial_id}"
