"""What a machine knows of processes that were killed because memory ran out."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hpsearch.execution.memory_kills import (
    MemoryState,
    count_oom_kills,
    used_memory_share,
    was_killed_for_memory,
)

GIB = 1 << 30
V1 = Path("/sys/fs/cgroup/memory")
EATER = """
import os, subprocess, sys
from hpsearch.execution.memory_kills import count_oom_kills, used_memory_share
before = count_oom_kills()
eater = subprocess.run([sys.executable, "-c", "bytearray(1 << 30)"])
print(before, count_oom_kills(), eater.returncode, used_memory_share() <= 1)
"""


def machine(root: Path, files: dict[str, str]) -> Path:
    """A machine with 8 GiB, of which 6 are available."""
    gib = 1 << 20
    memory = f"MemTotal: {8 * gib} kB\nMemAvailable: {6 * gib} kB\n"
    for name, content in {"proc/meminfo": memory, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_a_container_counts_its_own_kills_and_has_its_own_limit(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/main\n",
            "proc/vmstat": "nr_free_pages 5\noom_kill 9\n",
            "sys/fs/cgroup/pod/main/memory.events": "low 0\noom 2\noom_kill 3\noom_group_kill 0\n",
            "sys/fs/cgroup/pod/main/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/pod/main/memory.current": f"{GIB * 3 // 2}\n",
            "sys/fs/cgroup/pod/main/memory.stat": f"anon 5\ninactive_file {GIB // 2}\n",
        },
    )
    assert count_oom_kills(root) == 3
    assert used_memory_share(root) == 0.5, "without what can be freed at once"


def test_the_older_kind_of_cgroup_and_one_without_a_limit(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory/batch"
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/x\n4:memory:/batch\n0::/\n",
            f"{folder}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            f"{folder}/memory.limit_in_bytes": f"{4 * GIB}\n",
            f"{folder}/memory.usage_in_bytes": f"{4 * GIB}\n",
            f"{folder}/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB}\n",
        },
    )
    assert count_oom_kills(root) == 4
    assert used_memory_share(root) == 0.75
    (root / folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert used_memory_share(root) == 0.25, "the machine's"


def test_without_a_cgroup_the_machine_counts_and_elsewhere_nothing_is_known(tmp_path: Path) -> None:
    root = machine(tmp_path, {"proc/self/cgroup": "0::/\n", "proc/vmstat": "oom_kill 9\n"})
    assert count_oom_kills(root) == 9
    assert count_oom_kills(tmp_path / "nowhere") is None
    assert used_memory_share(tmp_path / "nowhere") == 0.0


def test_a_worker_that_stated_nothing_was_not_killed_for_memory() -> None:
    assert not was_killed_for_memory(None)
    assert was_killed_for_memory(MemoryState("node", 0, used_share=0.95)), "no machine is asked"


@pytest.fixture
def limited() -> Iterator[Path]:
    """A cgroup of 256 MiB."""
    folder = V1 / f"hpsearch-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text(str(256 << 20))
    except OSError:
        pytest.skip("only root may make a cgroup, here of version 1")
    yield folder
    with suppress(OSError):
        folder.rmdir()


def test_the_kernel_counts_what_it_kills(limited: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'echo $$ > {limited}/cgroup.procs && exec "$@"', "sh", sys.executable, "-c",
         EATER],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1", "-9", "True"], done.stderr
