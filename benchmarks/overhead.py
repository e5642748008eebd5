"""Trials that train nothing: the rest is Ray, the sampler, and MLflow. Ours against stock.

Both sample one number with TPE, run two trials at a time in the same Ray session, report once a
trial, and log it to an MLflow database of their own, with all of it written when the clock stops.
"""

import logging
import time
from pathlib import Path
from typing import Any

import mlflow
import optuna
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

from hpsearch.config import SGD, TrialConfig
from hpsearch.execution import ray_runtime, tuner
from hpsearch.execution.worker_messages import Reported
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.model_registry import configure_mlflow_logging
from hpsearch.training.loop import Report

SPACE = '''
"""One number."""

from hpsearch.config import SGD, TrialConfig
from hpsearch.search.search import Search


def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1.0)), patches=100)


SEARCH = Search(
    suggest=suggest, budget=100, report_every=100, trials=9, baseline=TrialConfig(patches=100)
)
'''


def suggested(trial: optuna.Trial) -> dict[str, Any]:
    """The space as Ray's bridge wants it, with the same configuration for a trial."""
    config = TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1.0)), patches=100)
    return {"trial": config.model_dump(mode="json")}


def ours(home: Path, data: Path, trials: int) -> float:
    """Seconds of a search by the product, from its first question to its last line in MLflow."""
    space, workspace = home / "space.py", Workspace(home)
    space.write_text(SPACE)
    store = workspace.store(str(data))
    uri = database(home / "ours.db")
    record = SearchRecord(
        space=str(space),
        store=str(store.path.absolute()),
        fingerprint=store.fingerprint,
        split="auto",
        tracking_uri=uri,
        trials=trials,
    )
    folder = workspace.create("overhead", space, record)

    def report_once(config: dict[str, Any], *, objective: Any, **unused: Any) -> None:
        value = config["trial"]["optimizer"]["lr"]
        report = Report(100, {"val/mAP": value}, "completed")
        tune.report(Reported.from_report(report, objective).to_dict())

    tuner.train_on_worker = report_once  # the only thing that is not the product's
    mlflow_sync = folder.mlflow_sync()
    began = time.perf_counter()
    mlflow_sync.start()
    tuner.run_session(folder)
    assert mlflow_sync.stop(timeout=600), mlflow_sync.last_error
    seconds = time.perf_counter() - began
    check(uri, trials)
    return seconds


def stock(home: Path, trials: int) -> float:
    """The same by Tuner, OptunaSearch and MLflowLoggerCallback."""
    uri = database(home / "stock.db")

    def trainable(config: dict[str, Any]) -> None:
        tune.report({"objective": config["trial"]["optimizer"]["lr"]})

    began = time.perf_counter()
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(suggested, metric="objective", mode="max", seed=0),
            num_samples=trials,
            max_concurrent_trials=2,
        ),
        run_config=tune.RunConfig(
            name="stock",
            storage_path=str(home.absolute()),
            callbacks=[MLflowLoggerCallback(tracking_uri=uri, experiment_name="stock")],
            verbose=0,
        ),
    )
    tuner.fit()
    seconds = time.perf_counter() - began
    check(uri, trials)
    return seconds


def database(path: Path) -> str:
    """Initialized MLflow database, so that its creation is not measured."""
    uri = f"sqlite:///{path.absolute()}"
    mlflow.MlflowClient(tracking_uri=uri).search_experiments()
    return uri


def check(uri: str, trials: int) -> None:
    """Every trial is in MLflow, and has ended there."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = client.search_runs(experiments, max_results=50_000)
    ended = [run for run in runs if run.info.status == "FINISHED" and run.data.metrics]
    assert len(ended) >= trials, f"{len(ended)} of {trials} trials are in {uri}"


def overhead(home: Path, data: Path, *, trials: int, rounds: int) -> list[tuple[float, float]]:
    """Seconds of ours and of the stock, by turns, in one Ray session of two CPUs."""
    configure_mlflow_logging()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    ray_runtime.start_ray(cpus=2)
    found = []
    try:
        for number in range(rounds):
            folder = home / str(number)
            folder.mkdir(parents=True)
            found.append((ours(folder, data, trials), stock(folder, trials)))
    finally:
        ray_runtime.stop_ray()
    return found
