"""A hook of mkdocs: pages of ``docs/`` that the navigation does not list come at its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def listed(nav: Any) -> Iterator[str]:
    """Paths of pages in a navigation, with those of its sections."""
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from listed(each)


def add_unlisted(nav: list[Any], folder: Path) -> list[Any]:
    """A navigation with a section ``More`` of the pages of a folder that it does not list."""
    pages = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")}
    unlisted = sorted(pages - set(listed(nav)))
    return [*nav, {"More": unlisted}] if unlisted else nav


def on_config(config: Any) -> Any:
    """Complete the navigation; mkdocs calls this before it reads the pages."""
    config.nav = add_unlisted(config.nav, Path(config.docs_dir))
    return config
