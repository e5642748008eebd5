"""A real Slurm of two virtual nodes on this machine, as root."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..servers import free_port
from .searches import wait_for

PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{plugins}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
MinJobAge=86400
JobRequeue=1
MpiDefault=none
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} {size} Feature=one
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} {size}
PartitionName=all Nodes=n1,n2 Default=YES State=UP PriorityTier=1
PartitionName=first Nodes=n1,n2 State=UP PriorityTier=2
"""
SIZE = "CPUs=2 RealMemory=8000 Gres=gpu:1"
FREE = "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none"
CONTAINED = """ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobContainerType=job_container/tmpfs
PrologFlags=Contain"""
FILES = {
    "gres.conf": "Name=gpu File=/dev/null\n",
    "cgroup.conf": "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nAllowedSwapSpace=0\n",
    "job_container.conf": "AutoBasePath=true\nBasePath={folder}/private.%n\n",
}
CGROUPS = Path("/sys/fs/cgroup")


def is_installed() -> bool:
    """Whether this user can start a Slurm here."""
    return os.getuid() == 0 and all(shutil.which(name) for name in PROGRAMS)


def can_contain() -> bool:
    """Whether this machine's memory cgroups are of version 1, which this Slurm takes, and ours."""
    return os.access(CGROUPS / "memory" / "cgroup.procs", os.W_OK)


@dataclass(frozen=True)
class Slurm:
    """Its daemons, whose files lie in one folder."""

    folder: Path

    @classmethod
    def start(cls, *, contained: bool = False) -> "Slurm":
        """Start the daemons, and wait until both nodes are idle.

        Args:
            contained: jobs have the memory that they ask for, by cgroup, and a /tmp of their own.
        """
        found = cls(Path(tempfile.mkdtemp(prefix="slurm", dir="/var/tmp")))
        folder = found.folder
        folder.chmod(0o755)
        for name in ("state", "spool.n1", "spool.n2"):
            (folder / name).mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(64))
        (folder / "key").chmod(0o600)
        for name, text in FILES.items():
            (folder / name).write_text(text.format(folder=folder))
        settings = {
            "plugins": CONTAINED if contained else FREE,
            "size": SIZE,
            "host": socket.gethostname(),
            "folder": folder,
            **{name: free_port() for name in ("port", "first", "second")},
        }
        found.configuration.write_text(CONFIGURATION.format(**settings))
        found.run(
            "munged", "--force", f"--socket={folder}/munge.socket", f"--key-file={folder}/key",
            f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log",
            f"--seed-file={folder}/seed",
        )  # fmt: skip
        found.run("slurmctld")
        for node in ("n1", "n2"):
            found.run("slurmd", "-N", node)
        wait_for(lambda: set(found.run("sinfo", "-h", "-N", "-o%T").split()) == {"idle"}, 60)
        return found

    @property
    def configuration(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def variables(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.configuration)}

    def run(self, *words: object, **variables: str) -> str:
        """Output of a command of Slurm."""
        done = subprocess.run(
            list(map(str, words)), env={**os.environ, **self.variables, **variables},
            capture_output=True, text=True, check=True, timeout=60, cwd=self.folder,
        )  # fmt: skip
        return done.stdout

    def state(self, job: str) -> str:
        """State of a job, such as RUNNING or PENDING."""
        fields = self.run("scontrol", "-o", "show", "job", job).split()
        return next(field for field in fields if field.startswith("JobState=")).partition("=")[2]

    def wait_for_restart(self, job: str) -> None:
        """Wait until a requeued job runs again, which Slurm lets it do after two minutes.

        Before that a node would give a contained job no /tmp, and the job would fail.
        """
        wait_for(lambda: self.state(job) == "PENDING", 120)
        wait_for(lambda: self.state(job) == "RUNNING", 300)

    def start_again(self, job: str) -> None:
        """Wait until a requeued job pends, and let it start now and not in two minutes.

        For jobs that are not contained; see ``wait_for_restart``.
        """
        wait_for(lambda: self.state(job) == "PENDING", 120)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=60")
        wait_for(lambda: self.state(job) == "RUNNING", 120)

    def stop(self) -> None:
        """End all jobs and the daemons, by the files that hold their ids."""
        with suppress(subprocess.CalledProcessError):
            self.run("scancel", "--user=root")
            wait_for(lambda: not self.run("squeue", "-h").strip(), 90)
        for path in sorted(self.folder.glob("*.pid")):
            with suppress(ProcessLookupError, ValueError):
                os.kill(json.loads(path.read_text()), signal.SIGTERM)
        wait_for(lambda: not list(self.folder.glob("slurm*.pid")), 60)
        for node in CGROUPS.glob("*/slurm_n[12]"):
            for group, *_ in os.walk(node, topdown=False):
                with suppress(OSError):
                    Path(group).rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)
