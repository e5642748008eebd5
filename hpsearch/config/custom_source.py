"""Source of the user's own objects: its files, its digest, and its way to workers.

A configuration names an object and the digest of its source, and imports nothing by itself. The
source is that of a space file that the user names, or of a search's copy of it; an object is only
imported from a source with the digest of the configuration.
"""

import ast
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from hpsearch.errors import UserError
from hpsearch.untrusted import is_of_library

SPACE_PREFIX = "hpsearch_space_"
"""Beginning of the name under which a space file is executed as a module."""
SPACE_MODULE = "hpsearch_space_source"
"""Name under which the space file itself is imported for an object that it defines."""
MODULES_DIR = "space_modules"
"""Folder next to a search's copy of its space, with copies of the modules that it imports."""
EARLIER_DIR = "earlier_spaces"
"""Folder next to a search's copy of its space, with the copies before each change of it."""
NAMED_OBJECT = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):[A-Za-z_][\w.]*")

Read = Callable[[str], bytes | None]
"""Function from the path of a module in the folder of a space to its content; None without one."""


@dataclass(frozen=True)
class SourceTree:
    """Files of a space and of modules next to it, by their path; small, and pickled to workers.

    Args:
        files: contents by path with slashes; the space file is ``hpsearch_space_source.py``.
    """

    files: Mapping[str, bytes] = field(default_factory=dict)

    def part(self, module: str) -> "SourceTree":
        """Source of one module: its file and those of the modules in the tree that it imports."""
        return SourceTree(_closure(module or SPACE_MODULE, self.files.get))

    @cached_property
    def module_names(self) -> frozenset[str]:
        """Names under which its files are imported, with those of the packages around them."""
        paths = [PurePosixPath(name).with_suffix("").parts for name in self.files]
        named = [parts[:-1] if parts[-1] == "__init__" else parts for parts in paths]
        return frozenset(".".join(n[:count]) for n in named for count in range(1, len(n) + 1))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all names and contents, in hex."""
        seen = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            seen.update(f"{name}\0{len(content)}\0".encode())
            seen.update(content)
        return seen.hexdigest()


def search_sources(space: Path, origin: "SpaceFolder | None") -> tuple[SourceTree, ...]:
    """Sources of a search: the copies of its space and of its modules, now and before each change.

    Args:
        space: the search's copy of its space file.
        origin: folder that its objects came from; of a promotion, that of the promoted search.
    """
    spaces = [space] if origin is None or origin.space == space else [space, origin.space]
    earlier = [p for one in spaces for p in one.with_name(EARLIER_DIR).glob(f"*/{one.name}")]
    found = [] if origin is None else list(origin.trees.values())
    for copy in (*spaces, *sorted(earlier)):
        folder = copy.with_name(MODULES_DIR)
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.py")}
        if copy.is_file():
            files[f"{SPACE_MODULE}.py"] = copy.read_bytes()
        found.append(SourceTree(files))
    return tuple(found)


@dataclass
class SpaceFolder:
    """Folder of a space file, from which the sources of its objects are read once each."""

    space: Path
    folders: tuple[Path, ...] = ()
    """Folders of the modules of a search without a space file; empty for one that has a file."""
    used: dict[str, Path] = field(default_factory=dict)
    """Files of objects so far, without the space file, by their path in the folder."""
    trees: dict[str, SourceTree] = field(default_factory=dict)
    """Sources by module."""

    @classmethod
    def of(cls, space: Path) -> "SpaceFolder":
        """Folder of a space, with the modules that its text names as ``"MODULE:NAME"``."""
        found = cls(space)
        found.read_named(named_modules(space.read_bytes()))
        return found

    @classmethod
    def of_function(cls, suggest: Callable[..., object] | None) -> "SpaceFolder":
        """Folder of the space file that defines a function; else those of this program."""
        defined = getattr(suggest and inspect.unwrap(suggest), "__globals__", {})
        if str(defined.get("__name__")).startswith(SPACE_PREFIX):
            return cls(Path(defined["__file__"]))
        return cls.of_program(())

    @classmethod
    def of_program(cls, texts: Iterable[str]) -> "SpaceFolder":
        """Folders from which this program imports its modules, with those that ``texts`` name."""
        folders = dict.fromkeys(Path(entry or ".").absolute() for entry in sys.path)
        found = cls(Path.cwd() / "search", tuple(folder for folder in folders if folder.is_dir()))
        found.read_named(modules_in(texts))
        return found

    def read_named(self, modules: Iterable[str]) -> None:
        """Read the sources of those modules that there are."""
        for module in modules:
            if _closure(module, self.read_module):
                self.source(module)

    def source(self, module: str) -> SourceTree:
        """Source of a module.

        Raises:
            UserError: if there is no such module next to the space file.
        """
        if module not in self.trees:
            found = _closure(module or SPACE_MODULE, self.read_module)
            if not _has_module(found, module or SPACE_MODULE):
                here = self.space.absolute().parent
                where = f"in {here}" if self.folders else f"next to {self.space.name} in {here}"
                raise UserError(
                    f"there is no module {module}.py {where}; create it, or correct the object's "
                    "name",
                    code="custom-not-found",
                )
            self.trees[module] = SourceTree(found)
        return self.trees[module]

    def read_module(self, name: str) -> bytes | None:
        """Content of a file by its path in the folder; None if there is none of the user's."""
        if name == f"{SPACE_MODULE}.py":
            return self.space.read_bytes() if self.space.is_file() else None
        here = self.space.absolute().parent
        for folder in self.folders or (here / MODULES_DIR, here):
            path = folder / name
            if path.is_file() and not is_of_library(path):
                self.used[name] = path
                return path.read_bytes()
        return None


def named_modules(content: bytes) -> list[str]:
    """Modules that the texts in a Python file name as ``"MODULE:NAME"``."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return []
    values = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    return modules_in(value for value in values if isinstance(value, str))


def modules_in(texts: Iterable[str]) -> list[str]:
    """Modules that texts name as ``"MODULE:NAME"``."""
    found = [NAMED_OBJECT.fullmatch(text) for text in texts]
    return list(dict.fromkeys(match[1] for match in found if match))


def _has_module(files: Mapping[str, bytes], module: str) -> bool:
    stem = module.replace(".", "/")
    return f"{stem}.py" in files or f"{stem}/__init__.py" in files


def _closure(module: str, read: Read) -> dict[str, bytes]:
    """Files of a module, of the packages around it, and of the modules there that it imports."""
    found: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        for name, content in _files(waiting.pop(), read):
            if name not in found:
                found[name] = content
                waiting += imported_names(name, content)
    return found


def _files(module: str, read: Read) -> Iterator[tuple[str, bytes]]:
    """Files that an import of ``a.b`` executes: of package a, then of module or package b."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        stem = "/".join(parts[:count])
        for name in (f"{stem}/__init__.py", f"{stem}.py"):  # as Python prefers a package
            content = read(name)
            if content is not None:
                yield name, content
                break


def imported_names(file: str, content: bytes) -> list[str]:
    """Dotted names that a file may import as modules, also inside functions."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return []  # importing it reports where
    package = list(PurePosixPath(file).parent.parts)
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            found += [stem, *(f"{stem}.{alias.name}".lstrip(".") for alias in node.names)]
    return [name for name in found if name and name.partition(".")[0] != "hpsearch"]
