"""Artifacts: found under what they depend on, whole or not at all."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.training.artifact_cache import (
    COMPUTED_SECONDS_METRIC,
    SAVED_SECONDS_METRIC,
    ArtifactCache,
    artifact_key,
)


def test_what_is_published_is_found(tmp_path: Path) -> None:
    artifacts = ArtifactCache(str(tmp_path / "new" / "folder"))
    assert artifacts.get("key") is None
    artifacts.publish("key", b"weights")
    stored = artifacts.get("key")
    assert stored is not None
    assert stored.to_pybytes() == b"weights"
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["key"]


def test_publishing_twice_is_harmless(tmp_path: Path) -> None:
    artifacts = ArtifactCache(str(tmp_path))
    artifacts.publish("key", b"weights")
    artifacts.publish("key", b"weights")
    stored = artifacts.get("key")
    assert stored is not None
    assert stored.to_pybytes() == b"weights"


@given(at=st.integers(0, 38), bit=st.integers(0, 7))
def test_a_flipped_bit_makes_an_artifact_absent(tmp_path_factory, at: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("artifacts")
    artifacts = ArtifactCache(str(folder))
    artifacts.publish("key", b"weights")
    data = bytearray((folder / "key").read_bytes())
    data[at] ^= 1 << bit
    (folder / "key").write_bytes(bytes(data))
    assert artifacts.get("key") is None


def test_a_file_cut_short_is_absent(tmp_path: Path) -> None:
    artifacts = ArtifactCache(str(tmp_path))
    artifacts.publish("key", b"weights")
    (tmp_path / "key").write_bytes((tmp_path / "key").read_bytes()[:10])
    assert artifacts.get("key") is None


def test_the_key_depends_on_content_and_not_on_order() -> None:
    assert artifact_key(a=1, b={"c": 2.0, "d": [3]}) == artifact_key(b={"d": [3], "c": 2.0}, a=1)
    assert artifact_key(a=1) != artifact_key(a=2)


def test_what_is_made_once_spares_the_others_its_time(tmp_path: Path) -> None:
    first, second = ArtifactCache(str(tmp_path)), ArtifactCache(str(tmp_path))

    def make() -> bytes:
        time.sleep(0.02)
        return b"weights"

    assert bytes(first.get_or_compute("key", make)) == b"weights"
    assert bytes(second.get_or_compute("key", lambda: b"never")) == b"weights"
    assert bytes(second.get_or_compute("other", make)) == b"weights"
    assert first.stats.saved_s == 0.0
    assert first.stats.computed_s >= 0.02
    assert second.stats.saved_s == pytest.approx(first.stats.computed_s, abs=1e-3)
    assert second.stats.metrics().keys() == {COMPUTED_SECONDS_METRIC, SAVED_SECONDS_METRIC}
    assert second.with_fresh_stats().stats.metrics() == {}
