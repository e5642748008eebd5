"""Limits of this machine: proxies that would take its own traffic, open files, shared memory.

Ray, MLflow and ``urllib`` read the environment and the limits of the process, so what is corrected
here holds for them and for the processes that they start.
"""

import os
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from hpsearch.errors import UserError
from hpsearch.redaction import redacted

THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names of the loopback; ``urllib`` keeps the brackets of an address, ``requests`` does not."""
NO_PROXY = ("no_proxy", "NO_PROXY")
"""Variables with the hosts that are reached without a proxy; the first that is set is read."""
OPEN_FILES_WANTED = 65_536
"""Open files to ask the system for; Ray asks for as many."""
OPEN_FILES_BASE, OPEN_FILES_PER_WORKER = 64, 8
"""Open files of Ray's head process, and those that each worker adds: 61 and 72 were counted for 2
and 4 workers."""
SHARED_MEMORY = Path("/dev/shm")


def exempt_this_machine_from_proxies() -> None:
    """Let requests to this machine bypass the proxies that the environment names.

    A proxy looks for ``127.0.0.1`` on its own machine. Clients of MLflow and of Ray's dashboard ask
    it nevertheless, unless ``NO_PROXY`` has the address.
    """
    if not _proxies():
        return
    given = next((os.environ[name] for name in NO_PROXY if os.environ.get(name)), "")
    hosts = [host.strip() for host in given.split(",") if host.strip()]
    missing = [host for host in (*THIS_MACHINE, socket.gethostname()) if host not in hosts]
    if "*" not in hosts and missing:
        os.environ.update(dict.fromkeys(NO_PROXY, ",".join([*hosts, *missing])))


def proxy_of(address: str) -> str:
    """Proxy, without its password, through which a web address is requested; empty for none."""
    parts = urlsplit(address)
    proxy = _proxies().get(parts.scheme) or _proxies().get("all") or ""
    is_exempt = bool(proxy) and proxy_bypass(parts.hostname or "")
    return "" if is_exempt else redacted(proxy)


def _proxies() -> dict[str, str]:
    """Proxies of the environment by the scheme of the addresses that they are for."""
    return {scheme: proxy for scheme, proxy in getproxies_environment().items() if scheme != "no"}


def proxy_hint(address: str) -> str:
    """Advice for an address that does not answer and is requested through a proxy; else empty."""
    proxy = proxy_of(address)
    if not proxy:
        return ""
    host = urlsplit(address).hostname
    return f" (it was asked through the proxy {proxy}; NO_PROXY={host} asks it directly)"


def raise_open_file_limit(workers: int) -> None:
    """Raise the number of files that this process and its children may open, as far as allowed.

    Args:
        workers: processes of a local Ray session that train at once.

    Raises:
        UserError: if Ray could not run so many workers with the files that the system allows.
    """
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        soft = allowed
    needed = OPEN_FILES_BASE + OPEN_FILES_PER_WORKER * workers
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise UserError(
            f"here a process opens at most {soft:,} files, and Ray needs {needed:,} for {workers} "
            "trials at once; raise the hard limit (`ulimit -Hn`, LimitNOFILE= of a service, or "
            f"`docker run --ulimit nofile={OPEN_FILES_WANTED}`), or lower --cpus",
            code="too-few-open-files",
        )


def describe_open_files() -> str:
    """Limits of open files as one line."""
    if sys.platform == "win32":
        return "no limit"
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = ("unlimited" if n == resource.RLIM_INFINITY else f"{n:,}" for n in limits)
    return f"{soft} in each process, which may be raised to {hard}"


def describe_shared_memory() -> str:
    """Size of the shared memory that Ray's object store uses, as one line."""
    if not SHARED_MEMORY.is_dir():
        return f"no {SHARED_MEMORY}: Ray keeps objects in its temporary folder"
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f"{usage.free / 2**30:.2f} of {usage.total / 2**30:.2f} GiB free in {SHARED_MEMORY}"


def describe_proxies() -> str:
    """Proxies of the environment and what they are not used for, as one line."""
    found = sorted(_proxies().items())
    if not found:
        return "none set"
    shown = ", ".join(f"{redacted(proxy)} for {scheme}" for scheme, proxy in found)
    return f"{shown}; never for this machine, nor for NO_PROXY"
