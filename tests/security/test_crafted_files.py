"""Files that an attacker wrote: one sentence that names the file, and no code of theirs runs."""
# ruff: noqa: E501  bytes as they lie in the files

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from hpsearch.atomic_files import write_with_checksum
from hpsearch.config import L2Net, TrialConfig, WarmStart
from hpsearch.data.arrow_header import Header, StoreMeta, to_metadata
from hpsearch.data.patch_store import PatchStore
from hpsearch.errors import UserError
from hpsearch.models import Pipeline, build_descriptor
from hpsearch.models.serialization import PipelineSpec, save_pipeline
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.model_artifact import pipeline_folder
from hpsearch.training.artifact_cache import ArtifactCache
from hpsearch.training.trial import build_trial

DEEP = b"[" * 100_000


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("canary",)


def saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.fixture(autouse=True)
def no_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The canary of every payload would lie here."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "canary").exists()


RECORDS = {
    "no JSON": b"{",
    "other": b"[]",
    "fields": b'{"a": 1}',
    "binary": b"\xff\xfe",
    "deep": DEEP,
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=list(RECORDS))
def test_search_json(content: bytes, command: Callable, searched: SearchContext) -> None:
    (searched.paths.folder / "search.json").write_bytes(content)
    command("report", "s", "--home", searched.home).is_one_sentence("search.json", "copy")


@pytest.mark.parametrize("content", RECORDS.values(), ids=list(RECORDS))
def test_a_trial_as_json(content: bytes, command: Callable, tmp_path: Path) -> None:
    (tmp_path / "trial.json").write_bytes(content)
    command("train", "trial.json", "--home", "home").is_one_sentence("trial.json")


def test_a_space_that_ends_the_process(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text("raise SystemExit(0)")
    command("search", "space.py", "--home", "home").is_one_sentence("space.py", "SystemExit")
    assert not list(tmp_path.glob("home/searches/*"))


EVENTS = {
    "list": b"[1]",
    "number": b"5",
    "no event": b"{}",
    "deep": DEEP,
    "no start": b'{"event": "report", "time": 1, "trial": "9", "seen": 1, "objective": 1, "metrics": {}}',
    "path": b'{"event": "start", "time": 1, "trial": "../../x", "number": 1, "config": {}}',
    "config": b'{"event": "start", "time": 1, "trial": "1", "number": 1, "config": {"loss": 1}}',
    "text": b'{"event": "report", "time": 1, "trial": "000", "seen": "x", "objective": 1, "metrics": {}}',
    "metrics": b'{"event":"report","time":1,"trial":"000","seen":1,"objective":1,"metrics":{"a":"b"}}',
    "NaN": b'{"event":"report","time":1,"trial":"000","seen":200,"objective":NaN,"metrics":{}}',
    "status": b'{"event": "trial_finished", "time": 1, "trial": "000", "status": "owned"}',
    "time": b'{"event": "trial_finished", "time": "now", "trial": "000", "status": "completed"}',
}


@pytest.mark.parametrize("line", EVENTS.values(), ids=list(EVENTS))
def test_an_event_log(line: bytes, command: Callable, searched: SearchContext) -> None:
    with searched.event_log.path.open("ab") as file:
        file.write(line + b"\n")
    command("report", "s", "--home", searched.home).is_one_sentence("ledger.jsonl")


JOURNALS = {
    "list": b"[1]", "no JSON": b"{", "operation": b'{"op_code": 99, "worker_id": "a"}',
    "fields": b'{"op_code": 0, "worker_id": "a"}', "deep": DEEP,
}  # fmt: skip


@pytest.mark.parametrize("line", JOURNALS.values(), ids=list(JOURNALS))
def test_a_journal(line: bytes, command: Callable, searched: SearchContext) -> None:
    (searched.paths.folder / "study.journal").write_bytes(line + b"\n")
    ended = command("resume", "s", "--home", searched.home)
    ended.is_one_sentence("study.journal", "copy")


WEIGHTS = {
    "pickle": pickle.dumps(Payload()), "torch pickle": saved({"a": Payload()}),
    "empty": b"", "list": saved([1]), "other": saved({"a": torch.zeros(1)}), "zip": b"PK\3\4" * 9,
}  # fmt: skip
weights = pytest.mark.parametrize("content", WEIGHTS.values(), ids=list(WEIGHTS))


@weights
def test_weights(content: bytes, command: Callable, tmp_path: Path) -> None:
    network = L2Net(width=0.125)
    pipeline = Pipeline(denoiser=None, descriptor=build_descriptor(network, seed=0))
    save_pipeline(pipeline, PipelineSpec(denoiser=None, descriptor=network), tmp_path / "model")
    (tmp_path / "model" / "weights.pt").write_bytes(content)
    command("describe", "model", "tiny", "--output", "o.npy").is_one_sentence(
        "model", "contains no"
    )


CHECKPOINTS = WEIGHTS | {
    "progress": saved({"progress": {"seen": "x"}, "task": {}, "report": None}),
    "attributes": saved({"progress": {"__class__": 1}, "task": {}, "report": None}),
    "report": saved({"progress": {}, "task": {}, "report": {"seen": 1, "status": "owned"}}),
}


@pytest.mark.parametrize("content", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_a_trial_s_checkpoint(content: bytes, command: Callable, searched: SearchContext) -> None:
    folder = searched.paths.trials_dir / "000"
    folder.mkdir(parents=True)
    write_with_checksum(folder / "trial.pt", content)
    ended = command("describe", "s/000", "tiny", "--output", "o.npy", "--home", searched.home)
    ended.is_one_sentence("trial.pt", "remove it")


@weights
def test_a_shared_result(content: bytes, tiny: PatchStore, searched: SearchContext) -> None:
    job = searched.environment
    config = TrialConfig(descriptor=L2Net(width=0.125), warm_start=WarmStart(patches=50), patches=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArtifactCache, "get_or_compute", lambda *_: pa.py_buffer(content))
        with pytest.raises(UserError, match=r"shared result .*remove it"):
            build_trial(config, job)


def write_arrow(path: Path, counts: list[int], names: list[str], **columns: pa.Array) -> None:
    meta = StoreMeta(source="x", license="x")
    header = Header(names=tuple(names), counts=tuple(counts), meta=meta)
    batch = pa.RecordBatch.from_arrays(
        list(columns.values()), names=list(columns), metadata=to_metadata(header)
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def patches(rows: int) -> pa.Array:
    return pa.array([bytes(1024)] * rows, pa.binary(1024))


STORES: dict[str, tuple[list[int], list[str], pa.Array]] = {
    "absurd": ([2**62], ["a"], patches(16)),
    "negative": ([-1], ["a"], patches(16)),
    "negative sum": ([-1, 2], ["a", "b"], patches(16)),
    "more than there is": ([2], ["a"], patches(16)),
    "unequal": ([1], ["a", "b"], patches(16)),
    "none": ([], [], patches(0)),
    "twice": ([1, 1], ["a", "a"], patches(32)),
    "outside": ([1], ["../../x"], patches(16)),
    "escape": ([1], ["a\x1b[2J"], patches(16)),
    "formula": ([1], ["=HYPERLINK(1)"], patches(16)),
    "other type": ([1], ["a"], pa.array([b"x"] * 16)),
    "null": ([1], ["a"], pa.nulls(16)),
}


@pytest.mark.parametrize("what", STORES.values(), ids=list(STORES))
def test_a_patch_store(what: tuple, command: Callable, tmp_path: Path) -> None:
    counts, names, column = what
    write_arrow(tmp_path / "s.arrow", counts, names, clean=column, noisy=column)
    command("data", "info", "s.arrow").is_one_sentence("s.arrow", "import it again")


@pytest.mark.parametrize("at", [-10, -20, -300])
def test_a_store_with_other_offsets(
    at: int, command: Callable, tiny: PatchStore, tmp_path: Path
) -> None:
    content = bytearray(tiny.path.read_bytes())
    content[at : at + 8] = b"\xff\xff\xff\x7f\xff\xff\xff\x7f"
    (tmp_path / "s.arrow").write_bytes(content)
    ended = command("data", "info", "--verify", "s.arrow")
    ended.is_one_sentence("s.arrow")


MODELS = {
    "list": "- 1", "text": "flavors: x", "flavor": "flavors:\n  python_function: x",
    "python": "!!python/object/apply:os.mkdir [canary]", "deep": "[" * 3000,
    "nul": 'flavors:\n  python_function:\n    loader_module: hpsearch.models.serialization\n    data: "a\\0b"',
    "outside": "flavors:\n  python_function:\n    loader_module: hpsearch.models.serialization\n    data: ../..",
    "loader": "flavors:\n  python_function:\n    loader_module: os",
}  # fmt: skip


@pytest.mark.parametrize("content", MODELS.values(), ids=list(MODELS))
def test_an_mlmodel(content: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(content)
    with pytest.raises(UserError, match=r"models:/m/1|MLmodel"):
        pipeline_folder(tmp_path, name="models:/m/1")
