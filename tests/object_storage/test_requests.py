"""Requests of a driver, counted at a proxy."""

from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")

from hpsearch.object_storage.mirror import Mirror
from hpsearch.object_storage.object_store import ObjectStore
from tests.object_storage.conftest import ADMIN, Proxy


def test_a_pass_costs_one_request_and_one_for_each_large_file_that_changed(
    s3_proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_proxy.endpoint)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ADMIN[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ADMIN[1])
    mirror = Mirror(tmp_path, ObjectStore("s3://lab/counted"))
    mirror.pull()
    mirror.log.acquire()
    assert len(s3_proxy.requests) == 2 + 4 + 1  # lists; a probe, again, read, removed; the lease
    s3_proxy.requests.clear()
    for n in range(98):
        with (tmp_path / "ledger.jsonl").open("a") as file:
            file.write(f"{n}\n")
        for name in ("checkpoint-a", "checkpoint-b"):
            (tmp_path / name).write_bytes(f"{name} {n}".encode() + bytes(100_000))
        mirror.push()
    assert len(s3_proxy.requests) == 98 * (
        1 + 1 + 2
    )  # requests of others; the commit; the two files
    s3_proxy.requests.clear()
    (tmp_path / "search.json").write_text("{}")
    mirror.push()  # the hundredth commit
    assert len(s3_proxy.requests) == 2 + 1 + 3  # the snapshot; lists of what may be deleted
