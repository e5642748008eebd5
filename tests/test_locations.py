"""Addresses as they are written down in a home, and found again where it lies now."""

from pathlib import Path

import pytest

from hpsearch.errors import UserError
from hpsearch.locations import database_path, located, moved, recorded
from hpsearch.tracking.connection import TrackingServer, resolve_tracking

INSIDE = ("{}data/mini.arrow", "sqlite:///{}mlflow.db", "journal:{}searches/a/b.journal")
ELSEWHERE = (
    "http://host:5000", "postgresql://host/mlflow", "sqlite:///:memory:", "sqlite:///file:/x?mode=ro",
    "journal:$PLACE/x", "",
)  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_lies_inside_moves_with_the_home(tmp_path: Path, address: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    written = recorded(address.format(f"{first}/"), first)
    assert written == address.format("")
    assert located(written, second) == address.format(f"{second}/")


@pytest.mark.parametrize("address", INSIDE)
def test_what_lies_outside_stays_where_it_is(tmp_path: Path, address: str) -> None:
    outside = address.format(f"{tmp_path}/outside/")
    written = recorded(outside, tmp_path / "home")
    assert written == outside
    assert located(written, tmp_path / "elsewhere") == outside


@pytest.mark.parametrize("address", ELSEWHERE)
def test_what_is_no_place_on_disk_is_left_alone(tmp_path: Path, address: str) -> None:
    assert recorded(address, tmp_path) == located(address, tmp_path) == address
    assert moved(address, tmp_path, [Path("/")]) == address


def test_a_relative_address_starts_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recorded("sqlite:///x/mlflow.db", Path("x")) == "sqlite:///mlflow.db"
    assert recorded("x.arrow", Path("home")) == str(tmp_path / "x.arrow")


def test_a_link_to_a_home_is_the_home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    assert recorded(str(tmp_path / "home" / "a"), tmp_path / "link") == "a"
    assert recorded(str(tmp_path / "link" / "a"), tmp_path / "home") == "a"


def test_an_absolute_address_into_a_former_home_leads_into_the_present_one(tmp_path: Path) -> None:
    former = [Path("/old/b"), Path("/old/a")]
    assert moved("/old/a/data/x", tmp_path, former) == str(tmp_path / "data" / "x")
    assert (
        moved("sqlite:////old/b/mlflow.db", tmp_path, former) == f"sqlite:///{tmp_path}/mlflow.db"
    )
    assert moved("/old/ab/data/x", tmp_path, former) == "/old/ab/data/x"
    assert moved("data/x", tmp_path, former) == "data/x"


def test_only_sqlite_has_a_file() -> None:
    assert database_path("sqlite:////a/b.db?timeout=9") == Path("/a/b.db")
    assert database_path("postgresql://host/a") is None
    assert database_path("sqlite:///:memory:") is None


def test_no_folder_is_made_where_a_database_was(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(UserError, match=f"no folder {gone} for MLflow's database"):
        resolve_tracking(f"sqlite:///{gone}/mlflow.db", tmp_path / "home")
    assert not gone.exists()


def test_a_server_is_written_down_by_its_name(tmp_path: Path) -> None:
    for uri in ("databricks", "http://host:5000"):
        assert TrackingServer(uri=uri, home=tmp_path).recorded == uri


def test_a_database_of_a_home_keeps_one_name_in_its_files(tmp_path: Path) -> None:
    tracking = TrackingServer(
        uri=f"sqlite:///{tmp_path}/mlflow.db", home=tmp_path, former=(Path("/old"),)
    )
    assert tracking.recorded == "sqlite:///mlflow.db"
    for written in ("sqlite:///mlflow.db", "sqlite:////old/mlflow.db", tracking.uri):
        assert tracking.renamed(written) == tracking.recorded
    for other in ("sqlite:////else/mlflow.db", "http://host:5000"):
        assert tracking.renamed(other) == other
