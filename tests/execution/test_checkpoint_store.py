"""Who may write a trial's files, and how they get to their place."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.atomic_files import write_with_checksum
from hpsearch.execution.checkpoint_store import (
    ATTEMPTS_DIR,
    CheckpointStore,
    StaleAttemptError,
    hardlink_files,
    read_files,
    write_files,
)

NAMES = st.sampled_from(["trial.pt", "folds.json", "fold-0/trial.pt", "fold-1/trial.pt"])
FILES = st.dictionaries(NAMES, st.binary(max_size=8))


@pytest.fixture
def checkpoint_store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", tmp_path / "trials")


@pytest.mark.parametrize("by_path", [False, True], ids=["sent", "on a disk that both see"])
def test_a_start_that_was_overtaken_writes_nothing(
    checkpoint_store: CheckpointStore, tmp_path: Path, by_path: bool
) -> None:
    def files(content: bytes) -> dict[str, bytes] | Path:
        write_files(tmp_path / "scratch", {"trial.pt": content})
        return tmp_path / "scratch" if by_path else {"trial.pt": content}

    old = checkpoint_store.begin_attempt("000")
    checkpoint_store.save_files("000", old, files(b"one report"))
    new = checkpoint_store.begin_attempt("000")
    with pytest.raises(StaleAttemptError, match="trial 000 was resumed elsewhere"):
        checkpoint_store.save_files("000", old, files(b"two reports"))
    assert checkpoint_store.load_files("000") == {"trial.pt": b"one report"}
    checkpoint_store.save_files("000", new, files(b"three reports"))
    with pytest.raises(StaleAttemptError):
        checkpoint_store.save_files("000", old, files(b"two reports"))
    assert checkpoint_store.load_files("000") == {"trial.pt": b"three reports"}


def test_starts_of_an_earlier_driver_are_nothing_to_a_new_one(
    checkpoint_store: CheckpointStore, tmp_path: Path
) -> None:
    before = checkpoint_store.begin_attempt("000")
    checkpoint_store.announce_shutdown()
    shutil.rmtree(tmp_path / ATTEMPTS_DIR)  # how a new driver begins
    another = CheckpointStore(tmp_path / "store", tmp_path / "trials")
    with pytest.raises(StaleAttemptError):
        another.save_files("000", before, {"trial.pt": b""})
    assert not another.is_shutting_down()


def test_one_that_was_killed_goes_on_in_another_process(
    checkpoint_store: CheckpointStore, tmp_path: Path
) -> None:
    old, new = checkpoint_store.begin_attempt("000"), checkpoint_store.begin_attempt("000")
    checkpoint_store.announce_shutdown()
    another = CheckpointStore(tmp_path / "store", tmp_path / "trials")
    with pytest.raises(StaleAttemptError):
        another.save_files("000", old, {"trial.pt": b"one report"})
    another.save_files("000", new, {"trial.pt": b"two reports"})
    assert another.load_files("000") == {"trial.pt": b"two reports"}
    assert another.is_shutting_down()


@settings(deadline=None, max_examples=50)
@given(before=FILES, after=FILES)
def test_linked_files_are_those_of_the_source_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder / "trial", before)
    write_files(folder / "scratch", after)
    for _ in range(2):  # the second time they are one file with two names
        hardlink_files(folder / "scratch", folder / "trial")
        assert read_files(folder / "trial") == after
    write_files(folder / "scratch", before)
    assert read_files(folder / "trial") == after, "a later draft does not show through"


def test_a_sent_checkpoint_replaces_a_whole_one_that_is_kept_and_a_damaged_one_that_is_not(
    checkpoint_store: CheckpointStore, tmp_path: Path
) -> None:
    attempt = checkpoint_store.begin_attempt("000")

    def save(number: int) -> dict[str, bytes]:
        for folder in ("", "fold-0"):
            path = tmp_path / "scratch" / folder / "trial.pt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_with_checksum(path, bytes([number]))
        checkpoint_store.save_files("000", attempt, read_files(tmp_path / "scratch"))
        held = checkpoint_store.load_files("000")
        return {name: content[:1] for name, content in held.items()}

    assert save(1) == {"trial.pt": b"\1", "fold-0/trial.pt": b"\1"}
    both = {"trial.previous.pt": b"\1", "fold-0/trial.previous.pt": b"\1"}
    assert save(2) == {"trial.pt": b"\2", "fold-0/trial.pt": b"\2"} | both
    latest = tmp_path / "trials" / "000" / "trial.pt"
    latest.write_bytes(latest.read_bytes()[:-1])
    both |= {"fold-0/trial.previous.pt": b"\2"}
    assert save(3) == {"trial.pt": b"\3", "fold-0/trial.pt": b"\3"} | both
