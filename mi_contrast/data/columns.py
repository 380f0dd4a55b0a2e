"""Reads named columns of samples from .csv, .tsv, .npy, .npz and .parquet files, and from data frames."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mi_contrast.core.arrays import check_npz_sizes
from mi_contrast.core.errors import FileError, UserError, nearest

MISSING = ("", "na", "n/a", "nan", "null", "none", "?", "-")  # cells that hold no value, in lower case
DELIMITERS = (",", ";", "\t")
FIX = {".npz": "write it with numpy.savez(path, x=x, y=y)", ".npy": "write it with numpy.save(path, array)"}
BROKEN = (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile)


class Columns(NamedTuple):
    """The columns of a file.

    Attributes:
      names: in the order of the file.
      read: returns the column of a name: numbers, [N] or [N, d]. Words are numbered from 0 in alphabetical order, and
        what is missing is NaN.
      words: the names of the columns that hold words.
      kind: what the file calls them, 'array' or 'column'.
    """

    names: tuple[str, ...]
    read: Callable[[str], np.ndarray]
    words: frozenset[str] = frozenset()
    kind: str = "column"


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
    words = set()
    for name in frame.columns:
        array = np.asarray(frame[name])
        if array.dtype.kind in "OU" and any(isinstance(value, str) for value in array):
            words.add(str(name))
            array = number_words([value if isinstance(value, str) else None for value in array])
        arrays[str(name)] = array
    return Columns(tuple(arrays), arrays.__getitem__, frozenset(words))


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
    arrays, words = {}, set()
    for name, column in cells.items():
        numbers = [np.nan if cell.lower() in MISSING else _parse_cell(cell, delimiter) for cell in column]
        if any(number is None for number in numbers):
            words.add(name)
            arrays[name] = number_words([None if cell.lower() in MISSING else cell for cell in column])
        else:
            arrays[name] = np.array(numbers, np.float64)
    return Columns(tuple(arrays), arrays.__getitem__, frozenset(words))


def _parse_cell(cell: str, delimiter: str) -> float | None:
    """Returns the number in a cell, or None if it holds none."""
    text = cell.replace(",", ".") if delimiter == ";" else cell
    try:
        return float(text)
    except ValueError:
        return None


def number_words(words: list[str | None]) -> np.ndarray:
    """Returns the place of each word among all different ones, in alphabetical order, float64 [N]; NaN for None."""
    places = {word: place for place, word in enumerate(sorted({word for word in words if word is not None}))}
    return np.array([np.nan if word is None else places[word] for word in words], np.float64)


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

    def is_word(kind: Any) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def read(name: str) -> np.ndarray:
        column, kind = file.read([name]).column(name), types[name]
        if is_word(kind):
            return number_words(column.to_pylist())
        if pa.types.is_fixed_size_list(kind):
            return np.stack(column.to_pylist()).astype(np.float64)
        if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return np.array([np.nan if v is None else v for v in column.to_pylist()] if column.null_count else column)
        if pa.types.is_decimal(kind):
            return np.array([np.nan if v is None else float(v) for v in column.to_pylist()])
        raise UserError(f"column {name!r} of {path} is of type {kind}", fix="give numbers, or words that repeat")

    return Columns(tuple(types), read, frozenset(name for name, kind in types.items() if is_word(kind)))


READERS: dict[str, Callable[[Path], Columns]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".parquet": _read_parquet,
}
