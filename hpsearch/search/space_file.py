"""Space files: a Python file that exports ``SEARCH``, executed once and checked."""

import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pydantic import ValidationError

from hpsearch.config.base import old_names_warned
from hpsearch.errors import OldSpellingWarning, UserError
from hpsearch.search.search import Search
from hpsearch.search.space_errors import first_line
from hpsearch.untrusted import user_location, validation_sentence


def load_search(path: Path) -> Search:
    """Run a space file and return its ``SEARCH``.

    A file with names of version 0.1.0 gives one ``OldSpellingWarning``.

    Raises:
        UserError: if the file is missing, fails to run, or exports no Search.
    """
    if not path.is_file():
        raise UserError(
            f"there is no search space at {path}; pass the path of a Python file",
            code="no-such-space",
        )
    with warnings.catch_warnings(record=True) as caught, old_names_warned():
        warnings.simplefilter("always", OldSpellingWarning)
        module = _run_file(path)
    _warn_once(path, caught)
    search = getattr(module, "SEARCH", None)
    if not isinstance(search, Search):
        raise UserError(
            f"{path} must export SEARCH = Search(...), found {type(search).__name__}",
            code="no-search-exported",
        )
    return search


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
    module_name = f"hpsearch_space_{path.stem}"
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
