"""Files that are there whole or not at all, whatever is killed or full meanwhile."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
FULL_WORDS = ("No space left on device", "Disk quota exceeded")
"""What the system calls them, for whoever has the text alone."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write beside ``path``, which it replaces when the block ends.

    If the block raises, the draft is removed and what stood at ``path`` still does. A draft that a
    killed process left is removed first: it may be a second name of a file that is in use.
    """
    draft = path.with_name(f"{path.name}.part")
    draft.unlink(missing_ok=True)
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


def is_full_disk(error: BaseException) -> bool:
    """Whether the cause, however far down, is a disk without room."""
    return any(
        getattr(cause, "errno", None) in FULL or any(words in str(cause) for words in FULL_WORDS)
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
