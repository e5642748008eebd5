"""Layers, sole importers, and what a bare worker needs; each rule as it stands in CONTRIBUTING."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpsearch"
LAYERS = [
    {"errors", "shapes"},
    {
        "defaults",
        "atomic_files",
        "rng",
        "patch_views",
        "schema",
        "redaction",
        "collapse_thresholds",
    },
    {"locations", "untrusted", "host_limits"},
    {"object_storage"},
    {"config"},
    {"recipes"},
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
    "obstore": ("object_storage",),
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


OWN = {"hpsearch", "__future__"}
PRIVATE_PARTS = {"_private", "_internal", "_raylet", "_common"}
PRIVATE_ATTRIBUTES = {
    *("_trial_id", "_storage", "_study_id", "_study", "_is_multi_objective", "_get_trials"),
    *("_do_request", "_actor_task_failed", "temporary_state", "_tracking_client", "_mlflow_client"),
    "ENABLE_RAY_CLUSTER",
}
"""Private names of Ray, Optuna and MLflow, on whatever object they are read."""
PUBLIC = {"os._exit", "ray_constants"}
"""A documented function, and a module of which the attribute is counted that is read of it."""
MAX_PRIVATE_NAMES = 6


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def foreign_imports(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Module, name in it and name here of all that comes from other packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(a.name, "", a.asname or a.name.split(".")[0]) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found = [(node.module, a.name, a.asname or a.name) for a in node.names]
        else:
            continue
        yield from (triple for triple in found if triple[0].split(".")[0] not in OWN)


def root_of(node: ast.expr) -> str:
    """Name of the variable that a chain of attributes starts with."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def private_foreign_names(tree: ast.Module) -> set[str]:
    """Private names of other packages that a file uses, as far as its text tells."""
    imports = list(foreign_imports(tree))
    found = {
        name or module
        for module, name, _ in imports
        if is_private(name or module) or PRIVATE_PARTS & set(module.split("."))
    }
    modules = {here for _, _, here in imports}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
    for node in attributes:
        ours = isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr in own
        if (node.attr in PRIVATE_ATTRIBUTES and not ours) or (
            root_of(node.value) in modules and is_private(node.attr)
        ):
            found.add(f"os.{node.attr}" if root_of(node.value) == "os" else node.attr)
    return found - PUBLIC


def test_private_names_of_others_stand_in_patches_alone_and_are_few() -> None:
    found = {path: private_foreign_names(ast.parse(path.read_text())) for path in MODULES}
    patches = {path: names for path, names in found.items() if path.stem.endswith("_patches")}
    elsewhere = {name_of(path): names for path, names in found.items() if path not in patches}
    assert not {path: names for path, names in elsewhere.items() if names}
    names = sorted(set().union(*patches.values()))
    assert len(names) <= MAX_PRIVATE_NAMES, names


@pytest.mark.parametrize(
    "line",
    [
        "from ray._private import worker",
        "import ray._private.worker",
        "from optuna.storages import _cached_storage",
        "from ray._raylet import GcsClient as Client",
        "import optuna\noptuna.samplers._tpe",
        "number = frozen._trial_id",
        "actor = trial.temporary_state.ray_actor",
        "self._client._do_request('GET', '/')",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert private_foreign_names(ast.parse(line))


def test_the_drawing_shows_every_package() -> None:
    drawing = (PACKAGE.parent / "docs" / "architecture.md").read_text().split("```")[1]
    shown = set(re.findall(r"\w+", drawing))
    assert set(RANK) - {"running"} <= shown, "running holds a former name alone"


def test_names_promise_something() -> None:
    shapeless = {"utils.py", "common.py", "misc.py", "helpers.py"}
    assert not [name_of(path) for path in MODULES if path.name in shapeless]
