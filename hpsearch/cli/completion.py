"""Words that the shell offers for arguments: searches, models, spaces and their files.

Each function runs at a press of the Tab key, so it reads names of files and MLflow's database in
the home, or asks its server for a second, imports nothing heavy, and offers nothing where something
cannot be read.
"""

import base64
import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import typer

from hpsearch.defaults import BUILT_IN_MODELS, DEFAULT_HOME, ROOT_SIFT
from hpsearch.redaction import filled_in

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
SERVER_WAIT_S = 1.0
"""Seconds to wait for the aliases of a tracking server."""
SERVER_QUERY = "/api/2.0/mlflow/registered-models/search?max_results=1000"
MAX_ANSWER_BYTES = 4_000_000
OFFERED_NAME = re.compile(r"[\w.+-]+")
"""Names of models and aliases that no shell reads otherwise; others are not offered."""


def complete_searches(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the searches in the home, the latest first."""
    return [name for name in _searches(_home(context)) if name.startswith(incomplete)]


def complete_models(context: typer.Context, incomplete: str) -> list[str]:
    """References of models: built-in, registered with an alias, of a search's trials, and paths."""
    home = _home(context)
    named = [*BUILT_IN_MODELS, ROOT_SIFT]
    if "models:/".startswith(incomplete[:8]):
        named += [f"models:/{reference}" for reference in _registered(context)]
    named += _trials(home, incomplete)
    found = [name for name in named if name.startswith(incomplete)]
    return [*found, *_paths(incomplete, (".onnx",))]


def complete_versions(context: typer.Context, incomplete: str) -> list[str]:
    """Registered versions by alias, such as ``patch-descriptor@champion``."""
    return [name for name in _registered(context) if name.startswith(incomplete)]


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


def _registered(context: typer.Context) -> list[str]:
    """Aliases in the registry of the tracking server that the words name, or else of the home."""
    address = context.params.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        return _in_database(_home(context) / MLFLOW_DATABASE)
    if address.startswith("sqlite:///"):
        return _in_database(Path(address.removeprefix("sqlite:///")))
    found = list[str]()

    def ask() -> None:
        with suppress(Exception):  # whatever it is, the shell has nothing to offer
            found.extend(_on_server(filled_in(address)))

    asking = threading.Thread(target=ask, daemon=True)  # a name may take long to be resolved
    asking.start()
    asking.join(SERVER_WAIT_S)
    return list(found)


def _in_database(path: Path) -> list[str]:
    with suppress(sqlite3.Error):
        address = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=DATABASE_WAIT_S)) as opened:
            return [f"{name}@{alias}" for name, alias in opened.execute(ALIASES)]
    return []


def _on_server(address: str) -> list[str]:
    """Aliases in the registry of a tracking server, with the credentials that MLflow reads.

    Raises:
        Exception: if it does not answer, or not as MLflow does.
    """
    from urllib.parse import unquote, urlsplit, urlunsplit
    from urllib.request import Request, urlopen

    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return []
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    request, name = Request(bare + SERVER_QUERY), os.environ.get("MLFLOW_TRACKING_USERNAME")
    user = unquote(parts.username or name or "")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        code = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {code}")
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    with urlopen(request, timeout=SERVER_WAIT_S) as answer:
        models = json.loads(answer.read(MAX_ANSWER_BYTES))["registered_models"]
    pairs = [(model["name"], one["alias"]) for model in models for one in model.get("aliases", ())]
    return [f"{n}@{a}" for n, a in sorted(pairs) if all(map(OFFERED_NAME.fullmatch, (n, a)))]


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
