"""Status of a job in one line, from its logs: its progress, or why it failed."""

import re
from pathlib import Path

PROGRESS_LINE = re.compile(r"\d+ of \d+ trials · .*")
SUMMARY_LINE = re.compile(r"^\d+ trials: .+$", re.MULTILINE)
"""Summary line that a search prints at its end."""
USER_ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)
"""Prefix of an error that the user can correct."""
MISSING_MODULE = re.compile(r"(?:ModuleNotFoundError|ImportError)\S*:? *No module named '([\w.]+)'")
STORE_NOT_FOUND = re.compile(r"there is no patch store '([^']+)'")
PYTHON_TOO_OLD = re.compile(
    r"SyntaxError: |cannot import name '\w+' from '(?:typing|enum|datetime)'"
)
OOM_KILLED = re.compile(r"exit code (?:-9|137)\b")
NODE_LOST = re.compile(
    r"(?i)supervisor actor (?:died|failed|was killed)|node (?:has )?died|node failure"
)
RAY_LOG_LINE = re.compile(
    r"job_manager\.py:|^Running entrypoint for job |^(?:\x1b\[\d+m)?\((?:raylet|autoscaler|gcs)"
)
"""Lines that Ray prints, before the search does and between."""
RUNTIME_ENV_FAILED = re.compile(r"(?i)runtime[_ ]env(?:ironment)?\b.*\b(?:fail|error)")


def printable(text: str) -> str:
    """Text without what steers a terminal: whoever may submit jobs chooses their names."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def progress_line(text: str) -> str:
    """Summary of its trials, else the progress of the search, else its last line."""
    found = SUMMARY_LINE.findall(text) or PROGRESS_LINE.findall(text)
    return found[-1] if found else _last_line(text) or "starting"


def failure_line(text: str, message: str) -> str:
    """Reason why a job failed, and the action.

    Args:
        text: all that it printed.
        message: Ray's message about it.
    """
    if lacking := MISSING_MODULE.findall(text):
        return (
            f"the cluster lacks the Python module {lacking[-1]!r}, which the search imports; "
            "install it on every node, or build it into their image"
        )
    if absent := STORE_NOT_FOUND.findall(text):
        return _store_not_found(absent[-1])
    if refused := USER_ERROR.findall(text):
        return refused[-1]
    if PYTHON_TOO_OLD.search(text):
        return "the head's Python is too old for what was sent; it needs 3.11, as here"
    if OOM_KILLED.search(message):
        return "the driver was killed, manually or because the head ran out of memory; resume it"
    if NODE_LOST.search(message):
        return "the node of the driver was lost; resume the search"
    if RUNTIME_ENV_FAILED.search(message):
        return f"the cluster could not unpack what was sent: {_last_line(message)}"
    return _last_line(text) or _last_line(message)


def _store_not_found(path: str) -> str:
    here = " (it is on this machine)" if Path(path).expanduser().exists() else ""
    return (
        f"the head sees no patch store at {path}{here}; copy it to a disk of the cluster, with "
        "scp, `ray rsync-up` or `kubectl cp`, and give its path there with --data"
    )


def own_lines(text: str) -> list[str]:
    """Lines that the command of a job printed, without those that Ray adds."""
    return [line for line in text.splitlines() if not RAY_LOG_LINE.search(line)]


def _last_line(text: str) -> str:
    own = [line.strip() for line in own_lines(text) if line.strip()]
    return own[-1] if own else ""
