"""What MLflow calls things: tags by which runs are found again, and where a backend keeps files."""

from pathlib import Path
from typing import Literal

RUN_KIND = "hpsearch.kind"
"""Tag: ``search`` for the parent run, else the kind of the child (``trial``, ``baseline``)."""
SEARCH_NAME_TAG = "hpsearch.search"
"""Tag: the search's name."""
SEARCH_ID = "hpsearch.id"
"""Tag: tells a search from another of the same name; follows from its ledger (``identity``)."""
PARENT_SEARCH_ID = "hpsearch.parent_search"
"""Tag: identity of the search beneath whose run this one's stands."""
TRIAL_ID_TAG = "hpsearch.trial"
"""Tag: the trial's id, the same after every resume."""
STATUS_TAG = "status"
"""Tag: how a run ended, in our words."""
PARENT_RUN_ID = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
"""Tag: the description that MLflow shows first, Markdown."""
SOURCE_NAME, SOURCE_TYPE = "mlflow.source.name", "mlflow.source.type"
SOURCE_COMMIT = "mlflow.source.git.commit"
SAVED_VIEW_PREFIX = "mlflow.sharedViewState."
"""Tag of an experiment, before the view's name: a view of its runs that a link can open."""
EXPERIMENT = "hpsearch"
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
"""MLflow's files in a home."""
SPACE_NAME = "space.py"
"""The space, in the search's folder and among the files of its run."""
OBJECTIVE_METRIC = "objective"
"""Metric: what the search optimises; it stands in every report."""

MLFLOW_STATUS: dict[str, Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]] = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "failed": "FAILED",
    "pruned": "KILLED",
    "collapsed": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
}


def saved_view_name(search_id: str) -> str:
    """The saved view that shows a search."""
    return f"hpsearch-{search_id}"


def default_uri(home: Path) -> str:
    """SQLite beside the searches: no server is needed on one machine."""
    return f"sqlite:///{home.absolute() / DATABASE}"


def is_server(uri: str) -> bool:
    """Whether a tracking server answers there; otherwise it is a database."""
    return uri.startswith(("http://", "https://", "databricks"))


def artifact_location(uri: str, home: Path) -> str | None:
    """Where artifacts go; a tracking server decides for itself (None)."""
    return None if is_server(uri) else (home.absolute() / ARTIFACTS).as_uri()
