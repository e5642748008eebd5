"""Disks that refuse, which root mounts: a read-only view of a folder, and a small full one."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only(folder: Path, at: Path) -> Iterator[Path]:
    """The folder as a read-only file system at another path."""
    with _mounted(at, "--bind", str(folder)):
        _mount("-o", "remount,ro,bind", str(at))
        yield at


@contextmanager
def small_disk(at: Path, kib: int) -> Iterator[Path]:
    """An empty file system of so many KiB."""
    with _mounted(at, "-t", "tmpfs", "-o", f"size={kib}k", "none"):
        yield at


def fill(disk: Path) -> None:
    """Take the last byte of a small disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@contextmanager
def _mounted(at: Path, *options: str) -> Iterator[None]:
    at.mkdir(parents=True, exist_ok=True)
    _mount(*options, str(at))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def _mount(*options: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk")
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let root mount a disk: {done.stderr.strip()}")
