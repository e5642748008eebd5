"""Files that are there whole or not at all, whatever is killed or full meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write beside ``path``, which it replaces when the block ends.

    If the block raises, the draft is removed and what stood at ``path`` still does.
    """
    draft = path.with_name(f"{path.name}.part")
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Replace a file's content, and make its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
