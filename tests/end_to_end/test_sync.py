"""``hpsearch sync``, and what a user may do wrong with MLflow: in process, for speed."""

import json
import socket
from pathlib import Path

import pytest

from hpsearch.cli.results import sync, ui
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.tracking.connection import MLFLOW_VARIABLES
from hpsearch.tracking.mlflow_tags import SEARCH_ID, TRIAL_ID_TAG

from .conftest import SPACE
from .sample_search import write_trials

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def context(tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch) -> SearchContext:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made(Workspace(tmp_path / "home"), tiny)


def made(workspace: Workspace, tiny: PatchStore, uri: str | None = None) -> SearchContext:
    record = SearchRecord(
        space=str(SPACE), store=str(tiny.path), fingerprint=tiny.fingerprint, split="auto",
        tracking_uri=workspace.tracking(uri).uri, trials=3,
    )  # fmt: skip
    return workspace.create("written", SPACE, record)


def runs(context: SearchContext, uri: str | None = None) -> dict[str, str]:
    tracking = Workspace(context.home).tracking(uri) if uri else context.tracking()
    client = tracking.client()
    experiment = client.get_experiment_by_name("hpsearch")
    assert experiment is not None
    rule = f"tags.`{SEARCH_ID}` = '{context.event_log.search_id()}'"
    found = client.search_runs([experiment.experiment_id], rule)
    return {run.data.tags.get(TRIAL_ID_TAG, ""): run.info.run_id for run in found}


def test_a_deleted_run_is_made_again_and_another_server_gets_them_all(
    context: SearchContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_trials(context.event_log)
    home = context.home
    sync("written", pictures=False, tracking_uri=None, home=home)
    assert "4 runs (4 new), 8 reports sent, 0 already present" in capsys.readouterr().out
    context.tracking().client().delete_run(runs(context)["t0"])
    sync("written", pictures=False, tracking_uri=None, home=home)
    assert "4 runs (1 new), 4 reports sent, 4 already present" in capsys.readouterr().out
    before = runs(context)
    sync("written", pictures=False, tracking_uri=None, home=home)
    assert "4 runs (0 new), 0 reports sent, 8 already present" in capsys.readouterr().out
    assert runs(context) == before
    other = f"sqlite:///{tmp_path}/other.db"
    sync("written", pictures=False, tracking_uri=other, home=home)
    assert "4 runs (4 new), 8 reports sent, 0 already present" in capsys.readouterr().out
    assert runs(context, other).keys() == before.keys()


def test_an_empty_search_is_refused(context: SearchContext) -> None:
    with pytest.raises(UserError, match="'written'") as caught:
        sync("written", pictures=False, tracking_uri=None, home=context.home)
    assert caught.value.code == "empty-search"


def test_a_server_that_does_not_answer_is_refused(context: SearchContext) -> None:
    write_trials(context.event_log)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UserError, match=uri) as caught:
            sync("written", pictures=False, tracking_uri=uri, home=context.home)
        assert caught.value.code == "mlflow-unreachable"


def test_the_page_of_a_search_that_mlflow_does_not_know_is_refused(context: SearchContext) -> None:
    write_trials(context.event_log)
    with pytest.raises(UserError, match="hpsearch sync written"):
        ui("written", port=port(), tracking_uri=None, home=context.home)


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_password_in_the_uri_is_written_nowhere(
    tmp_path: Path, tiny: PatchStore, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name in MLFLOW_VARIABLES:
        monkeypatch.setenv(name, "before")
    context = made(Workspace(tmp_path), tiny, "http://ann:s3cret@127.0.0.1:9")
    write_trials(context.event_log)
    mlflow_sync = context.mlflow_sync()
    mlflow_sync.start()
    assert not mlflow_sync.stop(timeout=20)
    output = capsys.readouterr()
    files = b"".join(
        path.read_bytes() for path in context.paths.folder.rglob("*") if path.is_file()
    )
    assert b"s3cret" not in files
    assert "s3cret" not in output.out + output.err + mlflow_sync.last_error + repr(mlflow_sync)
    record = json.loads((context.paths.folder / "search.json").read_text())
    assert record["tracking_uri"] == "http://127.0.0.1:9"
