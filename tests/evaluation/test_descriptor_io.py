"""Three outputs hold the same rows; an output is whole or not there."""

import numpy as np
import pytest
from pyarrow import parquet

from hpsearch.errors import UserError
from hpsearch.evaluation import VIEW_NAMES
from hpsearch.evaluation.descriptor_io import (
    ROWS_PER_GROUP,
    DescriptorTableSpec,
    PatchKeys,
    atomic_output,
    descriptor_output,
    read_descriptors,
)

COUNTS = {"i_a": 5, "v_b": 3}
FOUND = np.random.default_rng(0).standard_normal((16 * 8, 4)).astype(np.float32)
TABLE = DescriptorTableSpec(rows=len(FOUND), descriptor_dim=4, metadata={"model": "models:/m/1"})


def write(to, *, force=False):
    """All rows, 32 at a time, as a store is read."""
    with descriptor_output(to, TABLE, force=force) as put:
        start = 0
        for name, count in COUNTS.items():
            for first in range(0, count, 2):
                point, view = np.divmod(np.arange(16 * min(2, count - first)), 16)
                keys = PatchKeys([name] * len(point), first + point, view)
                put(keys, FOUND[start : start + len(point)])
                start += len(point)


def test_an_array(tmp_path):
    write(tmp_path / "deep" / "x.npy")
    found = np.load(tmp_path / "deep" / "x.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, FOUND)


def test_parquet(tmp_path):
    write(tmp_path / "x.parquet")
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["sequence", "point", "view", "descriptor"]
    assert str(table.schema.field("descriptor").type) == "fixed_size_list<element: float>[4]"
    assert table.schema.metadata[b"hpsearch.model"] == b"models:/m/1"
    assert np.array_equal(np.stack(table["descriptor"].to_numpy()), FOUND)
    row = table.slice(16 * 6 + 4, 1).to_pylist()[0]
    assert (row["sequence"], row["point"], row["view"]) == ("v_b", 1, VIEW_NAMES[4])


def test_parquet_comes_in_row_groups(tmp_path):
    rows = 2 * ROWS_PER_GROUP + 10
    with descriptor_output(
        tmp_path / "x.parquet", DescriptorTableSpec(rows=rows, descriptor_dim=1, metadata={})
    ) as put:
        for start in range(0, rows, 4096):
            point = np.arange(start, min(start + 4096, rows))
            put(PatchKeys(None, point, None), point[:, None].astype(np.float32))
    file = parquet.ParquetFile(tmp_path / "x.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [
        ROWS_PER_GROUP, ROWS_PER_GROUP, 10,
    ]  # fmt: skip
    table = file.read()
    assert table["point"].to_numpy().tolist() == list(range(rows))
    assert table["view"].null_count == table["sequence"].null_count == rows


def test_the_official_layout(tmp_path):
    write(tmp_path / "x")
    found = read_descriptors(tmp_path / "x")
    assert {name: len(rows) for name, rows in found.items()} == COUNTS
    rows = np.concatenate([rows.reshape(-1, 4) for rows in found.values()])
    np.testing.assert_allclose(rows, FOUND, atol=5.1e-6)


@pytest.mark.parametrize("name", ["x.npy", "x.parquet", "x"])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, UserError])
def test_what_stops_it_leaves_what_was_there(tmp_path, name, stop):
    def interrupted():
        with descriptor_output(tmp_path / name, TABLE, force=True) as put:
            put(PatchKeys(["i_a"] * 16, np.zeros(16, int), np.arange(16)), FOUND[:16])
            raise stop

    with pytest.raises(stop):
        interrupted()
    assert not list(tmp_path.iterdir())
    write(tmp_path / name)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(stop):
        interrupted()
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("name", ["x.npy", "x.parquet", "x"])
def test_an_output_is_replaced_only_by_force(tmp_path, name):
    write(tmp_path / name)
    with pytest.raises(UserError, match="replace it with --force"):
        write(tmp_path / name)
    write(tmp_path / name, force=True)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "x").mkdir()
    write(tmp_path / "x")
    assert list(read_descriptors(tmp_path / "x")) == list(COUNTS)


@pytest.mark.parametrize("kept", ["thesis.tex", "i_a/notes.txt"])
def test_force_leaves_a_folder_that_holds_anything_else(tmp_path, kept):
    write(tmp_path / "x")
    (tmp_path / "x" / kept).write_text("years of work")
    with pytest.raises(UserError, match="other files"):
        write(tmp_path / "x", force=True)
    assert (tmp_path / "x" / kept).read_text() == "years of work"


def test_a_location_that_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="cannot be written"),
        atomic_output(tmp_path / "file" / "x.npy", force=False),
    ):
        pass
