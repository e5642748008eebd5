"""A registered model put to use: described, exported, served, made into an ensemble; never run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from hpsearch.evaluation.descriptor_io import read_descriptors
from hpsearch.models import describe
from hpsearch.models.onnx_export import ONNX_FILE, missing_onnx_packages, onnx_descriptor
from hpsearch.patch_views import VIEW_NAMES
from hpsearch.promotion.ensemble import concat_training_descriptors
from hpsearch.tracking.model_registry import Registry

from .conftest import SLOW_WITH_MLFLOW

pytestmark = SLOW_WITH_MLFLOW
CHAMPION = "models:/patches@champion"


@pytest.fixture(scope="module")
def expected(registered):
    """The champion's descriptors of every noisy patch of the store."""
    return describe(registered.pipelines[0], registered.store.noisy.reshape(-1, 32, 32))


def strips(folder: Path, pixels: np.ndarray) -> None:
    """One sequence of an HPatches tree."""
    folder.mkdir(parents=True)
    for view, name in enumerate(VIEW_NAMES):
        Image.fromarray(np.vstack(pixels[:, view])).save(folder / f"{name}.png")


def test_a_store_is_described_in_three_forms(registered, expected, tmp_path, capsys):
    for name in ("x.npy", "x.parquet", "x"):
        registered.run("describe", CHAMPION, registered.store.path, "--output", tmp_path / name)
        assert "patches a second" in capsys.readouterr().out
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, atol=1e-5)
    table = parquet.read_table(tmp_path / "x.parquet")
    np.testing.assert_allclose(np.stack(table["descriptor"].to_numpy()), expected, atol=1e-5)
    rows = [rows.reshape(-1, 128) for rows in read_descriptors(tmp_path / "x").values()]
    np.testing.assert_allclose(np.concatenate(rows), expected, atol=1e-5)


def test_strips_pictures_and_arrays_give_what_the_store_gives(registered, expected, tmp_path):
    store = registered.store
    count = store.counts[0]
    strips(tmp_path / "tree" / store.names[0], store.noisy[:count])
    (tmp_path / "pictures" / "b").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(store.noisy[0, i]).save(tmp_path / "pictures" / "b" / f"{i}.png")
    Image.fromarray(np.repeat([[7]], 65, 0).repeat(65, 1).astype(np.uint8)).save(
        tmp_path / "pictures" / "large.png"
    )
    np.save(tmp_path / "floats.npy", store.noisy[:2].reshape(-1, 32, 32).astype(np.float32))
    np.save(tmp_path / "none.npy", np.empty((0, 32, 32), np.uint8))
    np.save(tmp_path / "large.npy", np.full((1, 65, 65), 7, np.uint8))
    found = {}
    for name in ("tree", "pictures", "floats.npy", "none.npy", "large.npy"):
        to = tmp_path / f"{name}.parquet"
        registered.run("describe", CHAMPION, tmp_path / name, "--output", to)
        found[name] = parquet.read_table(to)
    rows = {
        name: np.array(table["descriptor"].to_pylist(), np.float32) for name, table in found.items()
    }
    np.testing.assert_allclose(rows["tree"], expected[: 16 * count], atol=1e-5)
    np.testing.assert_allclose(rows["pictures"][:3], expected[:3], atol=1e-5)
    np.testing.assert_allclose(rows["floats.npy"], expected[:32], atol=1e-5)
    np.testing.assert_allclose(rows["pictures"][3:], rows["large.npy"], atol=1e-6)
    assert found["pictures"]["sequence"].to_pylist() == ["b/0", "b/1", "b/2", "large"]
    assert len(rows["none.npy"]) == 0


def test_bad_input_is_one_sentence_and_leaves_nothing(registered, refused, tmp_path):
    def array(values) -> Path:
        np.save(tmp_path / "in.npy", values)
        return tmp_path / "in.npy"

    def describing(patches, to="out.npy", model=CHAMPION) -> str:
        return refused("describe", model, patches, "--output", tmp_path / "out" / to)

    assert "(4, 5, 32)" in describing(array(np.zeros((4, 5, 32))))
    assert "nan in patch 0" in describing(array(np.full((1, 32, 32), np.nan)))
    assert "no-file" in describing(tmp_path / "missing.npy")
    assert "nowhere" in describing("nowhere")
    assert "no-patches" in describing(registered.home / "pipeline0")
    assert "unknown-format: .csv" in describing(registered.store.path, "out.csv")
    assert "no-sequences-and-views" in describing(array(np.zeros((1, 32, 32))), "csv")
    assert "no-such-model: 'nobody'" in describing("tiny", model="nobody")
    assert "Registered model alias" in describing("tiny", model="models:/patches@nobody")
    Image.new("RGB", (32, 32)).save(tmp_path / "colour.png")
    assert "in mode RGB" in describing(tmp_path)
    assert not list((tmp_path / "out").glob("*"))


def test_an_artifact_that_brings_code_is_refused_and_not_run(registered, refused, tmp_path):
    artifact, ran = registered.artifact(2), tmp_path / "ran"
    (artifact / "code").mkdir()
    (artifact / "code" / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n_load_pyfunc = print\n")
    expected = (artifact / "MLmodel").read_text()
    ours = "loader_module: hpsearch.models.serialization"
    assert ours in expected
    changes = {
        f"{ours}\n    code: code": "artifact-with-code",
        "loader_module: evil\n    code: code": "'evil'",
        "loader_module: os": "'os'",
    }
    try:
        for change, words in changes.items():
            (artifact / "MLmodel").write_text(expected.replace(ours, change))
            for command in (
                (
                    "describe",
                    "models:/patches/2",
                    registered.store.path,
                    "--output",
                    tmp_path / "x.npy",
                ),
                ("evaluate", "models:/patches/2", "--data", registered.store.path),
                ("ensemble", "patches@1", "patches@2", "--name", "evil"),
            ):
                error = refused(*command)
                assert words in error
                assert error.split(":")[0] in {"artifact-with-code", "unknown-loader"}
        (artifact / "MLmodel").write_text(expected.replace("data: data", "data: ../../.."))
        assert "artifact-outside-folder" in refused(*command)
        (artifact / "MLmodel").write_text("[")
        assert "unreadable-artifact" in refused(*command)
    finally:
        (artifact / "MLmodel").write_text(expected)
    assert not ran.exists()
    assert "evil" not in sys.modules


def test_an_ensemble_is_scored_registered_and_used(registered, tmp_path, capsys):
    registered.run(
        "ensemble", "patches@champion", "models:/patches/2", "--name", "both", "--combine", "mean",
        "--data", registered.store.path,
    )  # fmt: skip
    assert "Registered both version 1 " in capsys.readouterr().out
    x = np.array(registered.store.noisy[:2].reshape(-1, 32, 32))
    np.save(tmp_path / "x.npy", x)
    registered.run("describe", "models:/both/1", tmp_path / "x.npy", "--output", tmp_path / "y.npy")
    each = [describe(pipeline, x) for pipeline in registered.pipelines]
    total = sum(rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in each)
    mean = total / np.linalg.norm(total, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), mean, atol=1e-5)
    mlflow.set_tracking_uri(registered.uri)
    by_mlflow = mlflow.pyfunc.load_model("models:/both/1").predict(x)
    np.testing.assert_allclose(by_mlflow, mean, atol=1e-5)
    version = mlflow.MlflowClient(registered.uri).get_model_version("both", "1")
    assert version.tags["members"] == "patches@1, patches@2"
    pages = list((registered.home / "judged").glob("*.json"))
    assert len(pages) == 3, "its test scores and those of two baselines are written down"
    run = mlflow.MlflowClient(registered.uri).get_run(version.run_id)
    assert run.info.status == "FINISHED"
    assert "test/mAP" in run.data.metrics
    card = next(registered.artifact(1, "both").rglob("README.md")).read_text()
    assert "- models:/patches/1\n- models:/patches/2" in card
    if not missing_onnx_packages():
        (program,) = registered.artifact(1, "both").rglob(ONNX_FILE)
        np.testing.assert_allclose(onnx_descriptor(program)(x), mean, atol=1e-4)
        assert f"`{ONNX_FILE}` gives the same descriptors with onnxruntime alone" in card


@pytest.mark.parametrize(
    ("error", "status"),
    [(KeyboardInterrupt(), "KILLED"), (RuntimeError("no disk"), "FAILED")],
)
def test_an_ensembles_run_ends_however_its_command_ends(registered, monkeypatch, error, status):
    def fail(self, artifact, *, description=""):
        raise error

    monkeypatch.setattr(Registry, "register", fail)
    with suppress(RuntimeError):  # Typer turns an interrupt into an exit code
        registered.run(
            "ensemble", "patches@1", "patches@2", "--name", "broken", "--combine", "mean",
            "--data", registered.store.path,
        )  # fmt: skip
    client = mlflow.MlflowClient(registered.uri)
    found = client.search_runs(
        [each.experiment_id for each in client.search_experiments()],
        "tags.`hpsearch.kind` = 'ensemble' and attributes.run_name = 'broken: mean'",
    )
    assert status in {run.info.status for run in found}
    assert "RUNNING" not in {run.info.status for run in found}


def test_a_projection_is_learnt_from_training_patches_alone(registered):
    store, split = registered.store, registered.store.split()
    train = store.part(split, "train")
    assert not set(train.names) & {*split.test, *split.validation}
    rows = concat_training_descriptors(registered.pipelines, train, noisy=True)
    assert rows.shape == (16 * len(train), 256)


def test_members_that_do_not_belong_together_are_refused(registered, refused):
    def joining(*members: str) -> str:
        return refused("ensemble", *members, "--name", "x", "--data", registered.store.path)

    assert "too-few-members" in joining("patches@1")
    assert "repeated-member: patches@1" in joining("patches@1", "patches@champion")
    assert "members-differ: patches@1 and patches@3 differ in their patch set" in joining(
        "patches@1", "patches@3"
    )
    assert "invalid-version-reference: 'nonsense'" in joining("patches@1", "nonsense")
    assert "not found" in joining("patches@1", "patches@77")
    assert "unknown-data-location" in refused("ensemble", "patches@1", "patches@2", "--name", "x")


def test_an_exported_model_agrees_or_is_refused(registered, refused, tmp_path, capsys):
    pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    to = tmp_path / "x.onnx"
    registered.run("export", CHAMPION, "--onnx", to)
    assert "differ by at most" in capsys.readouterr().out
    assert to.stat().st_size > 10_000
    assert "--force" in refused("export", CHAMPION, "--onnx", to)
    assert "ends in .onnx" in refused("export", CHAMPION, "--onnx", tmp_path / "x.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]


def test_mlflow_serves_a_registered_model(registered, expected):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", CHAMPION]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts uvicorn by its name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    server = subprocess.Popen(
        command, env={**os.environ, "MLFLOW_TRACKING_URI": registered.uri, "PATH": path},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_for(f"{base}/ping", server)
        patches = np.array(registered.store.noisy[0, :3])
        for given in (patches, patches.astype(float)):
            found = _asked(f"{base}/invocations", {"inputs": given.tolist()})
            np.testing.assert_allclose(found, expected[:3], atol=1e-5)
        assert _asked(f"{base}/invocations", {"inputs": []}) == []
        with pytest.raises(urllib.error.HTTPError) as caught:
            _asked(f"{base}/invocations", {"inputs": patches[:, :5].tolist()})
        with caught.value as answer:
            assert answer.code == 400
            assert "patches must have the shape (N, 32, 32)" in answer.read().decode()
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def _wait_for(address: str, server: subprocess.Popen, *, patience: float = 120) -> None:
    end = time.monotonic() + patience
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the server does not answer")


def _asked(address: str, body: dict) -> list:
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]
