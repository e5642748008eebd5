"""Between Tune and the ledger: what happens is written down, and who stops is read from it."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler

from hpsearch.running.checkpointed import SECONDS
from hpsearch.search.limits import Meter
from hpsearch.search.outcome import outcome
from hpsearch.search.schedulers import Judge
from hpsearch.tracking.ledger import Ledger


class LedgerCallback(tune.Callback):
    """Writes what happens to the ledger; it keeps nothing, so it survives the driver."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial starts, or goes on after a crash."""
        config = trial.config
        fields = {"number": config["number"], "config": config["trial"], "place": config["place"]}
        self._ledger.append("start", trial=config["id"], **fields)

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """A report came."""
        fields = {key: result[key] for key in ("seen", "objective", "metrics")}
        seconds = result["metrics"].get(SECONDS, 0.0)
        self._ledger.append("report", trial=trial.config["id"], **fields, seconds=seconds)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial ended, by itself or because the scheduler stopped it."""
        result = trial.last_result or {}
        status, reason = outcome(result) if "status" in result else ("failed", "no report came")
        self._ledger.append("end", trial=trial.config["id"], status=status, reason=reason)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial raised, or its worker died for good."""
        error = trial.get_error()
        lines = str(error).strip().splitlines() if error else ["no message"]
        self._ledger.append(
            "end", trial=trial.config["id"], status="failed", reason=lines[-1][:500]
        )


class JudgeScheduler(FIFOScheduler):
    """Stops a trial that has ended by itself, and one that the judge stops."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self._judge = judge

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict) -> str:
        """What becomes of a trial after a report."""
        if "objective" not in result:
            return self.CONTINUE
        ended = result["status"] != "running"
        number, seen = trial.config["number"], result["seen"]
        stop = self._judge.stops(number, seen=seen, value=result["objective"])
        return self.STOP if ended or stop else self.CONTINUE


class LimitStopper(tune.Stopper):
    """Stops the search at a limit; trials that run then are interrupted, and can go on later."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.reached = ""
        """The limit, in words; empty if none was reached."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Nobody is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Whether a limit is reached."""
        self.reached = self.reached or self._meter.reached()
        return bool(self.reached)
