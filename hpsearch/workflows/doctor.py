"""Diagnosis of an installation, as lines for a bug report; it names no secret and no user."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import hpsearch
from hpsearch.errors import UserError
from hpsearch.host_limits import describe_open_files, describe_proxies, describe_shared_memory
from hpsearch.redaction import redacted
from hpsearch.search.workspace import Workspace
from hpsearch.tracking.mlflow_tags import is_server
from hpsearch.untrusted import printable

PACKAGES = ("ray", "optuna", "mlflow", "torch", "numpy", "pyarrow", "pydantic", "pandas")
PORTS = {5000: "MLflow's pages", 6379: "Ray head", 8265: "Ray dashboard"}
"""Ports that commands use, and what for."""
VARIABLES = ("RAY_", "MLFLOW_", "HPSEARCH_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Beginnings of the environment variables whose names matter; values are not printed."""
LABEL_WIDTH = 12
CONNECT_TIMEOUT_S = 5.0
"""Seconds that an MLflow server has to answer."""


def diagnose(home: Path) -> Iterator[str]:
    """Lines about this installation; a check that fails is a line too.

    Args:
        home: folder of data, searches and MLflow's files.
    """
    checks: dict[str, Callable[[Path], str]] = {
        "hpsearch": lambda home: hpsearch.__version__,
        "python": lambda home: f"{platform.python_version()} on {platform.platform()}",
        "packages": lambda home: ", ".join(map(_package, PACKAGES)),
        "processor": lambda home: f"{_usable_cpus()} of {os.cpu_count()} CPUs usable",
        "memory": lambda home: f"{_memory()}, {describe_shared_memory()}",
        "open files": lambda home: describe_open_files(),
        "gpu": lambda home: _gpus(),
        "disk": _disk,
        "home": _home,
        "mlflow": _mlflow,
        "ports": lambda home: ", ".join(map(_port, PORTS)),
        "ray": lambda home: _rays(),
        "proxies": lambda home: describe_proxies(),
        "environment": lambda home: _variables(),
    }
    for name, check in checks.items():
        try:
            found = check(home)
        except Exception as error:  # a diagnosis reports every error and continues
            found = f"not known ({type(error).__name__}: {error})"
        yield f"{name:<{LABEL_WIDTH}}{_without_user(printable(redacted(found)))}"


def _without_user(text: str) -> str:
    return text.replace(str(Path.home()), "~")


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} missing"


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    line = f"{page * total / 2**30:.1f} GiB"
    if sys.platform.startswith("linux"):
        free = page * os.sysconf("SC_AVPHYS_PAGES")
        line += f", {free / 2**30:.1f} GiB unused"
    return line


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"none that torch sees (torch for CUDA {torch.version.cuda or 'none'})"
    names = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        names.append(f"{facts.name} with {facts.total_memory / 2**30:.0f} GiB")
    return f"{', '.join(names)}; CUDA {torch.version.cuda}"


def _disk(home: Path) -> str:
    there = next(path for path in (home.absolute(), *home.absolute().parents) if path.exists())
    temporary = Path(os.environ.get("TMPDIR", "/tmp"))
    parts = []
    for what, path in (("home", there), ("temporary folder", temporary)):
        parts.append(f"{shutil.disk_usage(path).free / 2**30:.1f} GiB free for the {what}")
    return ", ".join(parts)


def _home(home: Path) -> str:
    workspace, state = Workspace(home), "can be written"
    try:
        workspace.check_writable()
    except UserError as error:
        state = str(error)
    there = "" if home.is_dir() else ", does not exist yet"
    number = len(workspace.searches())
    return f"{home}{there}, {state}, {number} search{'' if number == 1 else 'es'}"


def _mlflow(home: Path) -> str:
    tracking = Workspace(home).tracking(read_only=True)
    if is_server(tracking.uri):
        address = urlsplit(tracking.uri)
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname or "", port), timeout=CONNECT_TIMEOUT_S):
            pass  # MLflow itself would try for minutes
    client = tracking.client()
    found = len(client.search_experiments(max_results=50))
    return f"{tracking.display_uri} answers, {found} experiments"


def _port(port: int) -> str:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        in_use = probe.connect_ex(("127.0.0.1", port)) == 0
    return f"{port} ({PORTS[port]}) {'in use' if in_use else 'free'}"


def _rays() -> str:
    """Ray heads of this machine, of which a local search starts another, and the latest cluster."""
    from hpsearch.execution.ray_runtime import current_cluster, is_port_open, running_heads

    heads, latest = running_heads(), current_cluster()
    line = f"heads that run on this machine: {heads}; a search without --address starts its own"
    if "RAY_ADDRESS" in os.environ:
        line += ", also where RAY_ADDRESS is set"
    if latest is None or "://" in latest or not latest.rpartition(":")[2].isdigit():
        return line
    answers = "which answers" if is_port_open(latest) else "where nothing listens any more"
    return f"{line}; the latest cluster is at {latest}, {answers}"


def _variables() -> str:
    return (
        ", ".join(sorted(name for name in os.environ if name.startswith(VARIABLES))) or "none set"
    )
