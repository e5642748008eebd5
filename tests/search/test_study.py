"""Where a study may live, and what happens to its file when its writer dies."""

import fcntl
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from hpsearch.config import SGD, TrialConfig
from hpsearch.errors import UserError
from hpsearch.execution.optuna_searcher import OptunaSearcher
from hpsearch.search import study as study_module
from hpsearch.search.search import Search
from hpsearch.search.space_errors import translate_study_errors
from hpsearch.search.study import (
    check_study_complete,
    check_study_name_available,
    open_study,
)
from hpsearch.search.study_journal import grouped_writes, open_journal
from hpsearch.search.workspace import SearchRecord, Workspace


def suggest(trial: optuna.Trial) -> TrialConfig:
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)


SEARCH = Search(
    suggest=suggest, budget=100, report_every=10, trials=9, baseline=TrialConfig(patches=100)
)


@pytest.mark.parametrize("url", [None, "sqlite:///{}/s.db", "journal:{}/s.log", "journal:$HERE/x"])
def test_a_study_is_found_again_where_it_was_kept(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", str(tmp_path))
    url = url and url.format(tmp_path)
    open_study(tmp_path, search=SEARCH, url=url).ask().report(0.5, 10)
    (trial,) = open_study(tmp_path, search=SEARCH, url=url).trials
    assert trial.intermediate_values == {10: 0.5}


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("nonsense", "study-unavailable", "nonsense"),
        ("sqlite:////nowhere/at/all.db", "study-unavailable", "/nowhere/at/all.db"),
        ("strange://host/db", "study-unavailable", "strange://host/db"),
        ("journal:/nowhere/study.log", "no-such-folder", "/nowhere"),
    ],
)
def test_a_location_that_is_none_is_one_sentence(url: str, code: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as found:
        check_study_name_available(url, "name")
    assert found.value.code == code
    assert "\n" not in str(found.value)


def test_another_searchs_study_is_not_written_into(tmp_path: Path) -> None:
    url = f"journal:{tmp_path / 'all.log'}"
    check_study_name_available(url, tmp_path.name)
    open_study(tmp_path, search=SEARCH, url=url)
    with pytest.raises(UserError, match="--name") as caught:
        check_study_name_available(url, tmp_path.name)
    assert caught.value.code == "study-exists"


def test_a_journal_whose_last_line_was_cut_off_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    study.ask()
    with path.open("ab") as file:
        file.write(b'{"op_code": 5, "trial')
    study = optuna.load_study(storage=open_journal(path), study_name="s")
    study.tell(study.ask(), 0.5)
    again = optuna.load_study(storage=open_journal(path), study_name="s")
    assert [trial.state.name for trial in again.trials] == ["RUNNING", "COMPLETE"]


def hold(path: Path) -> None:
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (path.parent / "held").touch()
        time.sleep(60)


def test_a_lock_ends_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's own lock waits until a grace period has passed."""
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    holder = multiprocessing.get_context("fork").Process(target=hold, args=(path,))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waits"))
    study.ask()


def test_optuna_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    ours = optuna.create_study(storage=open_journal(path), study_name="s")
    theirs = optuna.load_study(
        storage=JournalStorage(JournalFileBackend(str(path))), study_name="s"
    )
    for study in (ours, theirs, ours):
        study.tell(study.ask(), 0.5)
    assert len(ours.trials) == len(theirs.trials) == 3


def test_a_group_of_writes_is_flushed_once_and_reports_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, flushed = open_journal(tmp_path / "study.journal"), list[int]()
    study = optuna.create_study(storage=storage, study_name="s")
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: [flush(number), flushed.append(number)])
    trial = study.ask()
    assert len(flushed) == 1, "outside a group each is"
    reader = optuna.load_study(storage=open_journal(tmp_path / "study.journal"), study_name="s")
    with grouped_writes(storage):
        for name in "abc":
            trial.suggest_float(name, 0, 1)
        assert reader.trials[0].params == trial.params, "others see them at once"
        assert len(flushed) == 1
    assert len(flushed) == 2
    for step in range(5):
        trial.report(0.5, step)
    with grouped_writes(storage):
        trial.report(0.5, 5)
    assert len(flushed) == 2
    study.tell(trial, 0.5)
    assert len(flushed) == 3
    assert len(reader.trials[0].intermediate_values) == 6


def write_trials(path: Path, name: str) -> None:
    study = optuna.load_study(storage=open_journal(path), study_name="s")
    for _ in range(20):
        study.ask().set_user_attr("writer", name)


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(storage=open_journal(path), study_name="s")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_trials, args=(path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [trial.user_attrs["writer"] for trial in study.trials]
    assert sorted(found) == ["a"] * 20 + ["b"] * 20


SPACE = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=9,
                baseline=TrialConfig(patches=100))
"""


@pytest.mark.parametrize("url", [None, "sqlite:///study.db", "journal:study.log"])
def test_a_search_that_is_renamed_and_resumed_from_elsewhere_has_its_study(
    tmp_path: Path, url: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("space.py").write_text(SPACE)
    record = SearchRecord(
        space="space.py", store="x", fingerprint="", split="auto", tracking_uri="", trials=9,
        study=url,
    )  # fmt: skip
    context = Workspace(Path("home")).create("old", Path("space.py"), record)
    study = open_study(context.paths.folder, search=context.search, url=url)
    config = context.search.suggest_config(study.ask()).model_dump(mode="json")
    context.event_log.append("start", trial="000", number=0, config=config)
    context.paths.folder.rename(context.paths.folder.with_name("new"))
    monkeypatch.chdir(tmp_path / "there")
    moved = Workspace(tmp_path / "here" / "home").open("new")
    check_study_complete(moved)
    found = open_study(moved.paths.folder, search=moved.search, url=moved.record.study)
    assert len(found.trials) == 1
    assert found.study_name == "old"
    assert not list(Path.cwd().iterdir()), "nothing is created where it was resumed"


def test_a_study_without_the_trials_of_the_event_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(SPACE)
    record = SearchRecord(
        space="space.py", store="x", fingerprint="", split="auto", tracking_uri="", trials=9
    )
    context = Workspace(tmp_path / "home").create("mine", tmp_path / "space.py", record)
    check_study_complete(context)  # no trial has begun
    study = open_study(context.paths.folder, search=context.search)
    for number in range(2):
        config = context.search.suggest_config(study.ask()).model_dump(mode="json")
        context.event_log.append("start", trial=f"00{number}", number=number, config=config)
    check_study_complete(context)
    (journal,) = context.paths.folder.glob("*.journal")
    journal.unlink()
    with pytest.raises(UserError, match=r"0 of the 2 trials.*hpsearch sync mine") as caught:
        check_study_complete(context)
    assert caught.value.code == "study-incomplete"
    assert not journal.exists(), "no study is made in its place"


def test_a_locked_database_is_no_mistake_of_the_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study_module, "LOCK_TIMEOUT_S", 0.1)
    (tmp_path / "space.py").write_text(SPACE)
    database = tmp_path / "study.db"
    url = f"sqlite:///{database}"
    searcher = OptunaSearcher(tmp_path, space=tmp_path / "space.py", trials=9, url=url)
    assert isinstance(searcher.suggest("a"), dict)
    with sqlite3.connect(database, isolation_level=None) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UserError) as caught, translate_study_errors(url):
            searcher.suggest("b")
        assert caught.value.code == "study-unavailable"
        assert "database is locked" in str(caught.value)
        assert "correct the space" not in str(caught.value)
    assert isinstance(searcher.suggest("b"), dict), "it answers again"
