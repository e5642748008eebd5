import numpy as np
import pytest

from hpsearch.errors import UserError
from hpsearch.evaluation import write_tasks
from hpsearch.evaluation.descriptor_io import read_descriptors, write_descriptors
from hpsearch.promotion.model_evaluation import load_descriptors


@pytest.fixture
def descriptors():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((n, 16, 8)) for name, n in (("i_a", 4), ("v_b", 6))}


@pytest.mark.parametrize("separator", [",", ";"])
def test_written_descriptors_read_back_to_five_decimals(descriptors, tmp_path, separator):
    write_descriptors(tmp_path / "desc", descriptors, separator=separator)
    (tmp_path / "desc" / "__MACOSX").mkdir()
    found = read_descriptors(tmp_path / "desc")
    assert list(found) == ["i_a", "v_b"]
    for name, array in descriptors.items():
        assert found[name].dtype == np.float32
        assert found[name] == pytest.approx(array, abs=5.1e-6)


def test_the_layout_is_the_official_one(tmp_path):
    array = np.zeros((2, 16, 3))
    array[1, 9] = [1, -0.25, 123.4567891]
    write_descriptors(tmp_path, {"v_a": array})
    rows = (tmp_path / "v_a" / "h4.csv").read_text().splitlines()
    assert rows[1] == "   1.00000,  -0.25000, 123.45679"
    assert len(list((tmp_path / "v_a").iterdir())) == 16


def test_only_the_sequences_asked_for_are_read(descriptors, tmp_path):
    write_descriptors(tmp_path, descriptors)
    assert list(read_descriptors(tmp_path, ["v_b"])) == ["v_b"]
    with pytest.raises(UserError, match="missing"):
        read_descriptors(tmp_path, ["v_c"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,2,nan,4,5,6,7,8", "row 3: NaN"),
        ("1,2,inf,4,5,6,7,8", "row 3: NaN"),
        ("1,2,1e60,4,5,6,7,8", "row 3: NaN"),
        ("1,2,,4,5,6,7,8", "row 3: NaN"),
        ("1,2,x,4,5,6,7,8", "(?s)Row #3.*'x'"),
        ("1,2,3", "(?s)Row #3.*Expected 8 columns, got 3"),
    ],
)
def test_a_bad_row_is_named(descriptors, tmp_path, row, message):
    write_descriptors(tmp_path, descriptors)
    path = tmp_path / "v_b" / "t2.csv"
    rows = path.read_text().splitlines()
    rows[2] = row
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        read_descriptors(tmp_path)
    assert str(path) in str(caught.value)


def test_missing_views_and_unequal_files_are_named(descriptors, tmp_path):
    write_descriptors(tmp_path, descriptors)
    path = tmp_path / "i_a" / "e3.csv"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:3]))
    with pytest.raises(UserError, match=r"e3\.csv: 3 rows .* 4 × 8 in ref"):
        read_descriptors(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"e3\.csv is missing"):
        read_descriptors(tmp_path)
    path.write_text(whole)
    write_descriptors(tmp_path, {"v_b": descriptors["v_b"][:, :, :5]})
    with pytest.raises(UserError, match="v_b: dimension 5, but 8 in i_a"):
        read_descriptors(tmp_path)


@pytest.mark.parametrize("separator", ["\t", " "])
def test_another_separator_is_refused(descriptors, tmp_path, separator):
    write_descriptors(tmp_path, descriptors)
    path = tmp_path / "i_a" / "ref.csv"
    path.write_text(path.read_text().replace(",", separator))
    with pytest.raises(UserError, match=r"ref\.csv, row 1: values must be separated by , or ;"):
        read_descriptors(tmp_path)
    with pytest.raises(UserError, match="separator must be one of"):
        write_descriptors(tmp_path, descriptors, separator=separator)


def test_an_empty_folder_or_file_is_refused(descriptors, tmp_path):
    with pytest.raises(UserError, match="no sequences"):
        read_descriptors(tmp_path)
    with pytest.raises(UserError, match="not a folder"):
        read_descriptors(tmp_path / "nowhere")
    write_descriptors(tmp_path, descriptors)
    (tmp_path / "i_a" / "ref.csv").write_text("")
    with pytest.raises(UserError, match=r"ref\.csv, row 1"):
        read_descriptors(tmp_path)


def _edit(folder, edit):
    """Change the list of rows of every file."""
    for path in folder.glob("*/*.csv"):
        path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: [f"{i},{row}" for i, row in enumerate(rows)], r"column 1 .*\(0, 1, 2, …\)"),
        (lambda rows: [f"{row},{i + 7}" for i, row in enumerate(rows)], r"column 9 .*\(7, 8, 9"),
        (lambda rows: ["0,1,2,3,4,5,6,7", *rows], "row 1 .*0, 1, 2"),
        (lambda rows: ["1;2;3;4;5;6;7;8", *(r.replace(",", ";") for r in rows)], "row 1 .*1, 2, 3"),
        (
            lambda rows: ["-1,0,1,2,3,4,5,6,7", *(f"{i},{row}" for i, row in enumerate(rows))],
            "row 1 .*0, 1, 2",
        ),
    ],
    ids=["index", "last", "header", "header from 1", "both"],
)
def test_counted_rows_and_columns_are_told(descriptors, tmp_path, edit, message):
    write_descriptors(tmp_path, descriptors)
    _edit(tmp_path, edit)
    with pytest.raises(UserError, match=message) as caught:
        read_descriptors(tmp_path)
    assert str(tmp_path / "i_a" / "ref.csv") in str(caught.value)


def test_whole_numbers_that_do_not_count_are_read(tmp_path):
    """Binary and grid descriptors, of two points too, are descriptors."""
    rng = np.random.default_rng(1)
    for name, array in (
        ("binary", rng.integers(2, size=(9, 16, 8))),
        ("grid", rng.integers(100, size=(9, 16, 8))),
        ("two", np.tile(np.arange(2)[:, None, None], (1, 16, 8))),
    ):
        write_descriptors(tmp_path / name, {"v_a": array})
        assert np.array_equal(read_descriptors(tmp_path / name)["v_a"], array)


def test_one_row_too_many_is_told_by_the_lists(golden, tmp_path):
    """A header of other numbers: every row of the lists is one off."""
    descriptors, tasks, _ = golden
    write_tasks(tasks, tmp_path / "lists", "x")
    header = {name: np.concatenate([a[:1] + 0.1, a]) for name, a in descriptors.items()}
    for name, arrays in (("right", descriptors), ("header", header)):
        write_descriptors(tmp_path / name, arrays)
    found, _ = load_descriptors(tmp_path / "right", tasks=tmp_path / "lists", split="x")
    assert list(found) == sorted(descriptors)
    with pytest.raises(UserError, match="one row too many in every sequence"):
        load_descriptors(tmp_path / "header", tasks=tmp_path / "lists", split="x")
