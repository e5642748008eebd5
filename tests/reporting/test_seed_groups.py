"""Means over training seeds, on numbers worked out by hand."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hpsearch.reporting.text_tables import configurations_table, group_configurations, to_text
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]


def seeded(run: Run, seed: int) -> Run:
    return replace(run, config=run.config.model_copy(update={"seed": seed}))


@pytest.fixture
def runs(make_run: MakeRun) -> list[Run]:
    """A lucky configuration that once collapsed, a steady one, and one that was pruned."""
    return [
        seeded(make_run(0, curve={1000: 0.9}, rate=1e-2), 0),
        seeded(make_run(1, curve={1000: 0.6}, rate=1e-3), 0),
        seeded(make_run(2, "collapsed", {500: 0.5, 600: None}, rate=1e-2), 1),
        seeded(make_run(3, curve={1000: 0.8}, rate=1e-3), 1),
        seeded(make_run(4, "pruned", {500: 0.7}, rate=1e-4), 0),
        seeded(make_run(5, curve={1000: 0.99}, kind="baseline"), 0),
    ]


def test_the_steady_one_stands_before_the_lucky_one(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    found = group_configurations(runs, direction="maximize")
    assert [[run.number for run in one.runs] for one in found] == [[1, 3], [0, 2], [4]]
    assert [one.mean for one in found] == [pytest.approx(0.7), pytest.approx(0.45), None]
    assert [one.standard_deviation for one in found] == [
        pytest.approx(0.02**0.5), pytest.approx(0.405**0.5), None
    ]  # fmt: skip
    assert to_text(configurations_table(found)).splitlines() == [
        "#  trials     mean    ± sd  95 % interval  n  ended                     settings",
        "1  001 003  0.7000  0.1414  needs 3 seeds  2  2 completed               adam 1e-3",
        "2  000 002  0.4500  0.6364  needs 3 seeds  2  1 completed, 1 collapsed  adam 0.01",
        "3  004           –       –              –  0  1 pruned                  adam 1e-4",
    ]


def test_three_seeds_give_an_interval(make_run: MakeRun) -> None:
    values = [0.5, 0.6, 0.7]
    three = [seeded(make_run(n, curve={1000: values[n]}, rate=1e-3), n) for n in range(3)]
    (found,) = group_configurations(three, direction="maximize")
    half = 4.302653 * 0.1 / 3**0.5  # t(97.5 %, 2)
    assert found.interval == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    assert configurations_table([found]).rows[0][4] == "0.352 … 0.848"


def test_what_is_minimized_stands_the_other_way_round(runs: list[Run]) -> None:
    found = group_configurations(runs, direction="minimize")
    assert [one.runs[0].number for one in found] == [0, 1, 4]


@pytest.mark.parametrize("kept", [[0, 1], []])
def test_no_means_where_each_was_trained_once(runs: list[Run], kept: list[int]) -> None:
    chosen: Any = [runs[number] for number in kept]
    assert group_configurations(chosen, direction="maximize") == []


def test_the_same_seed_again_is_one_observation(make_run: MakeRun) -> None:
    """A sampler may draw a point again; its training gives the same number, which adds nothing."""
    same = [seeded(make_run(n, curve={1000: 0.6}, rate=1e-3), 0) for n in range(4)]
    assert group_configurations(same, direction="maximize") == []
    other = seeded(make_run(4, curve={1000: 0.8}, rate=1e-3), 1)
    (found,) = group_configurations([*same, other], direction="maximize")
    assert found.values == [pytest.approx(0.6), pytest.approx(0.8)]
    assert found.mean == pytest.approx(0.7)
    assert configurations_table([found]).rows[0][5] == "2"
