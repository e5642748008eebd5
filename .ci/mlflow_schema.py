"""Write MLflow's empty SQLite database as SQL, for `hpsearch.tracking.connection.create_database`.

    .venv/bin/python .ci/mlflow_schema.py hpsearch/tracking/mlflow_schema.sql

Run it whenever another version of MLflow is pinned.
"""

import sqlite3
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path


def schema() -> str:
    """Empty database as MLflow's migrations leave it, without the experiment that it begins with.

    MLflow itself creates that experiment where there is none, with an address on this machine.
    """
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{path}", f"sqlite:///{path}").search_experiments()
        with closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM experiments")
            lines = list(database.iterdump())
    return "\n".join([f"-- MLflow {version('mlflow')}", *lines, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(schema(), "utf-8")
