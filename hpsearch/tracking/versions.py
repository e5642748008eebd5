"""Which versions of the code and its libraries a search ran with."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("hpsearch", "torch", "ray", "optuna", "mlflow", "numpy")


def versions() -> dict[str, str]:
    """By name: the code's commit, Python, and the packages that results depend on."""
    found = {"git.commit": commit(), "version.python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue  # run from a checkout that is not installed
    return found


def commit() -> str:
    """The commit of the code, or ``unknown`` for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except OSError:
        return "unknown"
    return found.stdout.strip() or os.environ.get("HPSEARCH_COMMIT", "unknown")
