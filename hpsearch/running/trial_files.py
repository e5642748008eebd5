"""The files of a trial, moved as a whole: each is as it was or as it is now."""

import os
import shutil
from pathlib import Path

from hpsearch.files import whole, write_whole

Files = dict[str, bytes]
"""A trial's files by their path in its folder."""


def read_files(folder: Path) -> Files:
    """All files of a folder; none if there is no folder."""
    return {name: (folder / name).read_bytes() for name in _names(folder)}


def write_files(folder: Path, files: Files) -> None:
    """Write files, each whole or not at all, and remove those that are no longer there."""
    for name, content in files.items():
        write_whole(folder / name, content)
    _remove(folder, _names(folder) - files.keys())


def link_files(source: Path, folder: Path) -> None:
    """As ``write_files``, with the files of another folder; nothing is copied if it need not be.

    Nobody changes a file in place, so two folders can hold the same one.
    """
    names = _names(source)
    for name in names:
        place = folder / name
        if place.exists() and place.samefile(source / name):
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole(place) as draft:
            try:
                os.link(source / name, draft)
            except OSError:  # a disk that cannot
                shutil.copyfile(source / name, draft)
    _remove(folder, _names(folder) - names)


def _names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".part"
    }


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        (folder / name).unlink()
