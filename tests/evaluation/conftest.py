import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hpsearch.evaluation import VIEW_NAMES, Scores, Tasks, evaluate, read_tasks

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """The slow evaluation; test modules are imported by path, so it is no import away."""
    spec = importlib.util.spec_from_file_location("evaluation_oracle", HERE / "oracle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def golden() -> tuple[dict[str, np.ndarray], Tasks, dict]:
    """Descriptors, tasks and what the official Python evaluation gave for them."""
    folder = HERE / "golden"
    with np.load(folder / "descriptors.npz") as arrays:
        names = tuple(dict.fromkeys(key.split("/")[0] for key in arrays))
        descriptors = {
            name: np.stack([arrays[f"{name}/{view}"] for view in VIEW_NAMES], axis=1)
            for name in names
        }
    counts = [len(descriptors[name]) for name in names]
    tasks = read_tasks(folder / "tasks", "a", names=names, counts=counts)
    return descriptors, tasks, json.loads((folder / "expected.json").read_text())


@pytest.fixture(scope="session")
def golden_scores(golden) -> Scores:
    descriptors, tasks, _ = golden
    return evaluate(descriptors, tasks)
