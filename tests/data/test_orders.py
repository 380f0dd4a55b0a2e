"""Dates of several forms are in the order of time, and columns that count rows are told from others."""

import datetime
import random

import numpy as np
import pytest

from mi_contrast.data.columns import find_orders, open_columns
from mi_contrast.data.orders import counts_rows, is_out_of_order, number_dates, number_times

DAYS = [datetime.datetime(2023, 11, 25, 6, 30) + datetime.timedelta(days=9 * i) for i in range(40)]
FORMS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M+01:00", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M", "%d %b %Y")


@pytest.mark.parametrize("form", FORMS)
def test_dates_are_numbered_in_the_order_of_time(form):
    order = random.Random(0).sample(range(40), 40)
    words = [DAYS[i].strftime(form) for i in order]
    assert number_dates(words).tolist() == order
    assert np.isnan(number_dates([None, *words])[0]) and number_dates([*words, "later"]) is None
    assert number_times(np.array(DAYS, object)[order]).tolist() == order
    assert number_times(np.array(DAYS, "datetime64[s]")[order]).tolist() == order


@pytest.mark.parametrize("words", [["a", "b"], ["12:30", "13:30"], ["May", "June"], ["r2024", "r2025"], [None], []])
def test_other_words_are_no_dates(words):
    assert number_dates(words) is None
    assert number_times(np.array(words, object)) is None


def test_gaps_and_other_objects_are_no_dates():
    gaps = np.array([DAYS[1], None, np.nan, DAYS[0]], object)
    np.testing.assert_array_equal(number_times(gaps), [1, np.nan, np.nan, 0])
    others = np.empty(2, object)
    others[:] = [np.arange(3), DAYS[0]]
    assert number_times(others) is None
    np.testing.assert_array_equal(number_times(np.array(["2024-02-01", "NaT", "2024-01-01"], "M8[D]")), [1, np.nan, 0])


def test_counts_are_told_from_measurements():
    rng = np.random.default_rng(0)
    for count in (np.arange(100), np.arange(100) / 24, 1.7e18 + 3.6e12 * np.arange(100), np.delete(np.arange(99), 50)):
        assert counts_rows(rng.permutation(count))
    for other in (rng.normal(size=100), rng.integers(1000, size=100), rng.integers(5, size=100), np.arange(5),
                  rng.normal(size=100).round(2), np.r_[np.nan, np.arange(99)], np.ones(100)):  # fmt: skip
        assert not counts_rows(other)
    assert not is_out_of_order(np.array([1.0, np.nan, 2.0, 2.0])) and not is_out_of_order(np.arange(5.0)[::-1])
    assert is_out_of_order(np.array([1.0, np.nan, 0.0, 2.0]))


def write_table(path, order):
    days = [DAYS[i].strftime("%d.%m.%Y") for i in order]
    lines = [f"{day},{i},{i % 7},{'ab'[i % 2]}" for day, i in zip(days, order, strict=True)]
    path.write_text("\n".join(["day,count,level,kind", *lines]))
    return open_columns(path)


def test_orders_are_those_that_move_rows_and_are_not_estimated_from(tmp_path):
    order = random.Random(0).sample(range(40), 40)
    orders = find_orders(write_table(tmp_path / "t.csv", order), [])
    assert {name: places.tolist() for name, places in orders.items()} == {"'day'": order, "'count'": order}
    assert set(find_orders(write_table(tmp_path / "t.csv", order), ["count", "level"])) == {"'day'"}
    assert find_orders(write_table(tmp_path / "t.csv", range(40)), []) == {}


def test_dates_of_a_parquet_file_are_an_order(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    order = random.Random(0).sample(range(40), 40)
    days = [DAYS[i] for i in order]
    table = pa.table({"when": days, "words": [day.strftime("%d.%m.%Y") for day in days], "kind": ["a", "b"] * 20})
    pq.write_table(table, tmp_path / "t.parquet")
    orders = find_orders(open_columns(tmp_path / "t.parquet"), [])
    assert {name: places.tolist() for name, places in orders.items()} == {"'when'": order, "'words'": order}
