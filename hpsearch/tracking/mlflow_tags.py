"""Tags and metric names of MLflow runs, and locations of MLflow's files."""

from pathlib import Path
from typing import Literal

from hpsearch.locations import sqlite_address

RUN_KIND = "hpsearch.kind"
"""Tag: ``search`` for the parent run, else the kind of the child (``trial``, ``baseline``)."""
SEARCH_NAME_TAG = "hpsearch.search"
"""Tag: the search's name."""
SEARCH_ID = "hpsearch.id"
"""Tag: unique id of the search, derived from its event log (``EventLog.search_id``)."""
PARENT_SEARCH_ID = "hpsearch.parent_search"
"""Tag: id of the parent search, whose run is the parent of this search's run."""
TRIAL_ID_TAG = "hpsearch.trial"
"""Tag: id of the trial, which does not change at a resume."""
PARENT_TRIAL_TAG, PARENT_TRIAL_RUN_TAG = "hpsearch.parent_trial", "hpsearch.parent_trial_run"
"""Tags of a trial that trains another one on: id of that trial, and of its run."""
STATUS_TAG = "status"
"""Tag: status of a run in hpsearch's terms."""
PARENT_RUN_ID = "mlflow.parentRunId"
MODEL_VERSIONS = "mlflow.modelVersions"
"""Tag of a logged model: the registered versions of it, JSON; MLflow's list of models reads it."""
NOTE_TAG = "mlflow.note.content"
"""Tag: description of a run, Markdown."""
SOURCE_NAME, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
SOURCE_COMMIT = "mlflow.source.git.commit"
SAVED_VIEW_PREFIX = "mlflow.sharedViewState."
"""Prefix of an experiment's tag that holds a saved view of its runs."""
EXPERIMENT = "hpsearch"
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
"""MLflow's files in a home."""
SPACE_NAME = "space.py"
"""File name of the search space, in the search's folder and among the artifacts of its run."""
OBJECTIVE_METRIC = "objective"
"""Metric: value that the search optimizes; every report contains it."""

MLFLOW_STATUS: dict[str, Literal["FINISHED", "FAILED", "KILLED", "RUNNING", "SCHEDULED"]] = {
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "completed": "FINISHED",
    "failed": "FAILED",
    "infeasible": "FINISHED",
    "pruned": "FINISHED",
    "collapsed": "FAILED",
    "diverged": "FAILED",
    "interrupted": "KILLED",
}
"""MLflow's status of a run, which its pages show as a mark: FAILED and KILLED as a red cross. A
pruned trial is no failure; it differs from a completed one in the tag ``status``."""
FINGERPRINT_TAG, SPLIT_TAG, INPUT_KIND_TAG = "patches.fingerprint", "patches.split", "patches.given"
"""Tags of a version: what it was evaluated on. Versions that agree in all can be compared."""


ALL_TRIALS_VIEW = "hpsearch-all-trials"
"""Name of the saved view of the trials of all searches."""


def saved_view_name(search_id: str) -> str:
    """Name of the saved view of a search."""
    return f"hpsearch-{search_id}"


def default_uri(home: Path) -> str:
    """Default tracking URI: an SQLite database in the home, which needs no server."""
    return sqlite_address(home.absolute() / DATABASE)


def is_server(uri: str) -> bool:
    """Return whether an address is one of a tracking server, not of a database."""
    return uri.startswith(("http://", "https://", "databricks"))


def artifact_location(uri: str, home: Path) -> str | None:
    """Artifact location for a database; None for a tracking server, which has its own."""
    return None if is_server(uri) else (home.absolute() / ARTIFACTS).as_uri()
