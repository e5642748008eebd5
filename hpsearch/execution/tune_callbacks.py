"""Between Tune and the ledger: what happens is written down, and who stops is read from it."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler

from hpsearch.execution.resumable_trial import SECONDS_METRIC
from hpsearch.execution.retry_policy import RetryPolicy
from hpsearch.execution.shutdown import GracefulShutdown
from hpsearch.search.outcome import final_status
from hpsearch.search.pruners import PrunerWithHistory
from hpsearch.search.stopping import UsageTracker
from hpsearch.tracking.event_log import EventLog

MAX_TRACEBACK_CHARS = 4_000
"""Characters of a traceback that the ledger keeps: its end."""


class EventLogCallback(tune.Callback):
    """Writes what happens to the ledger, so that nothing is lost with the driver."""

    def __init__(
        self, event_log: EventLog, retry_policy: RetryPolicy, shutdown: GracefulShutdown
    ) -> None:
        self._event_log, self._retry_policy, self._shutdown = event_log, retry_policy, shutdown
        self._started: set[str] = set()

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial starts, or goes on after a crash."""
        config = trial.config
        fields = {
            "number": config["number"],
            "config": config["trial"],
            "allocation": config["place"],
        }
        self._event_log.append("start", trial=config["id"], **fields)
        self._started.add(config["id"])

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """A report came, or the last words of a trial that fails, or why one begins anew."""
        if "anew" in result:
            self._event_log.append(
                "restarted_from_scratch", trial=trial.config["id"], reason=result["anew"]
            )
        if "objective" not in result:
            return
        fields = {key: result[key] for key in ("seen", "objective", "metrics")}
        seconds = result["metrics"].get(SECONDS_METRIC, 0.0)
        self._event_log.append("report", trial=trial.config["id"], **fields, seconds=seconds)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial ended, by itself or because the scheduler stopped it."""
        result = trial.last_result or {}
        status, reason = (
            final_status(result) if "status" in result else ("failed", "no report came")
        )
        self._event_log.append(
            "trial_finished", trial=trial.config["id"], status=status, reason=reason
        )

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial raised or hung, or its worker died and it begins again."""
        if trial.config["id"] not in self._started:  # no worker could even be started for it
            self.on_trial_start(iteration, trials, trial)
        name, reason = trial.config["id"], self._retry_policy.failure_reason(trial.trial_id)
        again = self._retry_policy.will_retry(trial.trial_id)
        if again and self._shutdown.in_progress:
            self._event_log.append("trial_finished", trial=name, status="interrupted")
        elif again:
            self._event_log.append("worker_failed", trial=name, reason=reason)
        else:
            fields = {"reason": reason, "traceback": _error_text(trial)[-MAX_TRACEBACK_CHARS:]}
            self._event_log.append("trial_finished", trial=name, status="failed", **fields)


class PruningScheduler(FIFOScheduler):
    """Stops a trial that has ended by itself, and one that the pruner stops."""

    def __init__(self, pruner: PrunerWithHistory, retry_policy: RetryPolicy) -> None:
        super().__init__()
        self._pruner, self._lives = pruner, retry_policy

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict) -> str:
        """Decide after a report whether a trial goes on."""
        if result.get("status") == "failed":
            self._lives.mark_failed(
                trial.trial_id, result["reason"], out_of_gpu_memory=result["memory"]
            )
        if "objective" not in result:
            return self.CONTINUE
        ended = result["status"] != "running"
        number, seen = trial.config["number"], result["seen"]
        self._lives.record_progress(trial.config["id"], seen)
        pruned = self._pruner.should_prune(number, seen=seen, value=result["objective"])
        if not (ended or pruned):
            return self.CONTINUE
        self._pruner.finish(number, completed=ended)
        return self.STOP

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """A trial raised, or its worker died."""
        self._lives.record_worker_death(trial.trial_id, trial.config["id"], _error_text(trial))


def _error_text(trial: TuneTrial) -> str:
    """What Ray said of a trial's end; Tune keeps it on the driver's machine, as text."""
    path = trial.error_file
    return Path(path).read_text() if path and Path(path).exists() else ""


class SearchStopper(tune.Stopper):
    """Stops the search at a limit, or when its user says so; trials save and can go on later."""

    def __init__(self, usage: UsageTracker, shutdown: GracefulShutdown) -> None:
        self._usage, self._shutdown = usage, shutdown
        self.limit_reached = ""
        """The limit, in words; empty if none was reached."""
        self.full_disk = ""
        """The disk that is full, in words; empty if none is."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Nobody is stopped alone; but where one finds a disk full, so would the next."""
        self.full_disk = self.full_disk or result.get("full_disk", "")
        return False

    def stop_all(self) -> bool:
        """Whether no trial could go on, or all have left because the session is to end."""
        self.limit_reached = self.limit_reached or self._usage.exceeded_limit()
        return bool(self.full_disk) or self._shutdown.should_exit(bool(self.limit_reached))
