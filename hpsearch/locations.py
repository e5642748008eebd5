"""Addresses inside a home folder, recorded relative to it so that the folder can be moved.

An address is a path, or a path behind ``sqlite:///`` or ``journal:``. Addresses of servers, and
addresses with variables to be substituted later (``$NAME``), are left unchanged.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

SQLITE, SQLITE_WITH_DRIVER = "sqlite:///", "sqlite+pysqlite:///"
PREFIXES = (SQLITE, SQLITE_WITH_DRIVER, "journal:")
ENCODED = re.compile(r"[%?$@]")
"""Characters of a path that SQLAlchemy, or our substitution of variables, would read otherwise."""


def recorded(address: str, home: Path) -> str:
    """Address in its recorded form: relative to ``home`` if it lies inside, else absolute.

    Args:
        address: path or URI; a relative path starts from the working directory.
        home: the home folder, absolute or relative.

    Example:
        >>> recorded("/srv/runs/data/mini.arrow", Path("/srv/runs"))
        'data/mini.arrow'
    """
    prefix, path, options = _parts(address)
    if path is None:
        return address
    return _joined(prefix, inside_of(path, home) or path.absolute(), options)


def located(address: str, home: Path) -> str:
    """Absolute address of a recorded one; the inverse of ``recorded``."""
    prefix, path, options = _parts(address)
    return address if path is None else _joined(prefix, home.absolute() / path, options)


def moved(address: str, home: Path, former: Sequence[Path]) -> str:
    """Address recorded by 0.1.0, which is absolute even inside the home, in its new location.

    Args:
        address: the recorded address; inside one of ``former`` it is moved into ``home``.
        home: present location of the home folder.
        former: earlier locations of the home folder.
    """
    prefix, path, options = _parts(address)
    if path is None or not path.is_absolute():
        return address
    inside = next((x for x in (inside_of(path, folder) for folder in former) if x), None)
    return _joined(prefix, home.absolute() / inside, options) if inside else address


def database_path(uri: str) -> Path | None:
    """File of an SQLite database; None for any other address."""
    prefix, path, _ = _parts(uri)
    return path if prefix.startswith("sqlite") else None


def sqlite_address(path: Path) -> str:
    """Address of an SQLite database, encoded where its path would be read as something else.

    MLflow creates the folder of an address without decoding it, unless the driver is named.

    Example:
        >>> sqlite_address(Path("/srv/runs/mlflow.db"))
        'sqlite:////srv/runs/mlflow.db'
        >>> sqlite_address(Path("/srv/100% ?/mlflow.db"))
        'sqlite+pysqlite:////srv/100%25 %3F/mlflow.db'
    """
    encoded = ENCODED.sub(lambda found: f"%{ord(found[0]):02X}", str(path))
    return f"{SQLITE if encoded == str(path) else SQLITE_WITH_DRIVER}{encoded}"


NETWORK_FILE_SYSTEMS = re.compile(
    r"(nfs|cifs|smb|9p$|ceph|lustre|gpfs|beegfs|glusterfs|afs|ocfs2|gfs2|pvfs|wekafs"
    r"|fuse\.(sshfs|glusterfs|ceph|s3fs|gcsfuse|rclone|goofys|juicefs|mount-s3|blobfuse2?)).*"
)
MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str:
    """Kind of the network file system that a path lies on, such as ``nfs4``; empty for a disk.

    Args:
        path: a file or folder; it may be missing.
        mounts: the kernel's table of mounts.
    """
    place, kind, longest = os.path.realpath(path), "", -1
    lines = mounts.read_text("utf-8", "replace").splitlines() if mounts.is_file() else []
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), mount.split()[4])
        inside = place == point or place.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= longest:
            kind, longest = source.split()[0], len(point)
    return kind if NETWORK_FILE_SYSTEMS.fullmatch(kind) else ""


def inside_of(path: Path, home: Path) -> Path | None:
    """Path relative to ``home``; None if it does not lie inside."""
    for normalize in (os.path.abspath, os.path.realpath):
        full, root = Path(normalize(path)), Path(normalize(home))
        if root in full.parents:
            return full.relative_to(root)
    return None


def _parts(address: str) -> tuple[str, Path | None, str]:
    """Prefix of an address, its path or None if it is not one on this machine, and its options."""
    prefix = next((p for p in PREFIXES if address.startswith(p)), "")
    rest, options = address.removeprefix(prefix), ""
    if not rest or rest.startswith((":", "$", "~", "file:")) or "://" in rest:
        return prefix, None, ""
    if prefix.startswith("sqlite"):
        rest, mark, query = rest.partition("?")
        rest, options = unquote(rest), mark + query
    return prefix, Path(rest), options


def _joined(prefix: str, path: Path, options: str) -> str:
    """Address of these parts."""
    is_sqlite = prefix.startswith("sqlite")
    return (sqlite_address(path) if is_sqlite else f"{prefix}{path}") + options


REMOTE_SCHEMES = ("s3", "gs", "az")
"""Schemes of addresses of homes in object stores; only s3 has been tried."""


def remote_address(given: object) -> str | None:
    """Address of a home in an object store; None for anything else.

    A ``Path`` that was made of such an address, which has lost one of its slashes, is one too.

    Example:
        >>> remote_address("S3://lab/runs/"), remote_address(Path("s3://lab/runs"))
        ('s3://lab/runs', 's3://lab/runs')
        >>> remote_address("runs") is remote_address("C:/s3:/runs") is None
        True
    """
    scheme, slash, rest = str(given).partition(":/")
    if not slash or scheme.lower() not in REMOTE_SCHEMES:
        return None
    return f"{scheme.lower()}://{rest.strip('/')}"


def is_remote(address: object) -> bool:
    """Return True for the address of a home in an object store.

    Example:
        >>> is_remote("s3://lab/runs"), is_remote("runs")
        (True, False)
    """
    return remote_address(address) is not None


MIRROR_FILE = ".mirror.json"
"""File in a folder that mirrors a home in an object store: its address, and what it holds."""


def home_address(home: Path) -> str:
    """Address by which a user names a home: that in the object store if the folder mirrors one.

    Example:
        >>> home_address(Path("runs"))
        'runs'
    """
    try:
        return str(json.loads((home / MIRROR_FILE).read_text("utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(home)
