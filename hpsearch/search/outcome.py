"""How a trial ended, from the last result that Ray has of it."""

from collections.abc import Mapping
from typing import Any

FAILURES = ("collapsed", "diverged")


def outcome(result: Mapping[str, Any]) -> tuple[str, str]:
    """Status and reason; a result that still says ``running`` belongs to a trial that was stopped.

    One that was stopped while its validation descriptors lay in one point has collapsed: the guard
    gave it the worst objective, and that is why it was stopped.
    """
    status = result["status"]
    if status != "running":
        return status, result.get("reason", "")
    if result.get("collapsed"):
        return "collapsed", "the descriptors of the validation patches lie in one point"
    return "pruned", "among the lower share of its rung"
