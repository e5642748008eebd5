"""Who may write a trial's files, and how they get to their place."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.execution.checkpoint_store import (
    ATTEMPTS,
    Keeper,
    SupersededError,
    link_files,
    read_files,
    write_files,
)

NAMES = st.sampled_from(["trial.pt", "folds.json", "fold-0/trial.pt", "fold-1/trial.pt"])
FILES = st.dictionaries(NAMES, st.binary(max_size=8))


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "store", tmp_path / "trials")


@pytest.mark.parametrize("by_path", [False, True], ids=["sent", "on a disk that both see"])
def test_a_start_that_was_overtaken_writes_nothing(
    keeper: Keeper, tmp_path: Path, by_path: bool
) -> None:
    def files(content: bytes) -> dict[str, bytes] | Path:
        write_files(tmp_path / "scratch", {"trial.pt": content})
        return tmp_path / "scratch" if by_path else {"trial.pt": content}

    old = keeper.start("000")
    keeper.keep("000", old, files(b"one report"))
    new = keeper.start("000")
    with pytest.raises(SupersededError, match="trial 000 goes on elsewhere"):
        keeper.keep("000", old, files(b"two reports"))
    assert keeper.fetch("000") == {"trial.pt": b"one report"}
    keeper.keep("000", new, files(b"three reports"))
    with pytest.raises(SupersededError):
        keeper.keep("000", old, files(b"two reports"))
    assert keeper.fetch("000") == {"trial.pt": b"three reports"}


def test_starts_of_an_earlier_driver_are_nothing_to_a_new_one(
    keeper: Keeper, tmp_path: Path
) -> None:
    before = keeper.start("000")
    keeper.end()
    shutil.rmtree(tmp_path / ATTEMPTS)  # how a new driver begins
    another = Keeper(tmp_path / "store", tmp_path / "trials")
    with pytest.raises(SupersededError):
        another.keep("000", before, {"trial.pt": b""})
    assert not another.ended()


def test_one_that_was_killed_goes_on_in_another_process(keeper: Keeper, tmp_path: Path) -> None:
    old, new = keeper.start("000"), keeper.start("000")
    keeper.end()
    another = Keeper(tmp_path / "store", tmp_path / "trials")
    with pytest.raises(SupersededError):
        another.keep("000", old, {"trial.pt": b"one report"})
    another.keep("000", new, {"trial.pt": b"two reports"})
    assert another.fetch("000") == {"trial.pt": b"two reports"}
    assert another.ended()


@settings(deadline=None, max_examples=50)
@given(before=FILES, after=FILES)
def test_linked_files_are_those_of_the_source_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder / "trial", before)
    write_files(folder / "scratch", after)
    for _ in range(2):  # the second time they are one file with two names
        link_files(folder / "scratch", folder / "trial")
        assert read_files(folder / "trial") == after
    write_files(folder / "scratch", before)
    assert read_files(folder / "trial") == after, "a later draft does not show through"
