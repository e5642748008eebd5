"""Searches that have not begun."""

from pathlib import Path

from hpsearch.data.patch_store import PatchStore
from hpsearch.search.resources import Resources
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace


def plan(home: Path, store: PatchStore, space: str, **fields: object) -> SearchContext:
    """A search of a space, on the CPU.

    Args:
        fields: of its record, ``trials`` among them.
    """
    home.mkdir(exist_ok=True)
    (home / "space.py").write_text(space)
    record = SearchRecord.model_validate(
        {
            "space": "space.py", "store": str(store.path), "fingerprint": store.fingerprint,
            "split": "auto", "tracking_uri": "", "resources": Resources(device="cpu"), **fields,
        }
    )  # fmt: skip
    return Workspace(home).create("far", home / "space.py", record)
