"""One attempt at running a search on a cluster, as its job server tells it."""

import time
from dataclasses import dataclass

from ray.job_submission import JobDetails
from ray.job_submission import JobStatus as RayStatus

from hpsearch.errors import INTERRUPTED

SEARCH, HOME = "hpsearch", "home"
"""Metadata of a job: the name of its search, and its home folder on the cluster."""
STATES = {
    RayStatus.PENDING: "queued",
    RayStatus.RUNNING: "running",
    RayStatus.SUCCEEDED: "completed",
    RayStatus.STOPPED: "stopped",
    RayStatus.FAILED: "failed",
}


@dataclass(frozen=True)
class SearchJob:
    """The first attempt at a search, or one that resumed it."""

    id: str
    search: str
    home: str
    state: str
    """queued, running, completed, stopped or failed."""
    began: float | None
    """Seconds since 1970, as ``ended``."""
    ended: float | None
    message: str

    @classmethod
    def of(cls, details: JobDetails) -> "SearchJob":
        """From a job that this package has submitted."""
        metadata = details.metadata or {}
        state = STATES.get(details.status, str(details.status).lower())
        if state == "failed" and details.driver_exit_code == INTERRUPTED:
            state = "stopped"
        return cls(
            id=details.submission_id or "",
            search=metadata[SEARCH],
            home=metadata.get(HOME, ""),
            state=state,
            began=_seconds(details.start_time),
            ended=_seconds(details.end_time),
            message=details.message or "",
        )

    @property
    def over(self) -> bool:
        """Whether it will change no more."""
        return self.state in ("completed", "stopped", "failed")

    @property
    def duration(self) -> float | None:
        """Seconds that it has run, if it has begun; the clocks of head and user may differ."""
        if self.began is None:
            return None
        return max(0.0, (self.ended or time.time()) - self.began)


def _seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
