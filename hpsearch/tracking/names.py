"""What MLflow calls things: tags by which runs are found again, and where a backend keeps files."""

from pathlib import Path
from typing import Literal

KIND = "hpsearch.kind"
"""Tag: ``search`` for the parent run, else the kind of the child (``trial``, ``yardstick``)."""
SEARCH = "hpsearch.search"
"""Tag: the search's name."""
TRIAL = "hpsearch.trial"
"""Tag: the trial's id, the same after every resume."""
STATUS = "status"
"""Tag: how a run ended, in our words."""
PARENT = "mlflow.parentRunId"

MLFLOW_STATUS: dict[str, Literal["FINISHED", "FAILED", "KILLED", "RUNNING"]] = {
    "running": "RUNNING",
    "completed": "FINISHED",
    "failed": "FAILED",
    "pruned": "KILLED",
    "collapsed": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
}


def default_uri(home: Path) -> str:
    """SQLite beside the searches: no server is needed on one machine."""
    return f"sqlite:///{home.absolute() / 'mlflow.db'}"


def artifact_location(uri: str, home: Path) -> str | None:
    """Where artifacts go; a tracking server decides for itself (None)."""
    return (home.absolute() / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
