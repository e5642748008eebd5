"""Space files: what they may state, and how mistakes are told."""

import importlib
import shutil
import sys
from pathlib import Path

import optuna
import pytest

from hpsearch.config import Adam, TrialConfig
from hpsearch.errors import UserError
from hpsearch.search.objective import Objective
from hpsearch.search.search import Search
from hpsearch.search.space_file import imported_modules, load_search, space_text
from hpsearch.search.workspace import SearchRecord, Workspace
from hpsearch.workflows.observer import Observer
from hpsearch.workflows.resume_search import resolve_space_change

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.py"))
GOOD = """
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.pruners import *
from hpsearch.search.samplers import *
from hpsearch.search.search import Search

def suggest(trial):
    {body}
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", 0.01, 1)), patches=100)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=2,
                baseline=TrialConfig(patches=100){more})
"""


def good(more: str) -> str:
    return GOOD.format(body="pass", more=f", {more}")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "space.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_our_spaces_draw_200_configurations_that_round_trip(path: Path) -> None:
    search = load_search(path)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(200):
        config = search.suggest_config(study.ask())
        assert TrialConfig.model_validate_json(config.model_dump_json()) == config


def test_a_good_space_loads_and_rehearses(tmp_path: Path) -> None:
    load_search(write(tmp_path, GOOD.format(body="pass", more=""))).validate_space()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("x = 1", "no-search-exported", "SEARCH"),
        ("SEARCH = 3", "no-search-exported", "int"),
        ("import nowhere_to_be_found", "space-failed", "ModuleNotFoundError.*nowhere_to_be_found"),
        ("def (", "space-failed", r"at space\.py:1 \(SyntaxError"),
        ("\n\nx = 1 / 0", "space-failed", r"at space\.py:3 \(ZeroDivisionError"),
        (good("pruner=ASHA(grace_period=5)"), "invalid-grace-period", "grace_period.* got 5"),
        (good("pruner=ASHA(grace_period=100)"), "no-rung", "'asha'.* 100 "),
        (
            good("num_folds=4, pruner=ASHA(grace_period=20)"),
            "invalid-grace-period",
            "grace_period.* 25 .* got 20",
        ),
        (good("num_folds=1"), "invalid-setting", "'num_folds'.* 2 .*got 1"),
        (good("pruner='sha'"), "invalid-setting", "'pruner'"),
        (good("scheduler='sha'"), "unknown-scheduler", "'sha'.* asha, hyperband, median, none"),
        (good("sampler='tpa'"), "unknown-sampler", "'tpa'.* tpe, random"),
        (good("also=(), extra_objectives=()"), "old-and-new-name", "also .*extra_objectives"),
        (good("pruner=ASHA(reduction_factor=1)"), "invalid-setting", "'reduction_factor'.*got 1"),
        (good("sampler=Fixed(points=[])"), "invalid-setting", "'points'"),
        (
            good("sampler=Grid(), initial_points=[{'lr': 1}]"),
            "conflicting-points",
            "'grid'.*initial_points",
        ),
        (good("sort=1"), "invalid-setting", r"space\.py:11: .*'sort'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path: Path, text: str, code: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_search(write(tmp_path, text))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("raise KeyError('oops')", "suggest-failed", "KeyError at space.py:8"),
        ("SGD(lr=-1)", "suggest-failed", r"^space\.py:8: SGD: setting 'lr' .*got -1"),
        ("trial.suggest_float('x', 2, 1)", "suggest-failed", "ValueError at space.py:8 "),
        ("trial.suggest_int('n', 1, '3')", "suggest-failed", "at space.py:8 "),
        (
            "trial.suggest_categorical('n', __import__('numpy').array([1, 2]))",
            "value-not-storable",
            "'n' .*int64.*tolist",
        ),
        ("trial.suggest_categorical('n', [(1, 2)])", "value-not-storable", "'n' .*tuple"),
        ("return {'lr': 1}", "suggest-returned-other", "dict"),
        ("return TrialConfig(patches=99)", "other-budget", "patches=99.* 100"),
        ("return TrialConfig(patches=100, colour='red')", "suggest-failed", "colour"),
        (
            "import hpsearch as hp; "
            "return TrialConfig(patches=100).model_copy(update={'loss': hp.HardNet()})",
            "suggest-returned-invalid",
            "loss 'hardnet' requires a sampler of type Pairs",
        ),
    ],
)
def test_a_bad_suggest_shows_before_ray_starts(
    tmp_path: Path, body: str, code: str, words: str
) -> None:
    search = load_search(write(tmp_path, GOOD.format(body=body, more="")))
    with pytest.raises(UserError, match=words) as caught:
        search.validate_space()
    assert caught.value.code == code


def test_more_trials_than_a_search_can_hold_are_refused(tmp_path: Path) -> None:
    search = load_search(write(tmp_path, good("")))
    for asked in (10**6 + 1, 10**23):
        with pytest.raises(UserError, match=str(asked)) as caught:
            search.num_trials(asked)
        assert caught.value.code == "too-many-trials"
    assert search.num_trials(10**6) == 10**6


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.py") as caught:
        load_search(tmp_path / "nothing.py")
    assert caught.value.code == "no-such-space"


def test_first_points_are_rehearsed_too(tmp_path: Path) -> None:
    more = ", initial_points=[{'lr': 0.5}]"
    search: Search = load_search(write(tmp_path, GOOD.format(body="pass", more=more)))
    search.validate_space(draws=0)


CONDITIONAL = """if trial.suggest_categorical("kind", ["a", "b"]) == "a":
        trial.suggest_float("only with a", 0, 1)"""
MOVING = """trial.suggest_float("moving", 0, 1 + trial.suggest_int("n", 0, 3))"""
SAMPLERS_THAT_FORGET = [
    ("pass", "sampler=NSGA2()", "sampler-with-pruner", "'nsga2'.*'asha'.*NoPruner"),
    ("pass", "sampler=NSGA2(), pruner=Median()", "sampler-with-pruner", "'median'"),
]


@pytest.mark.parametrize(("body", "more", "code", "words"), SAMPLERS_THAT_FORGET)
def test_a_sampler_that_would_draw_at_random_is_refused(
    tmp_path: Path, body: str, more: str, code: str, words: str
) -> None:
    search = load_search(write(tmp_path, GOOD.format(body=body, more=f", {more}")))
    with pytest.raises(UserError, match=words) as caught:
        search.validate_space()
    assert caught.value.code == code


def test_a_process_is_refused_for_several_objectives(tmp_path: Path) -> None:
    search = load_search(write(tmp_path, good("sampler=GP()")))
    several = search.with_changes(extra_objectives=(Objective(metric="val/matching"),))
    with pytest.raises(UserError, match=r"'gp'.*2.*TPE") as caught:
        several.validate_space()
    assert caught.value.code == "sampler-with-objectives"


def test_the_same_samplers_are_taken_where_they_learn(tmp_path: Path) -> None:
    for more in ("sampler=GP()", "sampler=NSGA2(), pruner=NoPruner()"):
        load_search(write(tmp_path, good(more))).validate_space()


@pytest.mark.parametrize(
    ("body", "sampler", "named"),
    [
        ("pass", "TPE()", None),
        (CONDITIONAL, "TPE()", None),
        (MOVING, "TPE()", "'moving'"),
        (CONDITIONAL, "NSGA2(), pruner=NoPruner()", "'only with a'"),
        (MOVING, "Random()", None),
    ],
)
def test_what_a_sampler_cannot_model_is_stated_once(
    tmp_path: Path, body: str, sampler: str, named: str | None
) -> None:
    search = load_search(write(tmp_path, GOOD.format(body=body, more=f", sampler={sampler}")))
    remarks = search.remarks()
    assert len(remarks) == (named is not None)
    assert all(named is not None and named in remark for remark in remarks)


IMPORTING = """
from package.rates import HIGH
from shared import LOW
from hpsearch.config import SGD, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    from later import PATCHES
    return TrialConfig(optimizer=SGD(lr=trial.suggest_float("lr", LOW, HIGH)), patches=PATCHES)

SEARCH = Search(suggest=suggest, budget=100, report_every=10, trials=2,
                baseline=TrialConfig(patches=100))
"""


def importing(folder: Path, low: float) -> Path:
    """Space that imports two modules and one of a package, all in its folder."""
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "rates.py").write_text("HIGH = 1.0")
    (folder / "shared.py").write_text(f"LOW = {low}")
    (folder / "later.py").write_text("PATCHES = 100")
    (folder / "unused.py").write_text("raise SystemExit")
    return write(folder, IMPORTING)


def lowest_rate(search: Search) -> float:
    trial = optuna.create_study().ask()
    search.suggest_config(trial)
    distribution = trial.distributions["lr"]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return distribution.low


def test_a_space_imports_modules_of_its_folder_each_its_own(tmp_path: Path) -> None:
    others = [entry for entry in sys.path if str(tmp_path.parent) not in entry]
    one, two = importing(tmp_path / "one", 0.1), importing(tmp_path / "two", 0.2)
    first, second = load_search(one), load_search(two)
    assert (lowest_rate(first), lowest_rate(second)) == (0.1, 0.2)
    second.validate_space()
    found = imported_modules()
    assert set(found) == {"shared.py", "later.py", "package/__init__.py", "package/rates.py"}
    assert found["shared.py"] == tmp_path / "two" / "shared.py"
    assert lowest_rate(load_search(one)) == 0.1, "not that of the other space"
    assert [entry for entry in sys.path if entry in others] == others
    assert sys.path[0] == others[0], "no other import is changed"
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_search_keeps_the_modules_that_its_space_imports(tmp_path: Path) -> None:
    space = importing(tmp_path / "user", 0.1)
    search = load_search(space)
    search.validate_space()
    record = SearchRecord(
        space="space.py", store="", fingerprint="", split="auto", tracking_uri="", trials=2,
        space_path=str(space),
    )  # fmt: skip
    modules = imported_modules()
    context = Workspace(tmp_path / "home").create("s", space, record, modules=modules)
    (space.parent / "shared.py").write_text("LOW = 0.3")
    with pytest.raises(UserError, match=r"^shared\.py has changed") as caught:
        resolve_space_change(context, None, Observer())
    assert caught.value.code == "space-changed"
    assert lowest_rate(resolve_space_change(context, "update", Observer()).search) == 0.3
    shutil.rmtree(space.parent)
    assert lowest_rate(Workspace(tmp_path / "home").open("s").search) == 0.3


def test_a_search_of_a_notebook_is_written_where_an_import_is_blocked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "blocked", None)  # as Python has it for one that must fail
    search = Search(
        suggest=lambda trial: TrialConfig(patches=100), budget=100, report_every=10, trials=2,
        baseline=TrialConfig(patches=100),
    )  # fmt: skip
    assert "SEARCH" in space_text(search)


@pytest.mark.parametrize("folder", ["site-packages", "project"])
def test_installed_packages_are_stored_by_name_wherever_they_are(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an environment includes the packages of another; a module may have an alias."""
    name = f"borrowed_{folder[:4]}"
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{name}.py").write_text("def rate():\n    return 0.125\n")
    monkeypatch.syspath_prepend(str(tmp_path / folder))
    borrowed = importlib.import_module(name)
    monkeypatch.setitem(sys.modules, "alias_of_borrowed", borrowed)
    rate = borrowed.rate
    search = Search(
        suggest=lambda trial: TrialConfig(optimizer=Adam(lr=rate()), patches=100), budget=100,
        report_every=10, trials=2, baseline=TrialConfig(patches=100),
    )  # fmt: skip
    text = space_text(search)
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "alias_of_borrowed")
    monkeypatch.setattr(sys, "path", [one for one in sys.path if str(tmp_path) not in one])
    path = tmp_path / "space.py"
    path.write_text(text)
    if folder == "project":
        config = load_search(path).suggest_config(optuna.create_study().ask())
        assert config.optimizer == Adam(lr=0.125)
    else:
        with pytest.raises(UserError, match=name):
            load_search(path)
