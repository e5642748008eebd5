"""Space files: a Python file that exports ``SEARCH``, executed once and checked.

A space may import modules of its own folder. A search keeps copies of them next to its copy of the
space, in ``space_modules``, from where they are imported when it is resumed.

A ``Search`` that was defined in a notebook has no file. ``space_text`` writes one for it: the
source of its ``suggest`` as a comment, and the whole object as cloudpickle stores it, with every
function and value of the notebook that it uses.
"""

import base64
import importlib.util
import inspect
import os
import pickle
import pickletools
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import cloudpickle
from pydantic import ValidationError

from hpsearch.atomic_files import write_atomic
from hpsearch.config.base import old_names_warned
from hpsearch.config.custom_import import forget_modules
from hpsearch.config.custom_source import (
    EARLIER_DIR,
    MODULES_DIR,
    SPACE_PREFIX,
    SpaceFolder,
)
from hpsearch.errors import OldSpellingWarning, UserError
from hpsearch.search.search import Search
from hpsearch.search.space_errors import first_line
from hpsearch.untrusted import is_of_library, user_location, validation_sentence


def load_search(path: Path, folder: SpaceFolder | None = None) -> Search:
    """Run a space file and return its ``SEARCH``.

    A file with names of version 0.1.0 gives one ``OldSpellingWarning``.

    Args:
        path: the file.
        folder: source of the user's own objects, if it is not the file's folder.

    Raises:
        UserError: if the file is missing, fails to run, or exports no Search.
    """
    if not path.is_file():
        raise UserError(
            f"there is no search space at {path}; pass the path of a Python file",
            code="no-such-space",
        )
    with (
        warnings.catch_warnings(record=True) as caught,
        old_names_warned(),
        _imports_from_folder_of(path),
    ):
        warnings.simplefilter("always", OldSpellingWarning)
        module = _run_file(path)
    _warn_once(path, caught)
    search = getattr(module, "SEARCH", None)
    if not isinstance(search, Search):
        raise UserError(
            f"{path} must export SEARCH = Search(...), found {type(search).__name__}",
            code="no-search-exported",
        )
    _folders[:] = [folder := folder or SpaceFolder.of(path)]
    return search.from_folder(folder)


@dataclass(frozen=True)
class _Imports:
    """Imports of the space that was loaded last, from its own folders."""

    folders: tuple[Path, ...]
    before: frozenset[str]
    """Modules that had been imported before."""

    def modules(self) -> dict[Path, ModuleType]:
        """Modules from the folders, by their path there."""
        found, inside = {}, tuple(f"{folder}{os.sep}" for folder in self.folders)
        for name, module in list(sys.modules.items()):
            file = str(getattr(module, "__file__", None) or "")
            if not file.startswith(inside) or is_of_library(file):
                continue
            stem = Path(*name.split("."))
            for relative in (stem.with_suffix(".py"), stem / "__init__.py"):
                if any(Path(file) == folder / relative for folder in self.folders):
                    found[relative] = module
        return found

    def forget(self) -> None:
        """Forget the modules, since the next space may have others of the same names."""
        for module in self.modules().values():
            if module.__name__ not in self.before:
                del sys.modules[module.__name__]


_latest: list[_Imports] = []
_folders: list[SpaceFolder] = []
"""Folder of the space that was loaded last."""
_appended: list[str] = []
"""Folders of spaces at the end of Python's path, the latest first."""


@contextmanager
def _imports_from_folder_of(path: Path) -> Iterator[None]:
    """Import modules of a space's folder first while it is executed, and last from then on."""
    while _latest:
        _latest.pop().forget()
    forget_modules()
    folder = path.absolute().parent
    folders = tuple(f for f in (folder / MODULES_DIR, folder) if f.is_dir())
    _latest.append(_Imports(folders, frozenset(sys.modules)))
    entries = [str(f) for f in folders if str(f) not in sys.path or str(f) in _appended]
    writes_nothing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path[:] = [*entries, *(entry for entry in sys.path if entry not in entries)]
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_nothing
        _appended[:] = [*entries, *(entry for entry in _appended if entry not in entries)]
        sys.path[:] = [*(entry for entry in sys.path if entry not in _appended), *_appended]


def imported_modules() -> dict[str, Path]:
    """Files that the space loaded last has imported from its own folder, by their path in it.

    Modules of the user's own objects that it names or has drawn so far are among them.
    """
    modules = _latest[-1].modules() if _latest else {}
    found = {path.as_posix(): Path(str(module.__file__)) for path, module in modules.items()}
    return {**(_folders[-1].used if _folders else {}), **found}


def space_modules() -> list[ModuleType]:
    """Modules that workers cannot import: executed spaces, and what the last of them imports."""
    spaces = [module for name, module in sys.modules.items() if name.startswith(SPACE_PREFIX)]
    return [*spaces, *(_latest[-1].modules().values() if _latest else ())]


def copy_modules(modules: Mapping[str, Path], folder: Path) -> None:
    """Copy modules of a space into a folder, which is created, and remove others there.

    Args:
        modules: files by their paths in the folder.
        folder: where the copies go.
    """
    contents = {name: file.read_bytes() for name, file in modules.items()}
    for old in folder.rglob("*.py"):
        if old.relative_to(folder).as_posix() not in contents:
            old.unlink()
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, content)


def keep_earlier_space(space: Path) -> None:
    """Keep a search's copies of its space and modules, because earlier trials may need them."""
    folder = space.with_name(EARLIER_DIR)
    kept = folder / str(1 + sum(1 for _ in folder.glob("*")))
    kept.mkdir(parents=True)
    write_atomic(kept / space.name, space.read_bytes())
    modules = space.with_name(MODULES_DIR)
    found = {path.relative_to(modules).as_posix(): path for path in modules.rglob("*.py")}
    copy_modules(found, kept / MODULES_DIR)


class _SpaceFileLoader(SourceFileLoader):
    """Loader that compiles the file as it is now and leaves no ``__pycache__`` next to it."""

    def path_stats(self, path: str) -> NoReturn:
        """Make the import system read and write no bytecode."""
        raise OSError(f"{path} has no cached bytecode")


def _validation_code(error: ValidationError) -> str:
    """Code of the first check that failed; ``invalid-setting`` for a check of pydantic."""
    cause = error.errors()[0].get("ctx", {}).get("error")
    return cause.code if isinstance(cause, UserError) else "invalid-setting"


def _run_file(path: Path) -> ModuleType:
    module_name = f"{SPACE_PREFIX}{path.stem}"
    if path.suffix != ".py":
        raise UserError(f"{path} is not a Python file; a search space ends in .py")
    loader = _SpaceFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise UserError(
            f"{path} is not a Python file; a search space ends in .py", code="no-python-file"
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses and pickle look up their module by name
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        where = user_location(error) or path.name
        raise UserError(
            f"{where}: {validation_sentence(error)}", code=_validation_code(error)
        ) from error
    except UserError as error:
        where = user_location(error) or path.name
        raise UserError(f"{where}: {error}", code=error.code) from error
    except (Exception, SystemExit) as error:  # the latter would end the command silently
        where = f" at {place}" if (place := user_location(error)) else ""
        raise UserError(
            f"{path} fails to run{where} ({type(error).__name__}: {first_line(error)}); correct "
            "the file",
            code="space-failed",
        ) from error
    return module


def _warn_once(path: Path, caught: Sequence[warnings.WarningMessage]) -> None:
    old = {
        str(one.message).removeprefix("old names: "): None
        for one in caught
        if one.category is OldSpellingWarning
    }
    for one in caught:
        if one.category is not OldSpellingWarning:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if old:
        warnings.warn(
            f"{path.name} has old names: {'; '.join(old)}", OldSpellingWarning, stacklevel=3
        )


DEFINED_SPACE = '''\
"""Search that was defined in Python {python}, without a file, as it was when it started."""

from hpsearch.search.space_file import stored_search

{source}
SEARCH = stored_search(
    """
{content}
""",
    python="{python}",
)
'''
"""Space file of a search that was defined in a notebook or another program."""


def space_text(search: Search) -> str:
    """Write a search as a space file that needs nothing of the program that defined it.

    Functions and classes of the user's own modules are stored by value, those of installed
    packages by name.

    Raises:
        UserError: if ``suggest`` uses something that cannot be stored, such as an open file.
    """
    modules = list(sys.modules.values())  # which has a module twice if it has an alias
    own = (module for module in modules if module and _is_of_user(module))
    mine = {module.__name__: module for module in own}.values()
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        content = cloudpickle.dumps({name: getattr(search, name) for name in _fields()})
    except Exception as error:  # pickling runs methods of any object that suggest refers to
        raise UserError(
            f"suggest uses something that cannot be stored ({first_line(error)}); create it inside "
            "suggest, or put the search into a Python file",
            code="search-not-storable",
        ) from error
    finally:
        for module in mine:
            cloudpickle.unregister_pickle_by_value(module)
    return DEFINED_SPACE.format(
        python=_python_version(),
        source=_commented_source(search.suggest),
        content="\n".join(textwrap.wrap(base64.b64encode(content).decode(), 96)),
    )


def stored_search(content: str, *, python: str) -> Search:
    """Return the search in a file of ``space_text``, which calls this.

    Args:
        content: the search, in Base64.
        python: version of Python that stored it; another one cannot read its functions.

    Raises:
        UserError: if this is another version of Python.
    """
    if python != _python_version():
        raise UserError(
            f"the search was defined in Python {python}, and its functions cannot be read by "
            f"Python {_python_version()}; use Python {python}, or put the search into a file",
            code="other-python",
        )
    return Search(**pickle.loads(base64.b64decode(content)))


def defined_folder(text: str) -> SpaceFolder:
    """Folders of the own objects of a search without a file, with the modules that it names.

    Args:
        text: of ``space_text``.
    """
    content = base64.b64decode(text.split('"""')[-2])
    texts = [found for _, found, _ in pickletools.genops(content) if isinstance(found, str)]
    return SpaceFolder.of_program(texts)


def _fields() -> list[str]:
    return list(Search.model_fields)


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _is_of_user(module: ModuleType) -> bool:
    """Return whether a module is one that another program could not import."""
    name, file = module.__name__, str(getattr(module, "__file__", None) or "<")
    return name != "__main__" and sys.modules.get(name) is module and not is_of_library(file)


def _commented_source(function: object) -> str:
    """Source of a function as comments, for readers; empty if it is not known."""
    try:
        source = textwrap.dedent(inspect.getsource(function))  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""
    return textwrap.indent(source, "# ", lambda line: True)
