"""Words that the shell offers for arguments: searches, models, spaces and their files.

Each function runs at a press of the Tab key, so it reads names of files and MLflow's database in
the home, imports nothing heavy, and offers nothing where something cannot be read.
"""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import typer

from hpsearch.defaults import BUILT_IN_MODELS, DEFAULT_HOME, ROOT_SIFT

SEARCH_RECORDS = "searches/*/search.json"
"""Records of the searches in a home."""
MLFLOW_DATABASE = "mlflow.db"
"""MLflow's database in a home."""
EVENT_LOG = "ledger.jsonl"
STARTED_TRIAL = re.compile(rb'"event": ?"start".*?"number": ?(\d+)')
"""Number of a trial in the event of its start."""
ALIASES = "SELECT name, alias FROM registered_model_aliases ORDER BY name, alias"
"""Query of the aliases in the registry of MLflow 3."""
DATABASE_WAIT_S = 0.5
"""Seconds to wait for a database that is being written."""


def complete_searches(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the searches in the home, the latest first."""
    return [name for name in _searches(_home(context)) if name.startswith(incomplete)]


def complete_models(context: typer.Context, incomplete: str) -> list[str]:
    """References of models: built-in, registered with an alias, of a search's trials, and paths."""
    home = _home(context)
    named = [*BUILT_IN_MODELS, ROOT_SIFT]
    named += [f"models:/{reference}" for reference in _registered(home)]
    named += _trials(home, incomplete)
    found = [name for name in named if name.startswith(incomplete)]
    return [*found, *_paths(incomplete, (".onnx",))]


def complete_versions(context: typer.Context, incomplete: str) -> list[str]:
    """Registered versions by alias, such as ``patch-descriptor@champion``."""
    return [name for name in _registered(_home(context)) if name.startswith(incomplete)]


def complete_trials(context: typer.Context, incomplete: str) -> list[str]:
    """Trials of all searches, such as ``quickstart/012``, and files with a configuration."""
    found = [name for name in _trials(_home(context), incomplete) if name.startswith(incomplete)]
    return [*found, *_paths(incomplete, (".json",))]


def complete_spaces(incomplete: str) -> list[str]:
    """Folders, and Python files, which may be spaces."""
    return list(_paths(incomplete, (".py",)))


def _home(context: typer.Context) -> Path:
    """Home that the words before name, or the environment."""
    given = context.params.get("home") or os.environ.get("HPSEARCH_HOME")
    return Path(given or DEFAULT_HOME)


def _searches(home: Path) -> list[str]:
    with suppress(OSError):
        records = sorted(home.glob(SEARCH_RECORDS), key=lambda path: -path.stat().st_mtime)
        return [path.parent.name for path in records]
    return []


def _trials(home: Path, incomplete: str) -> list[str]:
    """References of a search's trials once it is named, such as ``quickstart/012``; else searches.

    Trials are listed in event logs only, and the logs of all searches would take too long to read.
    """
    searches, (search, slash, _) = _searches(home), incomplete.partition("/")
    if not slash or search not in searches:
        return [f"{name}/" for name in searches]
    with suppress(OSError):
        log = (home / "searches" / search / EVENT_LOG).read_bytes()
        return [f"{search}/{int(number):03d}" for number in STARTED_TRIAL.findall(log)]
    return []


def _registered(home: Path) -> list[str]:
    """Aliases in the registry of a home; none of a tracking server, which takes too long to ask."""
    database = (home / MLFLOW_DATABASE).absolute()
    with suppress(sqlite3.Error):
        address = f"{database.as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=DATABASE_WAIT_S)) as opened:
            return [f"{name}@{alias}" for name, alias in opened.execute(ALIASES)]
    return []


def _paths(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Folders, with a slash at their end, and files with one of these suffixes."""
    folder, _, start = incomplete.rpartition("/")
    base = folder + "/" if "/" in incomplete else ""
    with suppress(OSError):
        for path in sorted(Path(base or ".").expanduser().iterdir()):
            if not path.name.startswith(start) or (path.name.startswith(".") and not start):
                continue
            if path.is_dir():
                yield f"{base}{path.name}/"
            elif path.suffix in suffixes:
                yield f"{base}{path.name}"
