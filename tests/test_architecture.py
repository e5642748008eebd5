"""Layers, sole importers, and what a bare worker needs; each rule as it stands in CONTRIBUTING."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpsearch"
LAYERS = [
    {"errors", "shapes"},
    {"defaults", "atomic_files", "rng", "patch_views", "schema", "redaction"},
    {"locations", "untrusted"},
    {"config"},
    {"data", "models", "losses", "evaluation"},
    {"training", "tracking"},
    {"search", "reporting"},
    {"execution"},
    {"running"},
    {"promotion"},
    {"workflows"},
    {"console"},
    {"cli"},
]
RANK = {package: rank for rank, packages in enumerate(LAYERS) for package in packages}
SOLE_IMPORTER = {
    "ray": ("execution",),
    "mlflow": ("tracking",),
    "matplotlib": ("reporting",),
    "torch_xla": ("training/devices.py",),
    "optuna": ("search", "execution", "promotion"),
    "typer": ("cli",),
    "rich": ("console",),
}
BARE_WORKER = (
    "data.patch_store",
    "data.samplers",
    "models",
    "losses",
    "evaluation",
    "training.trial",
)
"""What runs on a worker with torch, numpy, pyarrow and pydantic alone."""
ABSENT_THERE = (
    *("ray", "mlflow", "optuna", "matplotlib", "scipy", "skimage", "sklearn", "pandas"),
    *("PIL", "typer", "rich", "plotly", "jaxtyping", "beartype"),
)

MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Dotted names of everything a file imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def package_of(path: Path) -> str:
    package = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "cli" if package == "__main__" else package


def packages_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in imports_of(path)]
    return {p[1] for p in parts if p[0] == "hpsearch" and len(p) > 1 and p[1] in RANK}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_to_lower_layers_only(path: Path) -> None:
    package = package_of(path)
    if package == "__init__":
        assert not packages_imported(path)
        return
    wrong = {other for other in packages_imported(path) - {package} if RANK[other] >= RANK[package]}
    assert not wrong, f"{name_of(path)} may not import {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_big_library_has_one_importer(path: Path) -> None:
    for library, allowed in SOLE_IMPORTER.items():
        if any(name.split(".")[0] == library for name in imports_of(path)):
            assert name_of(path).startswith(allowed), f"{name_of(path)} may not import {library}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {
        "hpsearch." + name_of(p).removesuffix(".py").replace("/", "."): imports_of(p)
        for p in MODULES
        if p.name != "__init__.py"
    }
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for other in graph[module] & graph.keys():
                walk(other, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


@pytest.mark.slow
def test_a_bare_worker_can_import_all_that_trains() -> None:
    script = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT_THERE!r}:
            raise ImportError(f"{{name}} is not on a bare worker")
sys.meta_path.insert(0, Absent())
import importlib
for name in {BARE_WORKER!r}:
    importlib.import_module("hpsearch." + name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_names_promise_something() -> None:
    shapeless = {"utils.py", "common.py", "misc.py", "helpers.py"}
    assert not [name_of(path) for path in MODULES if path.name in shapeless]
