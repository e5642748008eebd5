"""Reports as a worker sends them, in the form in which Tune's hooks receive them."""

from typing import Any

from hpsearch.execution.worker_messages import Reported


def reported(seen: int, value: float, status: str = "running", **more: Any) -> dict[str, Any]:
    """A result of Tune with a report; ``more`` are further fields of it."""
    return {"training_iteration": 1, **Reported(seen, value, status, **more).to_dict()}
