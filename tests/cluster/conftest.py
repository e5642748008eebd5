"""What the checks of the files in ``cluster/`` share."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Path:
    return ROOT / "cluster"


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="session")
def documents(cluster: Path) -> dict[str, list[Any]]:
    """Every YAML file below ``cluster/``, parsed, by its path."""
    files = sorted(cluster.rglob("*.yaml"))
    return {
        str(path.relative_to(cluster)): list(yaml.safe_load_all(path.read_text()))
        for path in files
        if not path.name.startswith("my-")
    }
