"""MLflow's SQLite in homes of odd names, and in homes on network file systems."""

import fcntl
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hpsearch.errors import UserError
from hpsearch.locations import network_file_system
from hpsearch.search.workspace import Workspace
from hpsearch.tracking import relocation
from hpsearch.tracking.mlflow_errors import TRANSIENT_CODES, MlflowUnavailableError
from hpsearch.tracking.mlflow_tags import EXPERIMENT

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def forget_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow keeps the server of an earlier test in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize(
    "name", ["a b", "c#d", "100%", "e%41f", "what?", "$HOME", "a@b:c", "caf\u00e9 & co"]
)
def test_the_database_lies_in_the_home_whatever_its_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    tracking = Workspace(home).tracking()
    client = tracking.client()
    run = client.create_run(tracking.experiment_id())
    client.log_text(run.info.run_id, "found", "note.txt")
    assert (home / "mlflow.db").is_file()
    (note,) = home.rglob("note.txt")
    assert note.is_relative_to(home / "mlartifacts")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    renamed = home.rename(tmp_path / f"{name} moved")
    client = Workspace(renamed).tracking().client()
    assert client.list_artifacts(run.info.run_id)[0].path == "note.txt"
    assert [path.name for path in tmp_path.iterdir()] == [renamed.name]


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
90 22 0:50 / /srv/team\\040home rw,relatime - nfs4 filer:/team rw,vers=4.2
91 90 0:51 / /srv/team\\040home/scratch rw - ext4 /dev/vdb rw
92 22 0:52 / /mnt/s rw - fuse.sshfs ann@host: rw
93 22 0:53 / /mnt/o rw - overlay overlay rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/team home/runs/mlflow.db", "nfs4"),
        ("/srv/team home", "nfs4"),
        ("/srv/team home/scratch/runs", ""),
        ("/srv/team homes/runs", ""),
        ("/mnt/s/runs", "fuse.sshfs"),
        ("/mnt/o/runs", ""),
        ("/home/ann", ""),
    ],
)
def test_a_network_file_system_is_recognized_by_its_mount(
    tmp_path: Path, path: str, kind: str
) -> None:
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert network_file_system(Path(path), tmp_path / "mountinfo") == kind


@pytest.fixture
def network_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that counts as one on NFS, with a database that was left with a write-ahead log."""
    for module in ("relocation", "connection"):
        monkeypatch.setattr(f"hpsearch.tracking.{module}.network_file_system", lambda path: "nfs4")
    monkeypatch.setattr(relocation, "_machine_locks", {})
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE something (x)")
    yield tmp_path
    for lock in relocation._machine_locks.values():
        lock.close()


def journal_mode(home: Path) -> str:
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return database.execute("PRAGMA journal_mode").fetchone()[0]


def test_a_home_on_a_network_file_system_is_locked_and_has_no_write_ahead_log(
    network_home: Path,
) -> None:
    assert journal_mode(network_home) == "wal"
    tracking = Workspace(network_home).tracking()
    assert tracking.network_file_system == "nfs4"
    assert journal_mode(network_home) == "delete"
    with (network_home / "mlflow.lock").open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    relocation._machine_locks.popitem()[1].close()  # this process has ended
    Workspace(network_home).tracking()  # another of the same machine


def test_a_second_machine_that_writes_is_refused_and_may_read(network_home: Path) -> None:
    owner = {"host": "node-7", "boot": "another kernel"}
    (network_home / "mlflow.lock").write_text(json.dumps(owner))
    with (network_home / "mlflow.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        with pytest.raises(UserError, match="node-7 is writing") as refused:
            Workspace(network_home).tracking()
        assert refused.value.code == "mlflow-other-machine"
        assert Workspace(network_home).tracking(read_only=True).is_copy
    Workspace(network_home).tracking()  # the other process has ended
    assert json.loads((network_home / "mlflow.lock").read_text())["host"] != "node-7"


def test_a_locked_database_is_an_error_that_passes_and_not_a_home_that_was_not_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("CREATE TABLE experiments (name, artifact_location)")
        former = (tmp_path / "former" / "mlartifacts").as_uri()
        other.execute("INSERT INTO experiments VALUES (?, ?)", (EXPERIMENT, former))
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(relocation, "LOCK_WAIT_S", 0.0)
        with pytest.raises(MlflowUnavailableError) as caught:
            relocation.former_homes(tmp_path)
    assert caught.value.code in TRANSIENT_CODES
    assert str(database) in str(caught.value)
    assert relocation.former_homes(tmp_path) == (tmp_path / "former",)
