"""Client of a Ray cluster's job server: submit, follow and stop searches."""

import asyncio
import logging
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from shutil import get_terminal_size
from types import MappingProxyType
from typing import Any

from ray.job_submission import JobDetails, JobSubmissionClient
from ray.job_submission import JobStatus as RayStatus

import hpsearch
from hpsearch.errors import EXIT_INTERRUPTED, UserError
from hpsearch.execution import job_checks
from hpsearch.execution.job_status import failure_line, own_lines, printable, progress_line
from hpsearch.redaction import filled_in
from hpsearch.search.resources import Resources
from hpsearch.search.space_file import copy_modules
from hpsearch.untrusted import command_line

SEARCH_KEY, HOME_KEY = "hpsearch", "home"
"""Metadata of a job: the name of its search, and its home folder on the cluster."""
JOB_STATES = {
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
    started_at: float | None
    """Seconds since 1970, as ``ended_at``."""
    ended_at: float | None
    message: str

    @classmethod
    def from_details(cls, details: JobDetails) -> "SearchJob":
        """Search job of a job that this package has submitted."""
        metadata = details.metadata or {}
        state = JOB_STATES.get(details.status, str(details.status).lower())
        if state == "failed" and details.driver_exit_code == EXIT_INTERRUPTED:
            state = "stopped"
        return cls(
            id=details.submission_id or "",
            search=printable(metadata[SEARCH_KEY]),
            home=metadata.get(HOME_KEY, ""),
            state=state,
            started_at=_to_seconds(details.start_time),
            ended_at=_to_seconds(details.end_time),
            message="\n".join(map(printable, (details.message or "").splitlines())),
        )

    @property
    def is_finished(self) -> bool:
        """True if the job has finished."""
        return self.state in ("completed", "stopped", "failed")

    @property
    def duration(self) -> float | None:
        """Seconds that it has run, if it has begun; the clocks of head and user may differ."""
        if self.started_at is None:
            return None
        return max(0.0, (self.ended_at or time.time()) - self.started_at)


def _to_seconds(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None


STARTUP_TIMEOUT_S = 30.0
"""Seconds that a head which answers may take until it can run jobs."""
STOP_TIMEOUT_S = 120
"""Seconds that a stopped search has to save its trials."""
COMMAND_TIMEOUT_S, COMMAND_POLL_S = 120.0, 0.3
"""Seconds that a command on the head may take, and between two looks at whether it has ended."""
UPLOAD_EXCLUDES = ("__pycache__", "*.pyc")
NOISY_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray that report every upload."""


@dataclass(frozen=True)
class JobClient:
    """The job server of a Ray head, ``http://HEAD:8265``.

    Where the head asks for a token, Ray reads it from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, with
    RAY_AUTH_MODE=token.
    """

    address: str

    @cached_property
    def client(self) -> JobSubmissionClient:
        """Ray's client, once it has found the head.

        Raises:
            UserError: if no Ray head answers at the address, or it requires a token.
        """
        job_checks.check_address(self.address)
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            with job_checks.address_as_given():
                return JobSubmissionClient(filled_in(self.address))
        except Exception as error:  # Ray raises bare RuntimeError, ConnectionError and its own
            raise UserError(job_checks.explain_connection_error(self.address, error)) from error

    def check_versions(self) -> None:
        """Make sure that the head runs what is sent.

        Raises:
            UserError: if versions of Ray or Python differ.
        """
        there = job_checks.head_versions(self.client, self.address)
        job_checks.check_versions(self.address, head_ray=there.ray, head_python=there.python)

    def check_capacity(self, asked: Resources, max_concurrent: int | None) -> None:
        """Make sure that the cluster has room now for a trial, and for so many at once.

        Raises:
            UserError: naming what exists.
        """
        job_checks.check_capacity(job_checks.cluster_nodes(self.address), asked, max_concurrent)

    def submit(
        self,
        search: str,
        arguments: Sequence[str],
        *,
        home: str,
        space: Path | None = None,
        modules: Mapping[str, Path] = MappingProxyType({}),
    ) -> str:
        """Queue ``hpsearch ARGUMENTS`` on the head; the id of the job.

        Args:
            search: its name.
            arguments: of the command; a space is named as it is called in its folder.
            home: folder on the cluster.
            space: a Python file that travels along.
            modules: files that it imports from its folder, by their path in it.

        Raises:
            UserError: if this search is on the cluster already, and neither failed nor is resumed,
                if an argument holds a password, or the head takes no job.
        """
        job_checks.check_arguments([*arguments, "--home", home])
        before = self._attempts(search)
        if before:
            self._check_not_running(before[-1], new=space is not None)
        number = len(before) + 1
        with tempfile.TemporaryDirectory() as folder:
            if space is not None:
                copy_modules({space.name: space, **modules}, Path(folder))
            return self._submit_when_ready(
                entrypoint=f"python -m hpsearch {quote_command([*arguments, '--home', home])}",
                submission_id=search if number == 1 else f"{search}--{number}",
                metadata={SEARCH_KEY: search, HOME_KEY: home},
                runtime_env=_runtime_env(Path(folder)),
            )

    def run(self, arguments: Sequence[str], *, home: str) -> str:
        """Output of ``hpsearch ARGUMENTS`` on the head, as a short job that is deleted at its end.

        Args:
            arguments: of the command, without ``--home``.
            home: folder on the cluster.

        Raises:
            UserError: the command's own, or if the head takes no job or does not run it in time.
        """
        job_checks.check_arguments([*arguments, "--home", home])
        with tempfile.TemporaryDirectory() as folder:
            number = self._submit_when_ready(
                entrypoint=f"python -m hpsearch {quote_command([*arguments, '--home', home])}",
                runtime_env=_runtime_env(
                    Path(folder), COLUMNS=str(get_terminal_size((100, 24)).columns)
                ),
            )
        status = self._wait_for(number)
        text, message = self.client.get_job_logs(number), self.client.get_job_info(number).message
        self.client.delete_job(number)
        if status != RayStatus.SUCCEEDED:
            reason = printable(failure_line(text, message or ""))
            raise UserError(f"{self.address}: {reason}", code="failed-on-head")
        return "\n".join(map(printable, own_lines(text)))

    def _wait_for(self, number: str) -> RayStatus:
        """Status of a short job at its end.

        Raises:
            UserError: if it has not ended in time; it is stopped.
        """
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        while not (status := self.client.get_job_status(number)).is_terminal():
            if time.monotonic() > deadline:
                self.client.stop_job(number)
                raise UserError(
                    f"{self.address} did not run the command in {COMMAND_TIMEOUT_S:.0f} s; try "
                    "again once its head has a processor to spare",
                    code="head-busy",
                )
            time.sleep(COMMAND_POLL_S)
        return status

    def _submit_when_ready(self, **job: Any) -> str:
        """A head that has just started answers before it can take jobs."""
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while True:
            try:
                return self.client.submit_job(**job)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise UserError(
                        f"{self.address} takes no job ({str(error)[:200]}); look into "
                        "the log of its dashboard, then give the same command again"
                    ) from error
            time.sleep(1)

    def jobs(self) -> list[SearchJob]:
        """All searches of this cluster, oldest first."""
        listed = self.client.list_jobs()
        found = [
            SearchJob.from_details(job) for job in listed if SEARCH_KEY in (job.metadata or {})
        ]
        return sorted(found, key=lambda job: (job.started_at or float("inf"), job.id))

    def job(self, search: str) -> SearchJob:
        """The latest attempt at a search.

        Raises:
            UserError: if the cluster knows no such search.
        """
        attempts = self._attempts(search)
        if not attempts:
            known = ", ".join(dict.fromkeys(job.search for job in self.jobs())) or "none yet"
            raise UserError(f"{self.address} knows no search {search!r}; there are: {known}")
        return attempts[-1]

    def logs(self, job: SearchJob) -> str:
        """Logs of the job."""
        return self.client.get_job_logs(job.id)

    def follow(self, job: SearchJob) -> Iterator[str]:
        """Stream of the logs of a job, until it ends."""
        lines = self.client.tail_job_logs(job.id)
        loop = asyncio.new_event_loop()
        try:
            while True:
                yield loop.run_until_complete(anext(lines))
        except StopAsyncIteration:
            return
        finally:
            loop.close()

    def stop(self, job: SearchJob) -> None:
        """Ask a search to save its trials and end; it can be resumed."""
        self.client.stop_job(job.id)

    def progress(self, job: SearchJob) -> str:
        """Latest progress line; of a failed job, the reason."""
        if job.state == "queued":
            return job.message
        text = self.logs(job)
        failed = job.state == "failed"
        return printable(failure_line(text, job.message) if failed else progress_line(text))

    def _attempts(self, search: str) -> list[SearchJob]:
        return [job for job in self.jobs() if job.search == search]

    def _check_not_running(self, job: SearchJob, *, new: bool) -> None:
        if not job.is_finished:
            raise UserError(
                f"search {job.search!r} is running on {self.address}; follow it with `"
                f"{command_line('logs', job.search, '-f', '--address', self.address)}`, or choose "
                "another --name"
            )
        if new and job.state != "failed":
            resume = command_line("resume", job.search, "--address", self.address)
            advice = f"resume with `{resume}`, or " if job.state == "stopped" else ""
            raise UserError(
                f"search {job.search!r} has {job.state} on {self.address}; {advice}choose another "
                "--name for a new one",
                code="search-exists",
            )


def quote_command(words: Sequence[str]) -> str:
    """Words for the head's shell, where a leading ``~/`` is the home folder there."""
    return " ".join(
        "~/" + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)
        for word in words
    )


def _runtime_env(folder: Path, **variables: str) -> dict:
    return {
        "working_dir": str(folder),
        "py_modules": [str(Path(hpsearch.__file__).parent)],
        "excludes": list(UPLOAD_EXCLUDES),
        "env_vars": {
            # Ray sends SIGTERM, and would wait 3 s. Not SIGINT: a head that was started in a
            # shell's background hands down that it is ignored.
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_TIMEOUT_S),
            "PYTHONUNBUFFERED": "1",
            **variables,
        },
    }
