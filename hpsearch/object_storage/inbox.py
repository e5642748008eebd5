"""Requests to the process that writes to a home in an object store, from other machines.

A request is a line for an event log: an object below ``requests/``, which the holder of the lease
appends to the log with its next pass, and then deletes. Each has an id, so that one whose deletion
was lost is not appended twice.
"""

import json
import logging
import time
import uuid
from pathlib import Path
from typing import Any

from hpsearch.errors import UserError
from hpsearch.locations import MIRROR_FILE, home_address
from hpsearch.object_storage.lease import holder_elsewhere, require_driver
from hpsearch.object_storage.object_store import ObjectStore
from hpsearch.redaction import redacted

FOLDER = "requests"
REQUEST_EVENT, ID_FIELD = "request", "request"
"""Kind of the events that may be sent, and the field of their id."""
LARGEST_BYTES = 256 * 1024
logger = logging.getLogger(__name__)


def forward_request(log: Path, fields: dict[str, Any]) -> bool:
    """Send a request to the process of another machine that writes to a home, if there is one.

    Args:
        log: the event log in the folder that mirrors the home; one in any other folder has no such
            process.
        fields: of the event.

    Returns:
        Whether it was sent; if not, it is to be appended to the log here.

    Raises:
        UserError: if the store does not answer, the request is too large, or the folder is open for
            reading and no process writes to the home.
    """
    home = next((path for path in log.parents if (path / MIRROR_FILE).is_file()), None)
    if home is None:
        return False
    if holder_elsewhere(home) is None:
        require_driver(home)
        return False
    kept = {k: redacted(v) if isinstance(v, str) else v for k, v in fields.items()}
    event = {"event": REQUEST_EVENT, "time": time.time(), ID_FIELD: uuid.uuid4().hex, **kept}
    name = log.relative_to(home).as_posix()
    content = json.dumps({"file": name, "event": event}, allow_nan=False).encode()
    if len(content) > LARGEST_BYTES:
        raise UserError(
            f"a request has at most {LARGEST_BYTES // 1024} KiB, not {len(content) // 1024}; "
            "shorten it",
            code="request-too-large",
        )
    store = ObjectStore(home_address(home))
    store.create(f"{FOLDER}/{event[ID_FIELD]}.json", content)
    return True


def take_requests(store: ObjectStore, folder: Path, log_name: str) -> list[str]:
    """Append the requests that wait in the store to their event logs.

    Args:
        store: objects of the home.
        folder: the folder that mirrors it.
        log_name: name of the files that are event logs.

    Returns:
        Names of their objects, to be deleted when the logs have been committed.
    """
    waiting = store.names(FOLDER)
    for name in sorted(waiting, key=lambda n: (waiting[n], n)):
        try:
            _append(folder, json.loads(store.get(name)), log_name)
        except FileNotFoundError:
            continue
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s of %s is no request (%s)", name, store.address, error)
    return list(waiting)


def _append(folder: Path, request: dict[str, Any], log_name: str) -> None:
    """Append a request to its log, unless it is there, or the search has been removed.

    Raises:
        ValueError: if it is none.
    """
    path, event = folder / request["file"], dict(request["event"])
    if folder.resolve() not in path.resolve().parents or path.name != log_name:
        raise ValueError("it is for another file than an event log")
    if event["event"] != REQUEST_EVENT or not isinstance(event[ID_FIELD], str):
        raise ValueError("it holds another event")
    before = path.read_bytes() if path.is_file() else None
    if before is None or event[ID_FIELD].encode() in before:
        return
    event["time"] = time.time()  # by the clock of the machine that writes the log
    line = json.dumps(event, allow_nan=False).encode() + b"\n"
    broken = before[-1:] not in (b"", b"\n")  # its writer was killed in a line
    with path.open("ab", buffering=0) as file:
        file.write(b"\n" + line if broken else line)
