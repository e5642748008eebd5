"""Private Ray session on this machine: loopback, a token, a private folder.

Other Rays of this machine, and variables that describe one, have no part in it.

Left to itself Ray 2.60 listens on all interfaces, also in a session of one machine, its folder can
be written by every user, and its token lies in the user's home folder. Here its servers bind to
127.0.0.1 alone, and its sockets and logs lie in a folder of this user. Each session asks for a new
random token, which stands only in the environment of its own processes.

Ray reads its mode of authentication when it is imported, and keeps the first token that it has
read; to make it read both again there is no public way. Nor is there one to choose loopback:
``ray.init(_node_ip_address="127.0.0.1")`` puts the machine's own address in its place.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ray._private import ray_constants
from ray._raylet import (  # pyright: ignore[reportAttributeAccessIssue]
    AuthenticationTokenLoader,  # pyright: ignore[reportAttributeAccessIssue]
    Config,  # pyright: ignore[reportAttributeAccessIssue]
)

from hpsearch.errors import UserError

NO_METRICS = {
    "RAY_enable_metrics_collection": "0",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}
"""Ray's pages for Prometheus ask for no token; -1 is no port, so they cannot open.

Also where the user has set otherwise: what they set is for their clusters."""
FOREIGN_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_GCS_SERVER_PORT",
    "RAY_JOB_CONFIG_JSON_ENV_VAR",  # in a Ray job: the files of the job, which lie on its head
    "RAY_REDIS_ADDRESS",
    "RAY_USE_TLS",
    "RAY_external_storage_namespace",
    "RAY_gcs_storage",
    "RAY_gcs_storage_path",
)
"""Variables that describe a cluster of the user: its head, port, database and certificates.

Ray obeys them, but for the first, also where it starts a session of its own."""
MAX_FOLDER_BYTES = (103 if sys.platform == "darwin" else 107) - 72
"""Longest path of the folder: the system's limit for a socket, less what Ray appends."""
_environment_before: dict[str, str | None] = {}
"""Variables that the user had set; empty while no session of ours runs."""


@contextmanager
def private_session() -> Iterator[str]:
    """While inside, ``ray.init`` starts a session that only this process can enter.

    The environment stays that of the session until :func:`leave_private_session`; only if the
    block raises, the user's own comes back at once.

    Yields:
        The folder for ``ray.init(_temp_dir=…)``.
    """
    _set_environment(
        {
            **dict.fromkeys(FOREIGN_VARIABLES),
            **NO_METRICS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_AUTH_TOKEN_PATH": None,
        }
    )
    clustered, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield str(_private_folder())
    except BaseException:
        leave_private_session()
        raise
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clustered


def leave_private_session() -> None:
    """Give the environment back to the user, with the mode and the token of their own clusters."""
    if _environment_before:
        _set_environment(_environment_before)
        _environment_before.clear()


def _set_environment(wanted: dict[str, str | None]) -> None:
    """Set or remove variables, remember what stood there first, and let Ray read them again."""
    for name, value in wanted.items():
        _environment_before.setdefault(name, os.environ.get(name))
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    reload_authentication()


def reload_authentication() -> None:
    """Let Ray read its mode of authentication and its token from the environment again."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _private_folder() -> Path:
    """A folder inside one that this user alone may enter: Ray opens its own to everybody.

    Raises:
        UserError: if there is none with a path that is short enough for sockets.
    """
    # as Ray itself looks for it, and then where else paths are short
    wanted = [os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR", "XDG_RUNTIME_DIR")]
    roots = [root for root in (*wanted[:2], "/tmp", "/var/tmp", wanted[2]) if root]
    for root in roots:
        folder = Path(root).absolute() / f"hpsearch-{os.getuid()}"
        if len(os.fsencode(folder)) <= MAX_FOLDER_BYTES:
            with suppress(OSError):
                return _make_private(folder)
    raise UserError(
        f"Ray found no temporary folder among {', '.join(roots)} that can be written and whose "
        f"path has at most {MAX_FOLDER_BYTES - 15} characters, which its sockets need; set "
        "RAY_TMPDIR to one",
        code="no-temporary-folder",
    )


def _make_private(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.getuid():
            folder = Path(tempfile.mkdtemp(prefix="hpsearch-", dir=folder.parent))
        else:
            folder.chmod(0o700)
    return folder / "ray"
