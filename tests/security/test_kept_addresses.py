"""No password is kept: not in search.json, an event log, a job or a file that others may read."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.execution.job_checks import check_arguments
from hpsearch.execution.job_client import JobClient
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.event_log import EventLog

ROOT = Path(__file__).parents[2]
HIDDEN = "hid@den"


@pytest.mark.parametrize(
    "option",
    [
        f"--study=postgresql+psycopg://user:{HIDDEN}@127.0.0.1:1/db",
        f"--study=postgresql://127.0.0.1:1/db?user=me&password={HIDDEN}",
        f"--study=postgresql://127.0.0.1:1/db?sslpassword={HIDDEN}",
        f"--address=ray://user:{HIDDEN}@127.0.0.1:1",
        f"--tracking-uri=mysql+pymysql://user:{HIDDEN}@127.0.0.1:1/db",
        f"--tracking-uri=http://127.0.0.1:1/?access_token={HIDDEN}",
    ],
)
def test_a_search_refuses_an_address_with_a_password(
    option: str, command, space: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    ended = command("search", space, "--home", home, option)
    ended.is_one_sentence(option.partition("=")[0], "password", "$NAME")
    assert HIDDEN not in ended.said
    assert not list(home.glob("searches/*"))


def test_an_address_in_the_place_of_a_space_shows_no_password(command, tmp_path: Path) -> None:
    ended = command("search", "http://me:hidden@host/space.py", "--home", tmp_path / "home")
    ended.is_one_sentence("host")
    assert "hidden" not in ended.said


@pytest.mark.parametrize("field", ["study", "address", "warm_start_from"])
def test_so_does_the_folder_of_a_search(field: str, searched: SearchContext, space: Path) -> None:
    record = searched.record.model_copy(update={field: f"mysql://me:{HIDDEN}@host/db"})
    with pytest.raises(UserError, match="contains a password"):
        Workspace(searched.home).create("other", space, record)


@pytest.mark.parametrize("verb", ["submit", "status", "resume"])
def test_a_job_server_s_address_with_a_password_is_refused(verb: str, command, space: Path) -> None:
    what = space if verb == "submit" else "s"
    ended = command(verb, what, "--address", f"http://me:{HIDDEN}@127.0.0.1:1")
    ended.is_one_sentence("--address", "$NAME")
    assert HIDDEN not in ended.said


@pytest.mark.parametrize(
    "words",
    [
        ["--study", f"mysql://me:{HIDDEN}@h/db"],
        [f"--study=mysql://me:{HIDDEN}@h/db"],
        ["--tracking-uri", f"http://h/?api_key={HIDDEN}"],
        ["--study", f"postgresql://h/db?sslpassword={HIDDEN}"],
    ],
)
def test_no_job_is_given_a_password(words: list[str]) -> None:
    with pytest.raises(UserError, match=words[0].partition("=")[0]) as refused:
        check_arguments(words)
    assert HIDDEN not in str(refused.value)


def test_a_variable_in_the_address_of_a_job_server_is_filled_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PW", HIDDEN)
    with pytest.raises(UserError) as refused:
        _ = JobClient("http://me:$PW@127.0.0.1:1").client
    assert HIDDEN not in str(refused.value)


def test_a_variable_works_for_the_study_and_the_tracking_uri_and_is_what_is_kept(
    space: Path, tiny: PatchStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpsearch.search.study import open_study

    monkeypatch.setenv("SECRET_DB", f"{tmp_path}/s.db")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("PW", "p/w@x")
    workspace = Workspace(tmp_path / "home")
    tracking = workspace.tracking("http://me:$PW@127.0.0.1:1")
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "p/w@x"
    record = SearchRecord(
        space="space.py", store=str(tiny.path.absolute()), fingerprint=tiny.fingerprint,
        split="auto", tracking_uri=tracking.given, trials=2, study="sqlite:///$SECRET_DB",
    )  # fmt: skip
    context = workspace.create("s", space, record)
    open_study(context.paths.folder, search=context.search, url=context.record.study)
    assert (tmp_path / "s.db").exists()
    again = workspace.open("s")
    assert again.record.tracking_uri == "http://me:$PW@127.0.0.1:1"
    assert again.record.study == "sqlite:///$SECRET_DB"
    assert again.tracking().uri == "http://127.0.0.1:1"


def test_an_event_log_keeps_no_password_of_an_error(tmp_path: Path) -> None:
    event_log = EventLog(tmp_path / "ledger.jsonl")
    event_log.append(
        "trial_finished", trial="0", status="failed", traceback=f"at mysql://me:{HIDDEN}@h/db"
    )
    assert HIDDEN not in event_log.path.read_text()


def test_a_home_and_its_records_are_for_their_owner_alone(searched: SearchContext) -> None:
    home = searched.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    searched.with_record(trials=3)
    assert stat.S_IMODE((searched.paths.folder / "search.json").stat().st_mode) == 0o600


def test_a_home_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    Workspace(home).tracking()
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


def test_a_head_writes_its_token_for_its_owner_alone(tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    stand_in = tmp_path / "ray"
    stand_in.write_text(f"#!/bin/sh\nmkdir -p {token.parent}; echo x >> {token}; umask > $0.mask\n")
    stand_in.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    for script in (ROOT / "cluster/local/head.sh", ROOT / "cluster/local/worker.sh"):
        subprocess.run([script, "127.0.0.1"], check=True, env=path, capture_output=True)
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert (tmp_path / "ray.mask").read_text().strip().endswith("077")
    token.chmod(0o644)
    subprocess.run([ROOT / "cluster/local/head.sh"], check=True, env=path, capture_output=True)
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
