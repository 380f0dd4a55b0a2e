"""Reads named columns of samples from .csv, .tsv, .npy, .npz and .parquet files, and from data frames."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.data.orders import counts_rows, is_out_of_order, number_dates, number_times, number_values

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")  # cells that hold no value, in lower case
DELIMITERS = (",", ";", "\t")
FIX = {".npz": "write it with numpy.savez(path, x=x, y=y)", ".npy": "write it with numpy.save(path, array)"}
FIX_DATES = "it looks like dates: leave it out or turn it into a number"
SEARCHED = 64  # columns that are searched for a date or a count
FIRST_WORDS = 64  # words by which a column of a .parquet file is told to hold dates
BROKEN = (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile)


class Columns(NamedTuple):
    """The columns of a file.

    Attributes:
      names: in the order of the file.
      read: returns the column of a name: numbers, [N] or [N, d]. Words are numbered from 0 in alphabetical order, and
        what is missing is NaN.
      words: the names of the columns that hold words, or dates in words.
      kind: what the file calls them, 'array' or 'column'.
      dates: the names of the columns of dates, which are numbered in the order of time.
      read_date: reads a column of dates, where `read` refuses some.
      frame_index: what a data frame has beside its columns, as numbers [N], or None.
    """

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    words: frozenset[str] = frozenset()
    kind: str = "column"
    dates: frozenset[str] = frozenset()
    read_date: Callable[[str], np.ndarray] | None = None
    frame_index: np.ndarray | None = None


def open_columns(path: Path) -> Columns:
    """Returns the columns of a file: of a table, of the array in a .npy file, or the arrays of an .npz file.

    The columns of an array [N, d] are named 0, 1, .. d - 1, unless the array has names of its own (a structured one). A
    .csv file has commas, semicolons or tabs between its cells. If its first row holds numbers alone, the columns are
    named 0, 1, .. too. Lines that begin with # are comments. Decimal commas are read where semicolons divide the cells.

    Raises:
      UserError: there is no such file, it is of another kind or damaged, or a package that reads it is missing.
    """
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*") if p.suffix.lower() in READERS]
        fix = f"give a file of samples: {', '.join(READERS)}"
        raise FileError(f"file {str(path)!r} does not exist", nearest=nearest(path.name, siblings), fix=fix)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise FileError(f"{path} is none of {', '.join(READERS)}", fix="convert it, for example to .csv")
    try:
        return READERS[suffix](path)
    except UserError:
        raise
    except BROKEN:
        article = "an" if suffix == ".npz" else "a"
        fix = FIX.get(suffix, "write a table with a name at the top of each column")
        raise FileError(f"{path} is not {article} {suffix} file of numbers", fix=fix) from None


def open_frame(frame: Any) -> Columns:
    """Returns the columns of a data frame of pandas or a like library, which has `columns` and `frame[name]`."""
    arrays: dict[str, np.ndarray] = {}
    words, dates = set(), set()
    for name in frame.columns:
        arrays[str(name)], kind = convert_array(np.asarray(frame[name]))
        words |= {str(name)} if kind != "numbers" else set()
        dates |= {str(name)} if kind == "dates" else set()
    return Columns(
        tuple(arrays), arrays.__getitem__, frozenset(words), dates=frozenset(dates), frame_index=read_index(frame)
    )


def convert_array(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns an array with words and dates as numbers, and what it holds: 'words', 'dates', or 'numbers' unchanged."""
    times = number_times(array)
    if times is not None:
        return times, "dates"
    if array.dtype.kind in "OUT" and array.ndim == 1 and any(isinstance(value, str) for value in array):
        return _number_texts([value if isinstance(value, str) else None for value in array])
    return array, "numbers"


def _number_texts(words: Sequence[str | None]) -> tuple[np.ndarray, str]:
    """Returns the number of each text, in the order of time if they are dates, and 'words' or 'dates'."""
    dates = number_dates(words)
    return (number_values(words), "words") if dates is None else (dates, "dates")


def read_index(values: Any) -> np.ndarray | None:
    """Returns the index of a Series or a data frame as numbers [N]; None if there is none, or it has other values."""
    index = getattr(values, "index", None)
    if index is None or callable(index):
        return None
    array, kind = convert_array(np.asarray(index))
    return array if array.ndim == 1 and array.dtype.kind in "iuf" and kind != "words" else None


def find_orders(columns: Columns, used: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the orders, other than that of the file, in which rows may have been drawn: numbers [N] to sort by.

    They are those of the index of a data frame, of columns of dates, and of columns that count rows by equal steps.

    Args:
      used: names of the columns that are estimated from, which are no order: rows sorted by x resemble each other.
    Returns:
      by the words for them in messages.
    """
    orders = {} if columns.frame_index is None else {"the index": columns.frame_index}
    names = [name for name in columns.names if name not in used] if columns.kind == "column" else []
    for name in names[:SEARCHED]:
        if name in columns.words and name not in columns.dates:
            continue
        read = columns.read_date if name in columns.dates and columns.read_date else columns.read
        try:
            array = read(name)
        except UserError:
            continue
        if name in columns.dates or counts_rows(array):
            orders[repr(name)] = array
    return {name: array for name, array in orders.items() if is_out_of_order(array)}


def _read_npz(path: Path) -> Columns:
    check_npz_sizes(path)

    def read(name: str) -> np.ndarray:
        try:
            with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                array: np.ndarray = file[name]
                return array
        except BROKEN:
            raise FileError(f"{path} is not an .npz file of numbers", fix=FIX[".npz"]) from None

    with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
        return Columns(tuple(file), read, kind="array")


def _read_npy(path: Path) -> Columns:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.names:
        return Columns(array.dtype.names, lambda name: np.array(array[name]))
    if array.ndim != 2:
        raise UserError(f"{path} is {array.dtype} {list(array.shape)}", fix="give one sample a row, [N, d]")
    return Columns(tuple(map(str, range(array.shape[1]))), lambda name: np.array(array[:, int(name)]))


def _read_csv(path: Path) -> Columns:
    with open(path, encoding="utf-8-sig", newline="") as file:
        lines = [line for line in file if line.strip() and not line.startswith("#")]
    if not lines:
        raise FileError(f"{path} is empty", fix="write a name at the top of each column, and one sample a row")
    delimiter = max(DELIMITERS, key=lines[0].count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    has_names = any(_parse_cell(cell, delimiter) is None for cell in rows[0] if cell.lower() not in MISSING)
    names = rows[0] if has_names else [str(i) for i in range(len(rows[0]))]
    rows = rows[1:] if has_names else rows
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} has two columns named {twice!r}", fix="give each column a name of its own")
    for number, row in enumerate(rows, 2 if has_names else 1):
        if len(row) != len(names):
            raise UserError(f"row {number} of {path} has {len(row)} cells, and there are {len(names)} columns",
                            fix="give every row as many cells; put cells with commas in quotes")  # fmt: skip
    return _convert_cells(
        dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True)), delimiter
    )


def _convert_cells(cells: dict[str, tuple[str, ...]], delimiter: str) -> Columns:
    arrays, words, dates = {}, set(), set()
    for name, column in cells.items():
        numbers = [np.nan if cell.lower() in MISSING else _parse_cell(cell, delimiter) for cell in column]
        if any(number is None for number in numbers):
            words.add(name)
            arrays[name], kind = _number_texts([None if cell.lower() in MISSING else cell for cell in column])
            dates |= {name} if kind == "dates" else set()
        else:
            arrays[name] = np.array(numbers, np.float64)
    return Columns(tuple(arrays), arrays.__getitem__, frozenset(words), dates=frozenset(dates))


def _parse_cell(cell: str, delimiter: str) -> float | None:
    """Returns the number in a cell, or None if it holds none."""
    text = cell.replace(",", ".") if delimiter == ";" else cell
    try:
        return float(text)
    except ValueError:
        return None


def _read_parquet(path: Path) -> Columns:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            f"{path}: pyarrow is not installed", fix="pip install 'mi_contrast[parquet]', or write a .csv file"
        ) from None
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException:
        raise FileError(f"{path} is not a .parquet file", fix="write it again, or as a .csv file") from None
    types = {field.name: field.type for field in file.schema_arrow}

    def is_time(kind: Any) -> bool:
        return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))

    def is_word(kind: Any) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def read(name: str) -> np.ndarray:
        column, kind = file.read([name]).column(name), types[name]
        if is_word(kind):
            return _number_texts(column.to_pylist())[0]
        if is_time(kind):
            raise UserError(f"column {name!r} of {path} is of type {kind}", fix=FIX_DATES)
        if pa.types.is_fixed_size_list(kind):
            return np.stack(column.to_pylist()).astype(np.float64)
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.array([np.nan if v is None else v for v in column.to_pylist()] if column.null_count else column)
        if pa.types.is_decimal(kind):
            return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
        raise UserError(f"column {name!r} of {path} is of type {kind}", fix="give numbers, or words that repeat")

    def read_date(name: str) -> np.ndarray:
        return number_values(file.read([name]).column(name).to_pylist()) if is_time(types[name]) else read(name)

    texts = [name for name, kind in types.items() if is_word(kind)]
    first = next(file.iter_batches(FIRST_WORDS, columns=texts), None) if texts else None
    dates = {name for name, kind in types.items() if is_time(kind)}
    dates |= {name for name in texts if first is not None and number_dates(first.column(name).to_pylist()) is not None}
    return Columns(tuple(types), read, frozenset(texts), dates=frozenset(dates), read_date=read_date)


READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
KINDS = f"{', '.join(tuple(READERS)[:-1])} or {tuple(READERS)[-1]}"  # of files, for messages and help
