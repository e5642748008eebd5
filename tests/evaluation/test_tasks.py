import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.errors import UserError
from hpsearch.evaluation import (
    OFFICIAL_SIZES,
    VALIDATION_SIZES,
    TaskSizes,
    read_tasks,
    sample_tasks,
    write_tasks,
)

NAMES = ("i_a", "i_b", "v_c")
SMALL = TaskSizes(pairs=50, queries=5, distractors=10)


def lists_of(tasks):
    return {name: rows.tolist() for name, _, rows in tasks.lists()}


@given(st.lists(st.integers(2, 30), min_size=3, max_size=3), st.integers(0, 99))
def test_drawn_tasks_have_the_official_structure(counts, seed):
    counts = [n + 5 for n in counts]
    tasks = sample_tasks(NAMES, counts, sizes=SMALL, seed=seed)
    tasks.check(counts)
    positives, inter, intra = tasks.positives, tasks.inter, tasks.intra
    for rows in (positives, inter, intra):
        assert len(rows) == 50
        assert (rows[:, 1] != rows[:, 4]).all()
        assert (rows[:, :3] == positives[:, :3]).all()
    assert (positives[:, [0, 2]] == positives[:, [3, 5]]).all()
    assert (intra[:, 0] == intra[:, 3]).all()
    assert (intra[:, 2] != intra[:, 5]).all()
    assert (intra[:, 4] == positives[:, 4]).all()
    assert (inter[:, 0] != inter[:, 3]).all()
    points = [tuple(row) for row in (*tasks.queries, *tasks.distractors)]
    assert len(set(points)) == 15


def test_sequences_are_drawn_evenly_and_all_images_used():
    tasks = sample_tasks(
        NAMES, [10, 100, 1000], sizes=TaskSizes(pairs=9000, queries=5, distractors=9), seed=0
    )
    assert np.bincount(tasks.positives[:, 0]) == pytest.approx([3000] * 3, abs=200)
    assert np.bincount(tasks.positives[:, 1]) == pytest.approx([1500] * 6, abs=150)


def test_a_seed_repeats_the_tasks_and_another_does_not():
    counts = [20, 30, 40]
    once, again, other = (
        lists_of(sample_tasks(NAMES, counts, sizes=SMALL, seed=seed)) for seed in (1, 1, 2)
    )
    assert once == again
    assert once["queries"] != other["queries"]
    assert once["positives"] != other["positives"]


def test_flat_patches_stay_out_of_retrieval():
    std = [np.where(np.arange(30) % 2, 10.0, 10.1) for _ in NAMES]
    tasks = sample_tasks(NAMES, [30] * 3, sizes=SMALL, seed=0, std=std)
    points = np.concatenate([tasks.queries, tasks.distractors])[:, 1]
    assert (points % 2 == 0).all()


def test_sets_too_small_are_refused():
    with pytest.raises(UserError, match="only 6 points are eligible"):
        sample_tasks(NAMES, [2, 2, 2], sizes=SMALL, seed=0)
    with pytest.raises(UserError, match="at least two sequences"):
        sample_tasks(NAMES[:1], [20], sizes=SMALL, seed=0)
    with pytest.raises(UserError, match="at least two points"):
        sample_tasks(NAMES, [1, 1, 1], sizes=SMALL, seed=0)
    fitting = OFFICIAL_SIZES.clamped(12)
    assert (fitting.queries, fitting.distractors) == (3, 6)
    large = VALIDATION_SIZES.clamped(10**6)
    assert (large.queries, large.distractors) == (
        VALIDATION_SIZES.queries,
        VALIDATION_SIZES.distractors,
    )


@given(flat=st.lists(st.integers(0, 20), min_size=3, max_size=3))
def test_flat_patches_shorten_lists_made_to_fit_and_never_refuse_them(flat):
    std = [np.where(np.arange(20) < few, 3.0, 30.0) for few in flat]
    eligible = 60 - sum(flat)
    sizes = VALIDATION_SIZES.clamped(60)
    if eligible < 2:
        with pytest.raises(UserError, match="two points with some texture"):
            sample_tasks(NAMES, [20] * 3, sizes=sizes, seed=0, std=std)
        return
    tasks = sample_tasks(NAMES, [20] * 3, sizes=sizes, seed=0, std=std)
    points = np.concatenate([tasks.queries, tasks.distractors])
    assert len(points) == min(eligible, 45)
    assert len(tasks.queries) >= 1
    assert len(tasks.distractors) >= len(tasks.queries)
    assert len(np.unique(points, axis=0)) == len(points)
    assert all(std[s][i] > 10 for s, i in points)


@pytest.fixture
def written(tmp_path):
    counts = [20, 30, 40]
    tasks = sample_tasks(NAMES, counts, sizes=SMALL, seed=4)
    write_tasks(tasks, tmp_path, "a")
    return tmp_path, tasks, counts


def test_written_tasks_read_back_whatever_the_order_of_names(written):
    folder, tasks, counts = written
    back = read_tasks(folder, "a", names=NAMES, counts=counts)
    assert lists_of(back) == lists_of(tasks)
    turned = read_tasks(folder, "a", names=NAMES[::-1], counts=counts[::-1])
    assert (2 - turned.positives[:, 0]).tolist() == tasks.positives[:, 0].tolist()


def test_official_files_are_rewritten_as_they_were(golden, tmp_path):
    _, tasks, _ = golden
    write_tasks(tasks, tmp_path, "a")
    source = Path(__file__).parent / "golden" / "tasks"
    for path in source.iterdir():
        assert (tmp_path / path.name).read_text() == path.read_text()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("i_zzz,3", "line 7: 'i_zzz' is not one of the sequences"),
        ("i_a,three", "line 7: 'three' is not an index"),
        ("i_a,-1", "line 7: '-1' is not an index"),
        ("i_a,20", r"line 7: idx is 20, but must be 0..19 of i_a"),
        ("i_a", "Row #7|Expected 2 columns"),
        ("i_a;3", "Expected 2 columns"),
    ],
)
def test_a_bad_row_is_named(written, line, message):
    folder, _, counts = written
    with (folder / "retr_queries_split-a.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message) as caught:
        read_tasks(folder, "a", names=NAMES, counts=counts)
    assert "retr_queries_split-a.csv" in str(caught.value)


def test_a_missing_file_header_or_separator_is_named(written, tmp_path_factory):
    folder, _, counts = written
    with pytest.raises(UserError, match=r"verif_pos_split-b\.csv is missing"):
        read_tasks(folder, "b", names=NAMES, counts=counts)
    other = tmp_path_factory.mktemp("semicolons")
    for path in folder.iterdir():
        shutil.copy(path, other)
    intra = other / "verif_neg_intra_split-a.csv"
    intra.write_text(intra.read_text().replace(",", ";"))
    with pytest.raises(UserError, match=r"verif_neg_intra_split-a\.csv, line 1: .*with commas"):
        read_tasks(other, "a", names=NAMES, counts=counts)
    intra.write_text("")
    with pytest.raises(UserError, match="line 1: the header must be s1,t1"):
        read_tasks(other, "a", names=NAMES, counts=counts)
