"""The user's own objects: what a trial says of them, where their source is from, and its digest."""

import hashlib
import sys
from pathlib import Path

import optuna
import pytest
import torch
from pydantic import ValidationError

from hpsearch import Search
from hpsearch.config import Custom, CustomLoss, CustomSampler, Pairs, TrialConfig
from hpsearch.config.custom import custom_parts
from hpsearch.config.custom_import import (
    add_sources,
    build_object,
    load_object,
    missing_packages,
    own_code,
    pinned,
    take_sources,
)
from hpsearch.config.custom_source import SPACE_MODULE, SourceTree, SpaceFolder, search_sources
from hpsearch.config.formatting import summary
from hpsearch.errors import UserError
from hpsearch.search.space_file import (
    copy_modules,
    defined_folder,
    imported_modules,
    keep_earlier_space,
    space_text,
)
from hpsearch.search.space_file import load_search as load

LOSS = """
from own_helper import scale

class Ranked:
    def __init__(self, margin=1.0):
        self.margin = margin

    def __call__(self, descriptors):
        return scale(descriptors.sum() * self.margin)
"""
HELPER = "def scale(x):\n    return x * 2\n"
TRIAL = TrialConfig(loss=CustomLoss(object="own_loss:Ranked", params={"margin": 0.5}))
SPACE = """
from hpsearch import Search
from hpsearch.config import Custom, TrialConfig

def suggest(trial):
    name = "own_loss:Ranked" if trial.suggest_int("rare", 0, 10**6) == 7 else "other:Loss"
    return TrialConfig(loss=Custom(object=name), patches=480)

SEARCH = Search(suggest=suggest, budget=480, report_every=240, trials=1,
                baseline=TrialConfig(patches=480))
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """Folder of a space with an own loss, which imports a module next to it."""
    (tmp_path / "own_loss.py").write_text(LOSS)
    (tmp_path / "own_helper.py").write_text(HELPER)
    (tmp_path / "unrelated.py").write_text("1 / 0\n")
    (tmp_path / "space.py").write_text("class Inside:\n    __call__ = print\n")
    return tmp_path / "space.py"


def digest_of(**files: str) -> str:
    parts = [
        f"{name}.py\0{len(text.encode())}\0".encode() + text.encode()
        for name, text in sorted(files.items())
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_digest_is_of_the_module_and_of_those_that_it_imports(space: Path) -> None:
    drawn = pinned(TRIAL, SpaceFolder(space))

    assert drawn.loss.sha256 == digest_of(own_loss=LOSS, own_helper=HELPER)
    assert drawn != TRIAL
    assert pinned(drawn, SpaceFolder(space)) is drawn
    space.with_name("unrelated.py").write_text("2 / 0\n")
    assert pinned(TRIAL, SpaceFolder(space)) == drawn
    space.with_name("own_helper.py").write_text(HELPER + "\n")
    assert pinned(TRIAL, SpaceFolder(space)).loss.sha256 != drawn.loss.sha256


def test_two_sources_of_one_name_are_two_objects_in_one_process(space: Path) -> None:
    first = pinned(TRIAL, SpaceFolder(space)).loss
    space.with_name("own_helper.py").write_text("def scale(x):\n    return x * 3\n")
    second = pinned(TRIAL, SpaceFolder(space)).loss

    one, two = (build_object(loss, role="loss")(torch.ones(4)) for loss in (first, second))

    assert (one, two) == (4.0, 6.0)


def test_an_import_inside_a_function_is_of_the_same_source_and_leaves_the_path(
    space: Path,
) -> None:
    late = "def late(x):\n    from own_helper import scale\n    return scale(x)\n"
    space.with_name("own_late.py").write_text(late)
    trial = TRIAL.model_copy(update={"loss": CustomLoss(object="own_late:late")})
    path = list(sys.path)
    first = pinned(trial, SpaceFolder(space)).loss
    space.with_name("own_helper.py").write_text("def scale(x):\n    return x * 3\n")
    second = pinned(trial, SpaceFolder(space)).loss
    found = []
    for loss in (first, second, first):
        with own_code(loss, "loss"):
            found.append(build_object(loss, role="loss")(1.0))

    assert found == [2.0, 3.0, 2.0]
    assert sys.path == path


def test_the_space_file_itself_may_define_an_object(space: Path) -> None:
    sampler = CustomSampler(object="Inside", form=Pairs(batch=4))
    drawn = pinned(TRIAL.model_copy(update={"sampler": sampler}), SpaceFolder(space))

    assert drawn.sampler.sha256 == digest_of(**{SPACE_MODULE: space.read_text()})
    assert load_object(drawn.sampler).__name__ == "Inside"


def test_a_trial_as_json_imports_nothing(space: Path) -> None:
    space.with_name("never.py").write_text("raise SystemExit('imported')\n")
    loss = CustomLoss(object="never:Ranked")
    drawn = pinned(TRIAL.model_copy(update={"loss": loss}), SpaceFolder(space))

    found = TrialConfig.model_validate_json(drawn.model_dump_json())

    assert found == drawn
    assert [part.object for _, part in custom_parts(found)] == ["never:Ranked"]
    assert "never" not in sys.modules


def test_a_space_imports_its_own_module_after_an_object_of_another(space: Path) -> None:
    load_object(pinned(TRIAL, SpaceFolder(space)).loss)
    other = space.parent / "other" / "space.py"
    other.parent.mkdir()
    other.with_name("own_loss.py").write_text("BUDGET = 960\n")
    other.write_text(f"import own_loss\n{SPACE.replace('480', 'own_loss.BUDGET')}")

    assert load(other).budget == 960


def test_the_object_comes_from_the_file_given_if_its_digest_matches(space: Path) -> None:
    drawn = pinned(TRIAL, SpaceFolder(space))
    assert take_sources(drawn, space) == drawn
    assert take_sources(TRIAL, space) == drawn

    space.with_name("own_loss.py").write_text(LOSS + "# changed\n")

    with pytest.raises(UserError, match="own_loss:Ranked") as caught:
        take_sources(drawn, space)
    assert caught.value.code == "custom-source-changed"


def test_a_source_is_found_by_its_digest_and_by_nothing_else(space: Path) -> None:
    content = LOSS.replace("margin=1.0", "margin=3.0").encode()
    tree = SourceTree({"own_loss.py": content, "own_helper.py": HELPER.encode(), "x.py": b""})
    loss = CustomLoss(object="own_loss:Ranked", sha256=tree.part("own_loss").digest)
    with pytest.raises(UserError) as caught:
        load_object(loss)
    assert caught.value.code == "custom-source-unknown"

    add_sources((tree,))

    assert vars(build_object(loss, role="loss"))["margin"] == 3.0


@pytest.mark.parametrize(
    ("text", "name", "code"),
    [
        ("Other = 3", "Ranked", "custom-not-found"),
        ("Ranked = 3", "Ranked", "custom-not-callable"),
        ("import no_such_package", "Ranked", "custom-not-importable"),
        ("def Ranked(:", "Ranked", "custom-not-importable"),
        ("raise SystemExit", "Ranked", "custom-not-importable"),
        ("class Ranked: pass", "Ranked", "custom-not-callable"),
        ("class Ranked:\n    def __init__(self): pass", "Ranked", "custom-failed"),
    ],
)
def test_an_object_that_cannot_be_had_is_named(
    space: Path, text: str, name: str, code: str
) -> None:
    space.with_name("own_loss.py").write_text(text)
    params = {"margin": 0.5} if "__init__" in text else {}
    loss = CustomLoss(object=f"own_loss:{name}", params=params)
    trial = pinned(TRIAL.model_copy(update={"loss": loss}), SpaceFolder(space))

    with pytest.raises(UserError, match="Ranked") as caught:
        build_object(trial.loss, role="loss")

    assert caught.value.code == code


def test_a_module_that_is_missing_is_named_with_the_folder(space: Path) -> None:
    trial = TRIAL.model_copy(update={"loss": CustomLoss(object="absent:Ranked")})

    with pytest.raises(UserError, match=r"absent\.py") as caught:
        pinned(trial, SpaceFolder(space))

    assert caught.value.code == "custom-not-found"


def test_a_search_without_a_space_file_takes_objects_of_modules_that_python_finds(
    space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is defined in a notebook or a program, whose own objects are refused."""
    monkeypatch.syspath_prepend(str(space.parent))

    def suggest(trial: optuna.Trial) -> TrialConfig:
        rare = trial.suggest_int("rare", 0, 10**6) == 7
        return TRIAL if rare else TrialConfig(loss=CustomLoss(object="own_late:late"), patches=480)

    space.with_name("own_late.py").write_text("import own_helper\nlate = own_helper.scale\n")
    search = Search(
        suggest=suggest, budget=480, report_every=240, trials=1, baseline=TrialConfig(patches=480)
    )
    before = search.suggest_config(optuna.create_study().ask())
    text = space_text(search)
    folder = defined_folder(text)
    copy = space.with_name("copy.py")
    copy.write_text(text)
    drawn = load(copy, folder).suggest_config(optuna.create_study().ask())

    assert drawn == before
    assert drawn.loss.sha256 == SpaceFolder(space).source("own_late").digest
    assert set(imported_modules()) == {"own_loss.py", "own_helper.py", "own_late.py"}
    for name, code in (("Ranked", "custom-without-module"), ("absent:x", "custom-not-found")):
        with pytest.raises(UserError, match=name.partition(":")[0]) as caught:
            pinned(TRIAL.model_copy(update={"loss": CustomLoss(object=name)}), None, suggest)
        assert caught.value.code == code


def test_a_space_file_may_check_itself_with_objects_of_its_own(space: Path) -> None:
    own = SPACE.replace('"other:Loss"', '"Own"').replace("    name =", "    name = 'Own';  _ =")
    loss = "def Own(x):\n    return (x[0] - x[1]).pow(2).sum()\n"
    batch = "from hpsearch.config import Pairs, L2Net\n"
    own = own.replace(
        "patches=480)\n\n",
        "patches=480, sampler=Pairs(batch=8), descriptor=L2Net(width=0.125, unit_norm=True))\n\n",
    )
    space.write_text(f"{batch}{loss}{own}\nSEARCH.validate_space()\n")

    assert load(space).examples(1)[0].loss.object == "Own"


def test_packages_are_compared_with_what_is_installed(space: Path) -> None:
    assert missing_packages(("torch", "numpy>=1")) == []
    assert missing_packages(("no-such-thing-here", "numpy<1")) != []
    loss = CustomLoss(object="own_loss:Ranked", packages=("no-such-thing-here>=1",))
    trial = pinned(TRIAL.model_copy(update={"loss": loss}), SpaceFolder(space))

    with pytest.raises(UserError, match="no-such-thing-here") as caught:
        load_object(trial.loss)

    assert caught.value.code == "missing-package"


@pytest.mark.parametrize(
    "fields",
    [
        {"object": "my losses:Ranked"},
        {"object": "a:b", "params": {"f": print}},
        {"object": "a:b", "params": {"f": float("nan")}},
        {"object": "a:b", "packages": ["not a package"]},
    ],
)
def test_settings_that_cannot_travel_are_refused(fields: dict) -> None:
    with pytest.raises(ValidationError):
        Custom(**fields)


def test_a_summary_shows_the_object_and_its_parameters(space: Path) -> None:
    assert summary(pinned(TRIAL, SpaceFolder(space))).startswith("Ranked, margin 0.5 · ")


def test_modules_that_the_space_names_belong_to_a_search_before_they_are_drawn(space: Path) -> None:
    space.write_text(SPACE)
    load(space)

    assert set(imported_modules()) == {"own_loss.py", "own_helper.py"}


def test_earlier_sources_of_a_search_outlive_a_change_of_its_space(space: Path) -> None:
    folder = space.with_name("search")
    folder.mkdir()
    copy = folder / "space.py"
    copy.write_text(SPACE)
    files = {f"{name}.py": space.with_name(f"{name}.py") for name in ("own_loss", "own_helper")}
    copy_modules(files, folder / "space_modules")
    drawn = pinned(TRIAL, SpaceFolder(copy))
    before = SpaceFolder(copy).source("own_loss").digest

    keep_earlier_space(copy)
    space.with_name("own_loss.py").write_text(LOSS + "# changed\n")
    copy_modules(files, folder / "space_modules")

    after = SpaceFolder(copy).source("own_loss").digest
    known = {tree.part("own_loss").digest for tree in search_sources(copy, None)}
    assert before != after
    assert known == {before, after}
    assert drawn.loss.sha256 == before
    assert take_sources(drawn, copy) == drawn
    assert take_sources(TRIAL, copy).loss.sha256 == after
