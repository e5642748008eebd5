"""What is installed: every version pinned, every pin hashed, and the bill that names them."""

import importlib
import importlib.metadata
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CLUSTER = ("launcher.txt", "mlflow/server.txt", "tpu.txt")


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / ".ci"))


def script(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def pins() -> dict[str, str]:
    return script("hash_constraints").read_pins((ROOT / "constraints.txt").read_text())


@pytest.fixture
def hashed() -> str:
    return (ROOT / "constraints.hashed.txt").read_text()


def closure(names: list[str]) -> Iterator[str]:
    """Names of the installed packages that some need, and of all that those need."""
    todo, seen = [Requirement(name) for name in names], set()
    while todo:
        each = todo.pop()
        key = (canonicalize_name(each.name), frozenset(each.extras))
        if key in seen:
            continue
        seen.add(key)
        yield key[0]
        for line in importlib.metadata.distribution(each.name).requires or []:
            wanted = Requirement(line)
            extras = each.extras or {""}
            if not wanted.marker or any(wanted.marker.evaluate({"extra": e}) for e in extras):
                todo.append(wanted)


def test_all_that_is_installed_here_is_pinned(pins: dict[str, str]) -> None:
    needed = set(closure(["hpsearch[dev,onnx,postgresql]"])) - {"hpsearch"}
    assert len(needed) > 100
    assert needed - pins.keys() == set()


@pytest.mark.parametrize(
    "name",
    [
        "botocore",
        "s3transfer",
        "jmespath",
        "httplib2",
        "uritemplate",
        "setuptools",
        "pip",
        "immutabledict",
        "libtpu",
        "triton",
        "nvidia-cublas",
        "psycopg2-binary",
    ],
)
def test_what_only_images_install_is_pinned(pins: dict[str, str], name: str) -> None:
    assert name in pins


@pytest.mark.parametrize("name", CLUSTER)
def test_the_images_lists_name_pinned_versions(pins: dict[str, str], name: str) -> None:
    listed = script("hash_constraints").read_pins((ROOT / "cluster" / name).read_text())
    listed.pop("torch", None)  # torch_xla's own
    assert {key: pins.get(key) for key in listed} == listed


def test_both_files_name_the_same_versions(pins: dict[str, str], hashed: str) -> None:
    assert script("hash_constraints").read_pins(hashed) == pins


def test_every_version_has_a_hash(pins: dict[str, str], hashed: str) -> None:
    hashes = script("hash_constraints").read_hashes(hashed)
    assert hashes.keys() == pins.keys()
    for name, digests in hashes.items():
        assert digests, name
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests), name


def test_a_pin_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no exact version"):
        script("hash_constraints").read_pins("torch>=2")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("cp311-cp311-manylinux_2_28_x86_64", True),
        ("cp311-cp311-manylinux2014_aarch64", True),
        ("cp39-abi3-manylinux_2_17_x86_64", True),
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp312-cp312-manylinux_2_28_x86_64", False),
        ("cp312-abi3-manylinux_2_28_x86_64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("cp311-cp311-win_amd64", False),
        ("cp311-cp311-macosx_14_0_arm64", False),
        ("cp313-cp313t-manylinux_2_28_x86_64", False),
    ],
)
def test_wheels_count_that_the_images_install(tag: str, expected: bool) -> None:
    installable = script("hash_constraints").is_installable
    assert any(installable(each) for each in parse_tag(tag)) == expected


def test_hashes_are_those_of_the_version_s_wheels() -> None:
    names = [
        "a-1.0-py3-none-any.whl",
        "a-1.0.tar.gz",
        "a-1.0.1-py3-none-any.whl",
        "a-1.0-1-py3-none-any.whl",
    ]
    page = {"files": [{"filename": n, "hashes": {"sha256": f"{i}"}} for i, n in enumerate(names)]}
    assert script("hash_constraints").find_hashes(page, "1") == ["0", "3"]


def test_the_bill_names_every_pin_with_its_hashes(
    hashed: str, pins: dict[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "build" / "sbom.json"
    script("sbom").main(target)
    bill = json.loads(target.read_text())
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    components: list[dict[str, Any]] = bill["components"]
    assert {each["name"]: each["version"] for each in components} == pins
    references = [each["bom-ref"] for each in components] + [
        bill["metadata"]["component"]["bom-ref"]
    ]
    assert len(set(references)) == len(references)
    hashes = script("hash_constraints").read_hashes(hashed)
    for each in components:
        assert each["type"] == "library"
        assert each["purl"] == f"pkg:pypi/{each['name']}@{each['version']}"
        (source,) = each["externalReferences"]
        assert [h["content"] for h in source["hashes"]] == hashes[each["name"]]
        assert {h["alg"] for h in source["hashes"]} == {"SHA-256"}


@pytest.mark.parametrize(
    ("packages", "state"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], "passed"),
        ([{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}], "failed"),
        (
            [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "404"}],
            "not run",
        ),
        (
            [
                {"name": "b", "skip_reason": "404"},
                {"name": "a", "version": "1", "vulns": [{"id": "X"}]},
            ],
            "failed",
        ),
        ([], "not run"),
    ],
)
def test_an_unknown_package_is_not_taken_for_a_safe_one(packages: list[Any], state: str) -> None:
    assert script("nightly").read_audit(json.dumps({"dependencies": packages}), "").state == state


def test_a_service_that_cannot_be_reached_is_no_failure() -> None:
    outcome = script("nightly").read_audit("", "WARNING: x\nERROR: connection refused\n")
    assert outcome == ("not run", "ERROR: connection refused")


def test_the_night_fails_only_if_a_part_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nightly = script("nightly")
    for state, code in (("passed", 0), ("not run", 0), ("failed", 1)):
        part = {"part": lambda state=state: nightly.Outcome(state, "reason")}
        monkeypatch.setattr(nightly, "PARTS", part)
        assert nightly.main([]) == code
        assert capsys.readouterr().out == f"part: {state} (reason)\n"
    assert nightly.main(["prat"]) == 2
