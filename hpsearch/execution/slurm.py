"""Searches as Slurm jobs: the batch script of a search, and the client that submits and follows it.

Nothing that a user gives is read by a shell: what goes into ``#SBATCH`` lines is checked against
the letters that its option can have, and everything else is quoted. The space travels in the script
itself, so neither the first node nor a requeued job needs the folder from which it was submitted.
"""

import base64
import io
import re
import shlex
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.atomic_files import write_atomic
from hpsearch.errors import EXIT_INTERRUPTED, UserError
from hpsearch.execution.job_checks import check_arguments
from hpsearch.execution.job_client import SearchJob
from hpsearch.execution.job_status import failure_line, printable, progress_line
from hpsearch.redaction import holds_password
from hpsearch.untrusted import command_line

BODY = Path(__file__).with_name("slurm_job.sh")
WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:@=/+-]*")
CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.,:@=/+\-*|&()\[\]]*")
MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/@=-]*")
VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([^\0\n\r]*)")
SIGNAL_BEFORE_END_S = 120
"""Seconds before the time limit at which the trials of a job save."""
MAX_SCRIPT_BYTES = 3_000_000
"""Largest batch script; Slurm takes 4 MB unless it is configured otherwise."""
RESUME_LINE = "resume_options=({})"
"""Line of a batch script: options of ``hpsearch resume``, once the search has begun."""
SCRIPT_FILE, JOB_FILE, LOG_FILE = "search.sbatch", "job", "log"
"""In ``HOME/slurm/NAME``: what was submitted, the number of the job, and what it printed."""
ENDED = re.compile(r"^hpsearch ended with code (\d+)$", re.MULTILINE)
SLURM_TIMEOUT_S = 60
STATES = {
    "PENDING": "queued", "CONFIGURING": "queued", "REQUEUED": "queued", "REQUEUE_HOLD": "queued",
    "SUSPENDED": "queued", "RUNNING": "running", "COMPLETING": "running", "STOPPED": "running",
    "COMPLETED": "completed", "CANCELLED": "stopped", "TIMEOUT": "stopped", "PREEMPTED": "stopped",
}  # fmt: skip
"""States of Slurm's jobs, in our words; any other has failed."""


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """Options of a Slurm job; what is None is left to the cluster.

    Raises:
        UserError: if a value has letters that its option cannot have, or a variable a password.

    Example:
        >>> SlurmOptions(partition="gpu", nodes=2, gres="gpu:1").directives()[-1]
        '#SBATCH --gres=gpu:1'
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    time: str | None = None
    constraint: str | None = None
    nodes: int = 1
    cpus: int = 2
    """CPUs of each node."""
    mem: str | None = None
    gres: str | None = None
    modules: Sequence[str] = ()
    """Environment modules that the job loads."""
    env: Sequence[str] = ()
    """Environment variables of the job, ``NAME=VALUE``."""
    image: str | None = None
    """Path of an Apptainer image that holds hpsearch; None for the PATH of the job."""

    def __post_init__(self) -> None:
        for name in ("account", "partition", "qos", "time", "mem", "gres"):
            _check(f"--{name}", getattr(self, name), WORD)
        _check("--constraint", self.constraint, CONSTRAINT)
        for module in self.modules:
            _check("--module", module, MODULE)
        for variable in self.env:
            _check("--env", variable, VARIABLE)
            if holds_password(variable.partition("=")[2]):
                raise UserError(
                    "--env holds a password, and Slurm keeps batch scripts; set the variable in "
                    "your shell's start-up file instead",
                    code="password-in-argument",
                )

    def directives(self) -> list[str]:
        """Lines ``#SBATCH`` of the options that are set."""
        named = {name: getattr(self, name) for name in (
            "account", "partition", "qos", "time", "constraint", "mem", "gres"
        )}  # fmt: skip
        lines = {"nodes": self.nodes, "cpus-per-task": self.cpus} | named
        return [f"#SBATCH --{name}={value}" for name, value in lines.items() if value is not None]


def _check(option: str, value: str | None, pattern: re.Pattern[str]) -> None:
    if value is not None and not pattern.fullmatch(value):
        raise UserError(
            f"{option} {value[:60]!r} has letters that this option of Slurm cannot have; correct "
            "it, and give each --env as NAME=VALUE in one line",
            code="bad-slurm-option",
        )


def batch_script(
    name: str,
    arguments: Sequence[str],
    *,
    options: SlurmOptions,
    home: str,
    files: Mapping[str, Path],
) -> str:
    """Batch script of a search.

    Args:
        name: of the search.
        arguments: of ``hpsearch search``, first the space as it is called in ``files``.
        options: of the job.
        home: home folder as the nodes see it; a leading ``~/`` is the home folder there.
        files: the space and the modules that it imports, by their path in the script's folder.

    Raises:
        UserError: if an argument holds a password, or the files are too large for Slurm.
    """
    check_arguments([*arguments, "--home", home])
    inside = "$HOME/" + shlex.quote(home[2:]) if home.startswith("~/") else shlex.quote(home)
    python = Path(sys.executable).parent
    lines = [
        "#!/usr/bin/env bash",
        f"#SBATCH --job-name=hpsearch-{name}",
        *options.directives(),
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --signal=B:USR1@{SIGNAL_BEFORE_END_S}",
        "#SBATCH --requeue",
        "#SBATCH --no-kill",
        "#SBATCH --open-mode=append",
        *(f"module load {shlex.quote(module)}" for module in options.modules),
        *(f"export {shlex.quote(variable)}" for variable in options.env),
        *([] if options.image else [f"export PATH={shlex.quote(str(python))}:$PATH"]),
        *([f"export HPSEARCH_IMAGE={shlex.quote(options.image)}"] if options.image else []),
        f"export HPSEARCH_HOME={inside}",
        f"space_archive={_archive(files) if files else ''}",
        RESUME_LINE.format(""),
        f"set -- {shlex.join([name, *arguments])}",
        "",
        BODY.read_text("utf-8"),
    ]
    script = "\n".join(lines)
    if len(script) > MAX_SCRIPT_BYTES:
        raise UserError(
            f"the space and its modules make a batch script of {len(script):,} bytes, and Slurm "
            f"takes {MAX_SCRIPT_BYTES:,}; keep data out of the folder that they are imported from",
            code="slurm-script-too-large",
        )
    return script


def _archive(files: Mapping[str, Path]) -> str:
    """Files as a compressed archive in base64, the same for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return base64.b64encode(buffer.getvalue()).decode()


@dataclass(frozen=True)
class SlurmClient:
    """Searches that were submitted to Slurm with a home folder, seen from the login node."""

    home: Path

    def folder(self, search: str) -> Path:
        """Folder of the job of a search."""
        return self.home.expanduser() / "slurm" / search

    def submit(self, search: str, script: str) -> str:
        """Write and submit the batch script of a search; returns the number of its job.

        Raises:
            UserError: if a job of this search is queued or runs, or Slurm refuses it.
        """
        folder = self.folder(search)
        if (folder / JOB_FILE).is_file() and not (before := self.job(search)).is_finished:
            raise UserError(
                f"search {search!r} has Slurm job {before.id}, which is {before.state}; follow it "
                f"with `{command_line('logs', search, '-f', '--slurm')}`, or choose another --name",
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
            raise _not_submitted(search, self.home)
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
        return self.submit(search, script)

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
            raise _not_submitted(search, self.home)
        number = path.read_text("utf-8").strip()
        state, why = self._state(search, number)
        return SearchJob(
            id=number, search=search, home=str(self.home), state=state,
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
        fallback = STATES.get(state, "failed") if state != "COMPLETED" else "failed"
        return ends.get(code, "failed") if code is not None else fallback, why

    def logs(self, job: SearchJob) -> str:
        """Text that the job and its earlier starts have printed."""
        return self._text(job.search)

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
        """Latest progress line; of a job that waits, Slurm's reason; of a failed one, its own."""
        if job.state == "queued":
            return job.message
        text = self.logs(job)
        if job.state == "failed":
            return printable(failure_line(text, job.message) or "Slurm ended the job")
        return printable(progress_line(ENDED.sub("", text)))


def _not_submitted(search: str, home: Path) -> UserError:
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
