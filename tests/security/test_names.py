"""What may name a search, a model, a promotion and a sequence."""

from pathlib import Path

import numpy as np
import pytest

from hpsearch.atomic_files import check_target_file, check_target_folder
from hpsearch.data.arrow_header import check_sequence_name
from hpsearch.errors import UserError
from hpsearch.search.search_context import SearchContext
from hpsearch.search.workspace import Workspace
from hpsearch.untrusted import NAME, check_name, load_npy, name_from

HOSTILE = {
    "newline": "a\nb",
    "escape": "a\x1b[31m",
    "option": "-rf",
    "formula": "=cmd|calc",
    "long": "a" * 300,
    "nul": "a\0b",
    "slash": "a/../../b",
    "hidden": ".a",
    "quote": "a'b\"",
    "html": "<img src=x onerror=alert(1)>",
    "empty": "",
    "right to left": "a\u202eb",
}
hostile = pytest.mark.parametrize("name", HOSTILE.values(), ids=list(HOSTILE))


@hostile
def test_it_names_no_search_and_no_model(name: str, tmp_path: Path) -> None:
    for refuse in (Workspace(tmp_path).check_name_available, lambda n: check_name(n, "a model")):
        with pytest.raises(UserError, match=r"cannot name a (search|model); use") as refused:
            refuse(name)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 300


@hostile
def test_commands_refuse_it_in_one_sentence(name: str, command, space: Path) -> None:
    home = space.parent / "home"
    command("search", space, "--home", home, f"--name={name}", "--data=tiny").is_one_sentence(
        "cannot name a search"
    )
    command("report", "--home", home, "--", name).is_one_sentence("cannot name a search")
    command("submit", space, "--address=http://127.0.0.1:1", f"--name={name}").is_one_sentence(
        "cannot name a search"
    )
    command("ensemble", "a@1", "b@1", "--home", home, f"--name={name}").is_one_sentence(
        "cannot name a model"
    )


@pytest.mark.parametrize("name", ["a", "quickstart-2", "a.b_c", "2026-11-27", "_x", "a" * 100])
def test_plain_names_are_taken(name: str) -> None:
    assert check_name(name, "a search") == name


def test_a_file_s_name_becomes_one(tmp_path: Path) -> None:
    assert [name_from(stem) for stem in ("my space", "=cmd", "ü", "a.b")] == [
        "my-space", "cmd", "search", "a.b",
    ]  # fmt: skip
    assert all(NAME.fullmatch(name_from(stem)) for stem in HOSTILE.values())
    assert Workspace(tmp_path).unique_name("a b") == "a-b"


def test_a_search_of_an_older_version_is_still_found(searched: SearchContext) -> None:
    searched.paths.folder.rename(searched.paths.folder.with_name("as it was"))
    assert Workspace(searched.home).open("as it was").name == "as it was"


def test_a_promotion_runs_nothing_of_its_search_s_name() -> None:
    from hpsearch.promotion.promotion_search import SPACE_TEMPLATE

    name = '") or open("/tmp/canary", "w") or ("\n"""'
    code = SPACE_TEMPLATE.format(parent=name, plan="plan.json")
    assert compile(code, "space.py", "exec").co_consts.count(name) == 1


@pytest.mark.parametrize(
    "name", ["../../x", "a\\b", "a\x1b[2J", "=HYPERLINK(1)", "+1", "-x", "@x", ""]
)
def test_it_names_no_sequence(name: str) -> None:
    with pytest.raises(ValueError, match="sequence"):
        check_sequence_name(name)
    check_sequence_name("i_[red]ünter den Linden")


def test_a_name_that_its_promotion_could_not_have_is_refused(command, space: Path) -> None:
    home = space.parent / "home"
    command("search", space, "--home", home, f"--name={'a' * 95}").is_one_sentence("at most 80")
    command("search", f"{'a' * 300}.py", "--home", home).is_one_sentence("too long")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file"),
        (b"hello", "is not a .npy file; save it"),
        (b"\x93NUMPY\x01\x00", "is not a usable .npy file"),
    ],
    ids=["missing", "text", "cut off"],
)
def test_an_array_that_cannot_be_read_is_named(
    content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_npy(path, "save it")
    assert words in str(caught.value)


def test_python_objects_are_never_loaded_nor_advised(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(UserError, match="Python objects") as caught:
        load_npy(path, "save numbers")
    assert "allow_pickle" not in str(caught.value)


def test_an_address_in_an_object_store_does_not_become_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("s3://lab/runs", "gs://lab/runs", "az://lab/runs"):
        with pytest.raises(UserError) as caught:
            Workspace(Path(address))
        assert caught.value.code == "remote-home"
        assert address in str(caught.value), "with both of its slashes"
    assert Workspace(Path("s3")).home == Path("s3")


@pytest.mark.parametrize("address", ["s3://lab/x", "gs://lab/x", "S3://lab/x", "https://h/x"])
def test_an_address_as_a_target_does_not_become_a_folder(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for check in (check_target_file, check_target_folder):
        with pytest.raises(UserError, match="takes a path on this machine") as caught:
            check(Path(address), "--output")
        assert caught.value.code == "target-is-address"
    assert not list(tmp_path.iterdir())
    check_target_file(Path("s3:x"), "--output")


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(UserError) as caught:
        Workspace(tmp_path / "home").searches()
    assert caught.value.code == "target-is-file"
