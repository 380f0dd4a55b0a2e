"""Columns of files: what numpy, csv and pyarrow wrote is read back, and mistakes are one clear line."""

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.data.columns import open_columns

DRAW = np.random.default_rng(3)
TEMP, WIND = DRAW.normal(size=(2, 40))
SEASON = DRAW.choice(["winter", "summer", "mild, wet"], 40)


def write_csv(path, delimiter=",", comma=False):
    def number(value):
        return repr(float(value)).replace(".", ",") if comma else repr(float(value))

    lines = [delimiter.join(("temp", "wind", "season"))]
    lines += [delimiter.join((number(t), number(w), f'"{s}"')) for t, w, s in zip(TEMP, WIND, SEASON, strict=True)]
    path.write_text("\n".join(["# made by a logger", *lines]) + "\n", encoding="utf-8-sig")
    return path


@pytest.mark.parametrize(("delimiter", "comma"), [(",", False), ("\t", False), (";", False), (";", True)])
def test_a_table_of_text_is_read_as_it_was_written(tmp_path, delimiter, comma):
    columns = open_columns(write_csv(tmp_path / "table.csv", delimiter, comma))
    assert columns.names == ("temp", "wind", "season") and columns.words == {"season"}
    np.testing.assert_array_equal(columns.read("temp"), TEMP)
    np.testing.assert_array_equal(columns.read("wind"), WIND)
    order = sorted(set(SEASON))
    np.testing.assert_array_equal(columns.read("season"), [order.index(word) for word in SEASON])


def test_a_table_without_names_has_numbers_for_names_and_a_byte_order_mark_is_no_name(tmp_path):
    (tmp_path / "plain.csv").write_text("1,2\n3,4\n")
    assert open_columns(tmp_path / "plain.csv").names == ("0", "1")
    (tmp_path / "excel.csv").write_text("temp;wind\n1,5;2\n", encoding="utf-8-sig")
    columns = open_columns(tmp_path / "excel.csv")
    assert columns.names == ("temp", "wind") and columns.read("temp").tolist() == [1.5]


def test_what_is_missing_is_nan_in_numbers_and_in_words(tmp_path):
    (tmp_path / "gaps.csv").write_text("a,b\n1,x\n,NA\nnull,y\n4,x\n")
    columns = open_columns(tmp_path / "gaps.csv")
    np.testing.assert_array_equal(columns.read("a"), [1, np.nan, np.nan, 4])
    np.testing.assert_array_equal(columns.read("b"), [0, np.nan, 1, 0])


def test_arrays_of_numpy_are_read(tmp_path):
    both = np.stack([TEMP, WIND], axis=1)
    np.save(tmp_path / "two.npy", both)
    columns = open_columns(tmp_path / "two.npy")
    assert columns.names == ("0", "1")
    np.testing.assert_array_equal(columns.read("1"), WIND)
    np.save(tmp_path / "named.npy", np.array(list(zip(TEMP, WIND, strict=True)), [("temp", "f8"), ("wind", "f4")]))
    columns = open_columns(tmp_path / "named.npy")
    assert columns.names == ("temp", "wind")
    np.testing.assert_array_equal(columns.read("wind"), WIND.astype(np.float32))
    np.savez(tmp_path / "two.npz", both=both, temp=TEMP)
    columns = open_columns(tmp_path / "two.npz")
    assert (columns.names, columns.kind) == (("both", "temp"), "array")
    np.testing.assert_array_equal(columns.read("both"), both)


def test_a_parquet_file_is_read(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    whole = [None if i == 5 else i for i in range(40)]
    pairs = pa.array([[t, w] for t, w in zip(TEMP, WIND, strict=True)], pa.list_(pa.float64(), 2))
    words = pa.array(SEASON.tolist()).dictionary_encode()
    dates = pa.array([np.datetime64("2024-01-01", "us")] * 40)
    table = pa.table({"temp": TEMP, "whole": whole, "both": pairs, "season": words, "when": dates})
    pq.write_table(table, tmp_path / "table.parquet")
    columns = open_columns(tmp_path / "table.parquet")
    assert columns.names == ("temp", "whole", "both", "season", "when") and columns.words == {"season"}
    np.testing.assert_array_equal(columns.read("temp"), TEMP)
    np.testing.assert_array_equal(columns.read("whole"), [np.nan if i == 5 else i for i in range(40)])
    np.testing.assert_array_equal(columns.read("both"), np.stack([TEMP, WIND], axis=1))
    np.testing.assert_array_equal(columns.read("season"), [sorted(set(SEASON)).index(word) for word in SEASON])
    with pytest.raises(UserError, match=r"column 'when' .* is of type timestamp"):
        columns.read("when")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tabel.csv", None, "did you mean 'table.csv'"),
        ("other.xlsx", b"PK", "none of .csv, .tsv"),
        ("empty.csv", b"\n\n", "is empty"),
        ("short.csv", b"a,b\n1,2\n3\n", "row 3 of .* has 1 cells, and there are 2 columns"),
        ("twice.csv", b"a,a\n1,2\n", "two columns named 'a'"),
        ("latin.csv", b"t\xe9mp,b\n1,2\n", "not a .csv file"),
        ("broken.npy", b"\x93NUMPY", "not a .npy file"),
        ("broken.parquet", b"PAR1", "not a .parquet file"),
    ],
)
def test_mistakes_are_said(tmp_path, name, content, said):
    write_csv(tmp_path / "table.csv")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match=said):
        open_columns(tmp_path / name)


def test_without_pyarrow_the_message_names_the_extra(tmp_path, monkeypatch):
    import sys

    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'mi_contrast\[parquet\]'"):
        open_columns(tmp_path / "table.parquet")
