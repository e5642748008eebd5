"""Trials as a table for other programs: columns, conditions, order, and what a spreadsheet runs."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from hpsearch.errors import UserError
from hpsearch.reporting.leaderboard import leaderboard
from hpsearch.reporting.trial_table import (
    find_column,
    select_rows,
    to_csv,
    to_json_document,
    trial_records,
)
from hpsearch.tracking.run_state import Run

MakeRun = Callable[..., Run]


def labels(runs: list[Run], *conditions: str, sort: str | None = None) -> list[str]:
    rows = leaderboard(runs, direction="maximize")
    return [row.run.label for row in select_rows(rows, conditions=conditions, sort=sort)]


def test_conditions_select_and_all_of_them_hold(mixed: list[Run]) -> None:
    assert labels(mixed, "status=completed") == ["000", "001"]
    assert labels(mixed, "status=completed", "lr>=2e-3") == ["001"]
    assert labels(mixed, "optimizer.lr < 0.002", "status != completed") == [
        "006",
        "002",
        "007",
        "005",
    ]
    assert labels(mixed, "objective>0.65") == ["000", "005"], "a failed trial's value is a value"
    assert labels(mixed, "val/mAP>0", "trial=003") == ["003"]
    assert labels(mixed, "loss=hardnet") == []


def test_a_column_orders_and_a_missing_value_is_last(mixed: list[Run]) -> None:
    assert labels(mixed, sort="seen")[0] == "007"
    assert labels(mixed, sort="-seen")[:2] == ["000", "001"]
    assert labels(mixed, sort="objective")[-1] == "007", "it has no report"
    assert labels(mixed, sort="-objective")[-1] == "007"


@pytest.mark.parametrize(
    ("conditions", "sort", "code"),
    [
        (["nowhere=1"], None, "unknown-column"),
        ([], "nowhere", "unknown-column"),
        (["seen"], None, "bad-condition"),
        (["seen="], None, "bad-condition"),
        (["=3"], None, "bad-condition"),
    ],
)
def test_what_is_no_column_or_condition(
    mixed: list[Run], conditions: list[str], sort: str | None, code: str
) -> None:
    rows = leaderboard(mixed, direction="maximize")
    with pytest.raises(UserError) as caught:
        select_rows(rows, conditions=conditions, sort=sort)
    assert caught.value.code == code


def test_the_end_of_a_name_is_enough_unless_two_are_equally_near() -> None:
    assert find_column("alpha", ["loss.margin.alpha", "seen"]) == "loss.margin.alpha"
    with pytest.raises(UserError) as caught:
        find_column("mAP", ["val/mAP", "test/mAP"])
    assert "val/mAP" in str(caught.value)


def test_a_row_for_each_trial_and_a_column_for_each_setting_that_varies(mixed: list[Run]) -> None:
    rows = leaderboard(mixed, direction="maximize")
    table = list(csv.DictReader(io.StringIO(to_csv(trial_records(rows)))))
    assert [row["trial"] for row in table] == [row.run.label for row in rows]
    assert table[0]["optimizer.lr"] == "0.001"
    assert table[0]["started"] == "1970-01-01T00:01:40Z"
    assert "optimizer.weight_decay" not in table[0]
    assert "optimizer.weight_decay" in trial_records(rows, all_settings=True)[0]


def test_json_has_no_number_that_json_lacks(make_run: MakeRun) -> None:
    runs = [make_run(0, "completed", {10: 0.5}, metrics={"train/loss": float("nan")})]
    rows = leaderboard(runs, direction="maximize")
    text = to_json_document("first", rows, {"commit": "abc"})
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found["facts"] == {"commit": "abc"}
    assert found["trials"][0]["train/loss"] is None
    assert found["trials"][0]["objective"] == 0.5


def test_a_spreadsheet_runs_nothing_of_a_table(make_run: MakeRun) -> None:
    failed = replace(make_run(0, "failed", {10: 0.1}), reason="=HYPERLINK('http://x')")
    (row,) = csv.DictReader(
        io.StringIO(to_csv(trial_records(leaderboard([failed], direction="maximize"))))
    )
    assert row["reason"] == "'=HYPERLINK('http://x')"
