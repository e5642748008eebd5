"""A file is replaced whole, or stays as it was."""

from pathlib import Path

import pytest

from hpsearch.atomic_files import atomic_write, write_atomic


def test_what_fails_half_way_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    write_atomic(path, "old ±")
    assert path.read_bytes() == "old ±".encode()

    def fail(draft: Path) -> None:
        draft.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), atomic_write(path) as draft:
        fail(draft)
    assert path.read_text() == "old ±"
    assert list(path.parent.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
