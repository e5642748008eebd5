"""Import of the user's own objects from a source with the digest of their configuration."""

import atexit
import importlib
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from hpsearch.config.custom import Custom, custom_parts, with_replaced
from hpsearch.config.custom_source import (
    SPACE_MODULE,
    SourceTree,
    SpaceFolder,
    search_sources,
)
from hpsearch.errors import UserError, list_names
from hpsearch.untrusted import reason, user_location

_known: dict[str, SourceTree] = {}
"""Sources in this process, by digest."""
_trees: list[SourceTree] = []
"""Trees of searches whose sources are found by digest when they are needed."""
_objects: dict[tuple[str, str], Any] = {}
_active: list[str] = []
"""Digests of the sources whose code runs, the innermost last."""
_modules: dict[str, dict[str, ModuleType]] = {}
"""Modules that have been imported from each source, by its digest and their names."""


def add_sources(trees: tuple[SourceTree, ...]) -> None:
    """Make the sources of a search available to the configurations of its trials."""
    _trees[:] = [*trees, *(tree for tree in _trees if tree not in trees)]


def pinned(
    config: Any, space: SpaceFolder | None, suggest: Callable[..., object] | None = None
) -> Any:
    """Configuration whose objects name the digest of their source, read from a space's folder.

    Objects that name one keep it.

    Args:
        config: a trial.
        space: folder of the space that draws it; None before it is loaded.
        suggest: function of the space, in whose file or program the folder is then looked for.

    Raises:
        UserError: if the space has no such module, or the object has none and no space file.
    """
    parts = [part for _, part in custom_parts(config) if part.sha256 is None]
    if not parts:
        return config
    space = space or SpaceFolder.of_function(suggest)
    changes = {}
    for part in parts:
        if space.folders and not part.module:
            raise UserError(
                f"{part.object} has no module, and this search no space file, so workers cannot "
                f"import it; write it into a module, such as my_objects.py in {Path.cwd()}, and "
                f'name it "my_objects:{part.name}"',
                code="custom-without-module",
            )
        tree = space.source(part.module)
        _known[tree.digest] = tree
        changes[part] = part.model_copy(update={"sha256": tree.digest})
    return with_replaced(config, changes)


def take_sources(config: Any, space: Path) -> Any:
    """Trial whose own objects come from the folder of a space file that the user names.

    Args:
        config: the trial.
        space: the space file, which is not executed; if it is a search's copy, the copies before
            each change count as well.

    Returns:
        The trial, whose objects name their digests.

    Raises:
        UserError: if there is no such file or module, or the trial was drawn from another source.
    """
    if not space.is_file():
        raise UserError(
            f"there is no space file at {space}; give the one that defines the trial's objects",
            code="no-such-space",
        )
    folder, copies = SpaceFolder(space), search_sources(space, None)
    for _, part in custom_parts(config):
        kept = {tree.digest: tree for tree in (copy.part(part.module) for copy in copies)}
        tree = kept.get(part.sha256 or "") or folder.source(part.module)
        if part.sha256 not in (None, tree.digest):
            raise UserError(
                f"{part.object} next to {space} is not what the trial was drawn with (its source "
                f"has SHA-256 {tree.digest[:12]}…, not {str(part.sha256)[:12]}…); give the space "
                "file with its modules as they were, such as the copy in the search's folder",
                code="custom-source-changed",
            )
        _known[tree.digest] = tree
    return pinned(config, folder)


def load_object(settings: Custom) -> Any:
    """Import an object of the user from the source of its digest; each is imported once.

    Raises:
        UserError: if the source is not known or does not run, has no such object, or needs a
            package that is not installed.
    """
    require_packages(settings)
    tree = _source(settings)
    key = (tree.digest, settings.object)
    if key not in _objects:
        _objects[key] = _attribute(_import(settings, tree), settings)
    return _objects[key]


def build_object(settings: Custom, *, role: str) -> Callable[..., Any]:
    """Instance of a class with its parameters, or a function with them.

    Args:
        settings: the object.
        role: name of its kind in error messages, such as ``loss``.

    Raises:
        UserError: as ``load_object``, or if the class rejects its parameters.
    """
    found = load_object(settings)
    if not inspect.isclass(found):
        return partial(found, **settings.params)
    with own_code(settings, role):
        built: Any = found(**settings.params)
    if not callable(built):
        raise UserError(
            f"{role} {settings.object} cannot be called; give the class a method __call__",
            code="custom-not-callable",
        )
    return built


@contextmanager
def own_code(settings: Custom, role: str) -> Iterator[None]:
    """Run the user's code inside the block; its errors name the object and the line.

    What it imports there, such as inside a function, comes from its own source.

    Raises:
        UserError: in the place of any other exception but those of memory.
    """
    tree = _known.get(settings.sha256 or "")
    try:
        with nullcontext() if tree is None else _imported(tree):
            yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if "out of memory" in str(error):
            raise
        where = f" at {place}" if (place := user_location(error)) else ""
        raise UserError(
            f"{role} {settings.object} fails{where} ({type(error).__name__}: {reason(error)}); "
            "correct it, or its params",
            code="custom-failed",
        ) from error


def _source(settings: Custom) -> SourceTree:
    wanted = settings.sha256
    if wanted is None:
        raise UserError(
            f"{settings.object} has no digest, so its source is not known; give the space file "
            "that defines it with --space",
            code="custom-source-unknown",
        )
    if wanted not in _known:
        candidates = [tree.part(settings.module) for tree in _trees]
        _known.update({tree.digest: tree for tree in candidates if tree.files})
    if wanted not in _known:
        raise UserError(
            f"the source of {settings.object} with SHA-256 {wanted[:12]}… is not known here; give "
            "the space file that defines it, as it was then, with --space",
            code="custom-source-unknown",
        )
    return _known[wanted]


def require_packages(settings: Custom) -> None:
    """Check the packages that an object declares.

    Raises:
        UserError: naming those that are missing or of another version.
    """
    if wrong := missing_packages(settings.packages):
        raise UserError(
            f"{settings.object} needs {list_names(wrong, limit=3)}; install that on every machine "
            "that trains",
            code="missing-package",
        )


def missing_packages(wanted: tuple[str, ...]) -> list[str]:
    """Packages that are not installed here, or of another version than asked for."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for text in wanted:
        try:
            asked = Requirement(text)
            installed = metadata.version(asked.name)
        except (InvalidRequirement, metadata.PackageNotFoundError):
            found.append(f"{text} (not installed)")
            continue
        if not asked.specifier.contains(installed, prereleases=True):
            found.append(f"{text} (installed is {installed})")
    return found


def _attribute(module: ModuleType, settings: Custom) -> Any:
    found: Any = module
    for name in settings.name.split("."):
        found = getattr(found, name, None)
    if found is None:
        names = [name for name, value in vars(module).items() if callable(value)]
        own = [n for n in names if getattr(vars(module)[n], "__module__", "") == module.__name__]
        raise UserError(
            f"{settings.module or 'the space file'} defines no {settings.name}; it defines "
            f"{list_names(own, limit=5) or 'no class or function'}",
            code="custom-not-found",
        )
    if not callable(found):
        raise UserError(
            f"{settings.object} is a {type(found).__name__}; name a class or a function",
            code="custom-not-callable",
        )
    return found


def _import(settings: Custom, tree: SourceTree) -> ModuleType:
    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    importlib.invalidate_caches()
    try:
        with _imported(tree):
            return importlib.import_module(settings.module or SPACE_MODULE)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        where = f" at {place}" if (place := user_location(error)) else ""
        raise UserError(
            f"{settings.object} cannot be imported{where} ({type(error).__name__}: "
            f"{reason(error)}); correct its module",
            code="custom-not-importable",
        ) from error
    finally:
        sys.dont_write_bytecode = writes_nothing


@contextmanager
def _imported(tree: SourceTree) -> Iterator[None]:
    """Import the modules of a tree from its own folder inside the block, also inside functions.

    After it, Python's path is as before, and so are modules of the same names from elsewhere;
    those of the tree stay where there was none, for pickle and inspect.
    """
    if _active[-1:] == [tree.digest]:  # also a space file that checks itself while it is imported
        yield
        return
    folder, own = _written(tree.digest), _modules.setdefault(tree.digest, {})
    names = tree.module_names
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.modules.update(own)
    sys.path.insert(0, folder)
    _active.append(tree.digest)
    try:
        yield
    finally:
        _active.pop()
        sys.path.remove(folder)
        own.update({name: sys.modules[name] for name in names if name in sys.modules})
        sys.modules.update(before)


def forget_modules() -> None:
    """Forget the modules of all own objects, so that a space imports those of its own folder."""
    if not _objects:
        return
    own = str(_folder())
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(own):
            del sys.modules[name]


@cache
def _folder() -> Path:
    """Folder of this process for sources, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="hpsearch-source-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _written(digest: str) -> str:
    """Folder with the files of a source, which are written once."""
    folder = _folder() / digest[:16]
    for name, content in _known[digest].files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return str(folder)
