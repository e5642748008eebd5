"""Batch script of a search as a Slurm job.

Nothing that a user gives is read by a shell: what goes into ``#SBATCH`` lines is checked against
the letters that its option can have, and everything else is quoted. The space travels in the script
itself, so neither the first node nor a requeued job needs the folder from which it was submitted.
"""

import base64
import io
import re
import shlex
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpsearch.errors import UserError
from hpsearch.execution.job_checks import check_arguments
from hpsearch.redaction import SECRET, holds_password

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
            name, _, value = variable.partition("=")
            if SECRET.search(name) or holds_password(value):
                raise UserError(
                    f"--env {name} holds a password, and Slurm keeps batch scripts; export the "
                    "variable before you submit, since Slurm passes your environment to the job",
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
        home: home as the nodes see it: a folder, where a leading ``~/`` is the home folder there,
            or an address in an object store.
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
