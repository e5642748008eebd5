"""Searches as Slurm jobs: the client that submits and follows them.

A home may lie in an object store; the files of its jobs then lie in the cache of this user.
"""

import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.atomic_files import write_atomic
from hpsearch.defaults import CLUSTER_HOME
from hpsearch.errors import EXIT_INTERRUPTED, UserError
from hpsearch.execution.job_checks import check_arguments
from hpsearch.execution.job_client import SearchJob
from hpsearch.execution.job_status import failure_line, printable, progress_line
from hpsearch.execution.slurm_script import RESUME_LINE
from hpsearch.locations import remote_address
from hpsearch.object_storage.commit_log import CommitLog
from hpsearch.object_storage.home_session import cache_folder
from hpsearch.object_storage.lease import LEASE_S
from hpsearch.object_storage.object_store import ObjectStore
from hpsearch.search.search_context import SEARCHES_DIR
from hpsearch.search.search_record import RECORD_FILE
from hpsearch.untrusted import command_line

SCRIPT_FILE, JOB_FILE, LOG_FILE = "search.sbatch", "job", "log"
"""In the folder of a job: what was submitted, the number of the job, and what it printed."""
LEASE_POLL_S = 5.0
"""Seconds between two looks at a lease."""
ENDED = re.compile(r"^hpsearch ended with code (\d+)$", re.MULTILINE)
SLURM_TIMEOUT_S = 60
STATES = {
    "PENDING": "queued", "CONFIGURING": "queued", "REQUEUED": "queued", "REQUEUE_HOLD": "queued",
    "SUSPENDED": "queued", "RUNNING": "running", "COMPLETING": "running", "STOPPED": "running",
    "COMPLETED": "completed", "CANCELLED": "stopped", "TIMEOUT": "stopped", "PREEMPTED": "stopped",
}  # fmt: skip
"""States of Slurm's jobs, in our words; any other has failed."""


def slurm_words(home: str) -> tuple[str, ...]:
    """Options that name a search of Slurm on the command line."""
    return ("--slurm",) if home == CLUSTER_HOME else ("--slurm", "--home", home)


def is_begun(address: str, search: str, *, wait_s: float = 2 * LEASE_S) -> bool:
    """Return True if a home in an object store has a search, once no other process writes there.

    A job that starts again after its node was lost finds the lease of its own former driver.

    Args:
        address: of the home.
        search: its name.
        wait_s: seconds to wait for the end of a lease.

    Raises:
        UserError: if the store refuses or does not answer, or another process keeps the lease.
    """
    log, deadline = CommitLog(ObjectStore(address)), time.monotonic() + wait_s
    while True:
        state = log.load()
        try:
            log.refuse_held()
        except UserError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LEASE_POLL_S)
        else:
            return f"{SEARCHES_DIR}/{search}/{RECORD_FILE}" in state.files


@dataclass(frozen=True)
class SlurmClient:
    """Searches that were submitted to Slurm with a home, seen from the login node.

    Args:
        home: a folder, or the address of a home in an object store.

    Example:
        >>> SlurmClient("/shared/hpsearch").folder("far").as_posix()
        '/shared/hpsearch/slurm/far'
    """

    home: Path | str

    @property
    def address(self) -> str:
        """The home, as a user gives it to ``--home``."""
        return remote_address(self.home) or str(self.home)

    def folder(self, search: str) -> Path:
        """Folder of the job of a search: ``HOME/slurm/NAME``, or one in this user's cache."""
        remote = remote_address(self.home)
        if remote is None:
            return Path(self.home).expanduser() / "slurm" / search
        mirror = cache_folder(remote)
        return mirror.parents[1] / "slurm" / mirror.name / search

    def submit(self, search: str, script: str, *, new: bool = True) -> str:
        """Write and submit the batch script of a search; returns the number of its job.

        Args:
            search: its name.
            script: its batch script.
            new: False to resume what an earlier job has begun.

        Raises:
            UserError: if a job of this search is queued or runs, if a new search has the name of
                one that has not failed, or Slurm refuses it.
        """
        folder = self.folder(search)
        before = self.job(search) if (folder / JOB_FILE).is_file() else None
        if before is not None and new and before.state in ("stopped", "completed"):
            resume = command_line("resume", search, *slurm_words(self.address))
            advice = f"resume with `{resume}`, or " if before.state == "stopped" else ""
            raise UserError(
                f"search {search!r} has {before.state} in Slurm job {before.id}; {advice}choose "
                "another --name for a new one",
                code="search-exists",
            )
        if before is not None and not before.is_finished:
            raise UserError(
                f"search {search!r} has Slurm job {before.id}, which is {before.state}; follow it "
                f"with `{command_line('logs', search, '-f', *slurm_words(self.address))}`, or "
                "choose another --name",
                code="search-is-running",
            )
        path = folder / SCRIPT_FILE
        write_atomic(path, script, private=True)
        log = folder / LOG_FILE
        answer = _slurm("sbatch", "--parsable", f"--output={log}", str(path))
        number = answer.strip().partition(";")[0]
        write_atomic(folder / JOB_FILE, number)
        return number

    def resume(self, search: str, arguments: Sequence[str] = ()) -> str:
        """Submit the batch script of a search again; returns the number of its job.

        Args:
            search: its name.
            arguments: of ``hpsearch resume``, in place of those of an earlier resumption.

        Raises:
            UserError: if it was not submitted from this home, a job of it is queued or runs, or
                Slurm refuses it.
        """
        path = self.folder(search) / SCRIPT_FILE
        if not path.is_file():
            raise _not_submitted(search, self.address)
        check_arguments(arguments)
        script, line = path.read_text("utf-8"), RESUME_LINE.format(shlex.join(arguments))
        script, found = re.subn(r"(?m)^resume_options=\(.*\)$", lambda _: line, script, count=1)
        if arguments and not found:
            raise UserError(
                f"the Slurm job of search {search!r} was written by an earlier hpsearch, which "
                "takes no options of a resumption; leave them out, or give its `hpsearch submit` "
                "again",
                code="slurm-script-older",
            )
        return self.submit(search, script, new=False)

    def jobs(self) -> list[SearchJob]:
        """Latest job of each search, by name."""
        found = sorted(self.folder("").glob(f"*/{JOB_FILE}"))
        return [self.job(path.parent.name) for path in found]

    def job(self, search: str) -> SearchJob:
        """Latest job of a search.

        Raises:
            UserError: if none was submitted from this home.
        """
        path = self.folder(search) / JOB_FILE
        if not path.is_file():
            raise _not_submitted(search, self.address)
        number = path.read_text("utf-8").strip()
        state, why = self._state(search, number)
        return SearchJob(
            id=number, search=search, home=self.address, state=state,
            started_at=None, ended_at=None, message=printable(why),
        )  # fmt: skip

    def _state(self, search: str, number: str) -> tuple[str, str]:
        """State of a job, and why it waits; by its log once Slurm has forgotten it."""
        try:
            answer = _slurm("squeue", "--noheader", "--states=all", f"--jobs={number}", "-o%T|%r")
        except UserError:  # Slurm forgets a job some minutes after its end
            answer = ""
        state, _, why = (answer.splitlines() or [""])[0].partition("|")
        if state in STATES and STATES[state] not in ("completed", "stopped"):
            return STATES[state], f"Slurm gives as reason: {why}"
        codes = ENDED.findall(self._text(search))
        code = int(codes[-1]) if codes else None
        ends = {0: "completed", EXIT_INTERRUPTED: "stopped"}
        is_cut = state == "COMPLETED" and self._has_log(search)  # its last line is missing
        fallback = "failed" if is_cut else STATES.get(state, "failed")
        return ends.get(code, "failed") if code is not None else fallback, why

    def logs(self, job: SearchJob) -> str:
        """Text that the job and its earlier starts have printed."""
        return self._text(job.search)

    def _has_log(self, search: str) -> bool:
        """True if the log is on this file system; it is not where a home needs no shared disk."""
        return (self.folder(search) / LOG_FILE).is_file()

    def _text(self, search: str) -> str:
        log = self.folder(search) / LOG_FILE
        return log.read_text("utf-8", "replace") if log.is_file() else ""

    def follow(self, job: SearchJob) -> Iterator[str]:
        """Stream of the log, until the job ends."""
        sent = 0
        while True:
            finished = self.job(job.search).is_finished
            text = self._text(job.search)
            yield text[sent:]
            sent = len(text)
            if finished:
                return
            time.sleep(2)

    def stop(self, job: SearchJob) -> None:
        """Cancel the job: its trials save, and the search can be resumed."""
        _slurm("scancel", job.id)

    def progress(self, job: SearchJob) -> str:
        """Latest progress line; of a job that waits, Slurm's reason; of a failed one, its own.

        If the log lies on a node alone, the command that reads the home.
        """
        if job.state == "queued":
            return job.message
        if remote_address(self.home) and not self._has_log(job.search):
            status = command_line("status", job.search, "--home", self.address)
            return f"there is no log of it on this machine; look with `{status}`"
        text = self.logs(job)
        if job.state == "failed":
            return printable(failure_line(text, job.message) or "Slurm ended the job")
        return printable(progress_line(ENDED.sub("", text)))


def _not_submitted(search: str, home: str) -> UserError:
    return UserError(
        f"no search {search!r} was submitted to Slurm from {home}; give its --home",
        code="no-such-search",
    )


def _slurm(*words: str) -> str:
    """Output of a command of Slurm.

    Raises:
        UserError: with its own words if it fails, or if it is not installed here.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=SLURM_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise UserError(
            f"there is no {words[0]} on this machine; submit from a login node of the cluster",
            code="no-slurm",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"{words[0]} did not answer in {SLURM_TIMEOUT_S} s; try again once Slurm does",
            code="slurm-refused",
        ) from error
    if done.returncode:
        reason = " ".join(done.stderr.split())[:300] or f"exit code {done.returncode}"
        raise UserError(f"Slurm refuses {words[0]} ({reason}); correct that", code="slurm-refused")
    return done.stdout
