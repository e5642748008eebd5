"""The benchmark of samplers: any table with any space, goals by rank, and the surrogate."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pausing import ARMS, Posterior, Search, compare
from record_curves import with_repeats
from replay import Replay, Row, Table, read_repeats, read_table
from samplers import Bench, at, costs, reached, regrets
from searchers import RowGP, RowOracle, Rows
from surrogate import Surrogate

from hpsearch.config import TrialConfig
from hpsearch.search.freeze_thaw import EXPLORATION, Reports, predict_ends, similarity, standardize
from hpsearch.search.pruners import ASHA, NoPruner, PrunerWithHistory, build_pruner
from hpsearch.search.space_file import load_search

HERE = Path(__file__).parents[2]
OLD_SPACE = HERE / "tests/frozen/spaces-0.1.0/replay_space.py"
CURVES = HERE / "benchmarks/curves.parquet"
SPACE = """
from hpsearch.config import SGD, Adam, TrialConfig
from hpsearch.search.search import Search

def suggest(trial):
    if trial.suggest_categorical("kind", ["sgd", "adam"]) == "sgd":
        optimizer = SGD(lr=trial.suggest_float("sgd_lr", 0.01, 1, log=True))
    else:
        optimizer = Adam(lr=trial.suggest_float("adam_lr", 0.001, 1, log=True))
    return TrialConfig(optimizer=optimizer, patches=300)

SEARCH = Search(suggest=suggest, budget=300, report_every=100, trials=2,
                baseline=TrialConfig(patches=300))
"""


def line(index: int, **more: Any) -> dict[str, Any]:
    """A run of the space; better with higher rates of SGD, and the last ones diverge."""
    rate = float(0.01 * 100 ** ((index % 20) / 20))
    params = {"kind": "sgd", "sgd_lr": rate} if index % 2 else {"kind": "adam", "adam_lr": rate}
    value = 0.3 + 0.02 * (index % 20) * (index % 2)
    failed = index % 20 >= 18
    return {
        "params": json.dumps(params),
        "status": "diverged" if failed else "completed",
        "stopped_at": 150 if failed else 300,
        "seen": [100, 200, 300],
        "seconds": [1.0, 2.0, 3.0],
        "objective": [value / 2, value * 0.75, value],
    } | more


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.py"
    path.write_text(SPACE)
    return path


def written(folder: Path, lines: list[dict[str, Any]]) -> Path:
    path = folder / "table.parquet"
    pq.write_table(pa.Table.from_pylist(lines), path)
    return path


def searched(searcher: Any, *, pruner: Any, workers: int = 2, **more: Any) -> Replay:
    rule = build_pruner(pruner, grace_period=100, budget=300)
    history = PrunerWithHistory(rule, direction="maximize", name="s")
    return Replay(searcher, history, workers, **more).run()


def test_a_table_needs_only_the_columns_of_the_first_one_and_no_name(
    tmp_path: Path, space: Path
) -> None:
    search = load_search(space)
    plain = read_table(written(tmp_path, [line(n) for n in range(20)]), search)
    named = [line(n, space="elsewhere", number=n, notes="more") for n in range(20)]
    assert read_table(written(tmp_path, named), search) == plain
    assert len(plain.rows) == 20
    assert plain.rows[19].reports[-1]["status"] == "diverged"
    assert plain.rows[19].reports[-1]["seen"] == 150


def test_runs_that_the_space_cannot_draw_or_that_repeat_others_are_no_rows(
    tmp_path: Path, space: Path
) -> None:
    other = line(3, params=json.dumps({"kind": "adam", "adam_lr": 9.0}))
    lacking = line(3, params=json.dumps({"kind": "sgd"}))
    repeated = line(5, repeats=2, objective=[0.1, 0.2, 0.3])
    first = [line(n, number=n, repeats=None) for n in range(4)]
    path = written(tmp_path, [*first, other, lacking, repeated])
    assert len(read_table(path, load_search(space)).rows) == 4
    pairs = read_repeats(path)
    assert np.array(pairs) == pytest.approx(np.array([[[0.15, 0.225, 0.3], [0.1, 0.2, 0.3]]]))


def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, space: Path) -> None:
    rows = [{"params": "{}", "seen": [1]}]
    with pytest.raises(SystemExit, match="no column status, stopped_at, seconds, objective"):
        read_table(written(tmp_path, rows), load_search(space))
    foreign = [line(0, params=json.dumps({"rate": 1.0}))]
    with pytest.raises(SystemExit, match="no run of this space"):
        read_table(written(tmp_path, foreign), load_search(space))


def test_a_space_file_of_the_first_version_reads_the_first_table() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = load_search(OLD_SPACE)
    assert len(read_table(CURVES, search).rows) >= 82


def test_goals_are_counted_in_rows() -> None:
    rows = tuple(
        Row({}, {}, ({"objective": value, "status": "completed"},), (1.0,))
        for value in np.linspace(0, 1, 500)
    )
    table = Table(rows)
    assert sum(row.final >= table.goal(0.01) for row in rows) == 5
    assert sum(row.final >= table.goal(0.004) for row in rows) == 2
    assert Table(rows[:20]).goal(0.004) == Table(rows[:20]).best


def test_a_replay_counts_patches_of_all_workers_and_ends_at_its_limit(
    tmp_path: Path, space: Path
) -> None:
    table = read_table(written(tmp_path, [line(n) for n in range(20)]), load_search(space))
    whole = searched(Rows(table, seed=0), pruner=NoPruner())
    assert whole.patches == 18 * 300 + 2 * 150
    assert whole.stopped == 2 * 150
    assert whole.bests[-1][1] == table.best == pytest.approx(0.64)
    assert whole.reached(table.best) == whole.bests[-1][0]
    limited = searched(Rows(table, seed=0), pruner=NoPruner(), limit=900)
    assert 900 <= limited.patches < 1200
    assert searched(Rows(table, seed=0), pruner=ASHA()).patches < whole.patches


def test_the_process_tries_each_row_once(tmp_path: Path, space: Path) -> None:
    table = read_table(written(tmp_path, [line(n) for n in range(20)]), load_search(space))
    searcher = RowGP(table, seed=0)
    run = searched(searcher, pruner=ASHA())
    assert run.trials == 20
    assert run.bests[-1][1] >= 0.5
    assert searcher.ask("one more") is None


def test_an_oracle_takes_the_rows_from_the_best_one_on(tmp_path: Path, space: Path) -> None:
    table = read_table(written(tmp_path, [line(n) for n in range(20)]), load_search(space))
    oracle = RowOracle(table, seed=0, startup_trials=2)
    taken = [oracle.ask(str(n)) for n in range(20)]
    random = Rows(table, seed=0)
    assert taken[:2] == [random.ask("0"), random.ask("1")]
    finals = [row.final for row in taken[2:] if row is not None]
    assert finals == sorted(finals, reverse=True)
    assert len(finals) == 18
    assert oracle.ask("20") is None


def test_a_posterior_that_grows_is_that_of_all_reports_at_once(tmp_path: Path, space: Path) -> None:
    table = read_table(written(tmp_path, [line(n) for n in range(20)]), load_search(space))
    points = [row.point for row in table.rows]
    grown, rng = Posterior(similarity(points)), np.random.default_rng(0)
    rows, times, values = rng.permutation(np.arange(20).repeat(2)), rng.random(40), rng.random(40)
    for row, time, value in zip(rows, times, values, strict=True):
        grown.add(int(row), float(time), float(value))
    reports = Reports(rows, times, standardize(values))
    mean, deviation = predict_ends(points, reports, own=True)
    # twice the points have the same mean distance, so the same kernel
    assert [end.mean for end in grown.ends()] == pytest.approx(mean)
    assert [end.bound for end in grown.ends()] == pytest.approx(mean + EXPLORATION * deviation)


def test_a_search_that_pauses_trains_no_report_twice_and_resumes_each_trial(
    tmp_path: Path, space: Path
) -> None:
    table = read_table(written(tmp_path, [line(n) for n in range(20)]), load_search(space))
    like = similarity([row.point for row in table.rows])
    whole: dict[str, Search] = {
        arm: Search(table, 300, like, arm=settings, seed=0, workers=2).run()
        for arm, settings in ARMS.items()
    }
    for arm, found in whole.items():
        assert found.bests == sorted(found.bests, key=lambda best: best[1]), arm
        assert found.bests[-1][1] <= table.best
        assert found.bests[-1][0] <= 18 + 2 * 0.5, "each row once, whatever was paused"
    for arm in ("GP + FreezeThaw", "GP + FreezeThaw at rungs"):
        assert whole[arm].bests[-1][1] == table.best, "whatever is paused can be resumed"
        assert whole[arm].resumed > 0
    assert whole["oracle + ASHA"].bests[-1] == (pytest.approx(2), table.best), "the two best, whole"
    text = compare(lambda arm, seed: whole[arm], table, 2)
    assert text[0].startswith("| search | best 1.0% of the rows |")
    assert len(text) == 2 + len(ARMS) + 2


def test_a_surrogate_follows_its_table_and_is_the_same_for_a_seed(
    tmp_path: Path, space: Path
) -> None:
    search = load_search(space)
    lines = [line(n, number=n, repeats=None) for n in range(60)]
    lines += [line(17, repeats=17, objective=[0.3, 0.5, 0.6])]
    path = written(tmp_path, lines)
    surrogate = Surrogate(read_table(path, search), read_repeats(path), search.suggest, 0.0)
    points = surrogate._known[:18]
    values = [row.final for row in surrogate.table.rows[:18]]
    assert np.corrcoef(surrogate.finals(points), values)[0, 1] > 0.9
    assert surrogate.chances(surrogate._known[18:20]).mean() > surrogate.chances(points).mean()
    runs = [surrogate.run(points[17], np.random.default_rng(3)) for _ in range(2)]
    assert runs[0] == runs[1]
    drawn = [surrogate.run(points[17], np.random.default_rng(seed)) for seed in range(20)]
    ends = {round(run.final, 6) for run in drawn if not run.reports[-1]["collapsed"]}
    assert len(ends) == 2, "above and below the truth by the one difference that was measured"
    assert "rank correlation" in surrogate.check()[0]


def test_what_is_compared_is_written_with_costs_and_regrets() -> None:
    runs = {
        "random + ASHA": [{"bests": [(2.0, 0.5), (9.0, 0.9)], "stopped": 0.5, "trials": 8,
                           "patches": 20.0}] * 2,
        "stock OptunaSearch + ASHA": [{"bests": [(4.0, 0.95)], "stopped": 0.4, "trials": 8,
                                       "patches": 20.0}] * 2,
    }  # fmt: skip
    assert reached(runs["random + ASHA"][0], 0.9) == 9.0
    assert reached(runs["random + ASHA"][0], 0.91) == np.inf
    assert at(runs["random + ASHA"][0], 8.9) == 0.5
    assert at(runs["random + ASHA"][0], 1.0) == 0.0
    text = costs(runs, {"goal": 0.9}, limit=20)
    assert "| goal | random + ASHA | 9.0 | 9.0 – 9.0 | 0% | 2.25 | -5.0 ± 0.0 |" in text
    assert "| random + ASHA | 0.1000 ± 0.0000 | 0.1000 ± 0.0000 | 50% | 0.4 |" in regrets(runs, 1.0)


def test_every_search_of_the_benchmark_runs_on_rows_and_on_a_surrogate(
    tmp_path: Path, space: Path
) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = written(tmp_path, [line(n, number=n) for n in range(40)])
    for free in (False, True):
        bench = Bench(path, space, free, trainings=4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ended = [bench.searched(arm, 0, 2) for arm in bench.arms]
        assert len(ended) == (5 if free else 7)
        assert all(
            row["patches"] >= 4 or row["trials"] == 40 or "oracle" in row["arm"] for row in ended
        )
        assert all(row["bests"] for row in ended)


def test_one_run_of_so_many_repeats_the_one_before_with_another_seed() -> None:
    points = [({"n": n}, TrialConfig(patches=100 + n)) for n in range(12)]
    found = with_repeats(points, every=4)
    assert [first for first, _ in found] == [n - 1 if n % 4 == 3 else None for n in range(12)]
    assert found[3][1][0] == {"n": 2}
    assert found[3][1][1] == points[2][1].model_copy(update={"seed": 1000})
    assert [point for _, point in with_repeats(points, every=0)] == points
