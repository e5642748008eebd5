"""Addresses of what lies inside a home, written down relative to it so that the home can be moved.

An address is a path, or a path behind ``sqlite:///`` or ``journal:``. Addresses of servers, and
whatever is filled in later (``$NAME``), stay as they are.
"""

import os
from collections.abc import Sequence
from pathlib import Path

PREFIXES = ("sqlite:///", "journal:")


def recorded(address: str, home: Path) -> str:
    """The address as it is written down: relative to ``home`` if it lies inside, else absolute.

    Args:
        address: a relative path in it starts from the working directory.
        home: the home, which need not be given by its absolute path.
    """
    prefix, path = _parts(address)
    if path is None:
        return address
    inside = inside_of(path, home)
    return prefix + (inside.as_posix() if inside else str(path.absolute()))


def located(address: str, home: Path) -> str:
    """The inverse of ``recorded``: the absolute address of what was written down."""
    prefix, path = _parts(address)
    return address if path is None else prefix + str(home.absolute() / path)


def moved(address: str, home: Path, former: Sequence[Path]) -> str:
    """An address that 0.1.0 wrote down, which is absolute also where it leads into the home.

    Args:
        address: where it leads into one of ``former``, it now leads into ``home``.
        home: where the home lies now.
        former: where it lay before.
    """
    prefix, path = _parts(address)
    if path is None or not path.is_absolute():
        return address
    inside = next((x for x in (inside_of(path, place) for place in former) if x), None)
    return prefix + str(home.absolute() / inside) if inside else address


def database_path(uri: str) -> Path | None:
    """The file of an SQLite database; None for any other address."""
    prefix, path = _parts(uri.partition("?")[0])
    return path if prefix == "sqlite:///" else None


def inside_of(path: Path, home: Path) -> Path | None:
    """The path relative to ``home``; None if it does not lie inside."""
    for of in (os.path.abspath, os.path.realpath):
        whole, place = Path(of(path)), Path(of(home))
        if place in whole.parents:
            return whole.relative_to(place)
    return None


def _parts(address: str) -> tuple[str, Path | None]:
    """The prefix of an address and its path; no path if it is no place on this machine."""
    prefix = next((p for p in PREFIXES if address.startswith(p)), "")
    rest = address.removeprefix(prefix)
    if not rest or rest.startswith((":", "$", "~", "file:")) or "://" in rest:
        return prefix, None
    return prefix, Path(rest)
