"""Reads the samples of two variables from a file or a data frame, as the command and Python do, and checks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mi_contrast.core.errors import UserError, nearest
from mi_contrast.data.columns import FIX_DATES, Columns, convert_array, find_orders, open_columns, read_index
from mi_contrast.data.orders import is_out_of_order
from mi_contrast.estimators.registry import discrete_sides

SHOWN_NAMES = 24  # columns that a message lists
FIX_WORDS = "give numbers, or words of which each occurs four times or more"
NO_ORDERS: Mapping[str, np.ndarray] = MappingProxyType({})


class Door(NamedTuple):
    """How a user writes what the messages ask for: on the command line or in Python."""

    name_columns: str
    drop_missing: str
    most: str
    every: str
    pairs: str = ""


COMMAND = Door("--x=NAME --y=NAME", "--drop_missing", "--most", "--every", "; or --pairs for every two")
PYTHON = Door('x="NAME", y="NAME"', "drop_missing=True", "most", "every")


class Pair(NamedTuple):
    """The samples of two variables.

    Attributes:
      x, y: numbers [N, d].
      names: of the two variables.
      notes: on what was left out.
      orders: other orders in which the rows may have been drawn, as numbers [N] to sort by, by the word for each.
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, str]
    notes: list[str]
    orders: Mapping[str, np.ndarray] = NO_ORDERS


def read_samples(path: Path, names: tuple[str, str], *, drop_missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns the samples of two variables in a file, [N, d] each, in the type in which they are stored.

    Args:
      path: the file, of one of the kinds that `open_columns` reads.
      names: of the two columns or arrays. Several names with commas between them are one variable of several columns.
      drop_missing: leave out rows in which a value is missing.
    Raises:
      UserError if there is no such file or column, if the file is damaged, or as `check_pair`.
    """
    pair = read_pair(open_columns(path), names, path, drop_missing=drop_missing)
    return pair.x, pair.y


def read_pair(
    columns: Columns, names: Sequence[str | Sequence[str]], place: Any, *, drop_missing: bool, door: Door = COMMAND
) -> Pair:
    """Returns the samples of two variables.

    Args:
      columns: of the file or the data frame.
      names: of each variable: the name of a column, several with commas, or a list of names.
      place: where the columns are from, for messages.
      drop_missing: leave out rows in which a value is missing.
      door: how the user writes flags.
    Raises:
      UserError if there is no such column, if a column stands on both sides or twice on one, or as `check_pair`.
    """
    first, second = (split_names(name, columns) for name in names)
    if both := [name for name in first if name in second]:
        fix = f"name different columns, for a column shares with itself all that it has: {door.name_columns}"
        raise UserError(f"{columns.kind} {both[0]!r} is on both sides", fix=fix)
    x, y = (read_variable(columns, side, place, door) for side in (first, second))
    words, orders = (",".join(first), ",".join(second)), find_orders(columns, [*first, *second])
    return check_pair(x, y, words, kind=columns.kind, drop_missing=drop_missing, door=door, orders=orders)


def check_pair(
    x: np.ndarray,
    y: np.ndarray,
    names: tuple[str, str],
    *,
    kind: str = "",
    drop_missing: bool,
    door: Door,
    orders: Mapping[str, np.ndarray] = NO_ORDERS,
) -> Pair:
    """Returns the samples without rows that are to be left out.

    Args:
      x, y: numbers [N, d].
      names: of the two variables.
      kind: the word for one of them in messages, 'column' or 'array'; '' for none.
      drop_missing, door: as for `read_pair`.
      orders: as in `Pair`.
    Raises:
      UserError unless both are finite numbers of equal length, with no more columns than rows, that are not constant.
    """
    if len(x) != len(y):
        raise UserError(f"{names[0]} has {len(x)} samples, {names[1]} has {len(y)}", fix="give as many of both")
    notes: list[str] = []
    if drop_missing:
        whole = find_whole_rows([x, y])
        notes = describe_missing(whole)
        x, y, orders = x[whole], y[whole], {name: places[whole] for name, places in orders.items()}
    for name, array in zip(names, (x, y), strict=True):
        word = f"{kind} {name!r}" if kind else name
        check_finite(word, array, door.drop_missing)
        if array.shape[1] > len(array):
            raise UserError(
                f"{word} is {list(array.shape)}: more columns than samples; is it transposed?",
                fix="give one sample a row",
            )
        check_varies(word, array)
    return Pair(x, y, names, notes, orders)


def pair_arrays(first: Any, second: Any, *, drop_missing: bool, door: Door) -> Pair:
    """Returns the samples of two arrays, Series or data frames, whose rows are paired by position.

    Raises:
      UserError if both have an index and these differ, or as `as_samples` and `check_pair`.
    """
    names = _name_samples(first, "x"), _name_samples(second, "y")
    if names[0] == names[1]:
        names = ("x", "y")
    indexes: list[Any] = [getattr(values, "index", None) for values in (first, second)]
    if all(hasattr(index, "equals") for index in indexes) and not indexes[0].equals(indexes[1]):
        raise UserError(
            f"the indexes of {names[0]} and {names[1]} differ",
            fix="align them (x.align(y, join='inner')), or pass .to_numpy() of both to pair rows by position",
        )
    x, y = as_samples(names[0], first), as_samples(names[1], second)
    places = read_index(first) if len(x) == len(y) else None
    orders = NO_ORDERS if places is None or not is_out_of_order(places) else {"the index": places}
    return check_pair(x, y, names, drop_missing=drop_missing, door=door, orders=orders)


def _name_samples(values: Any, default: str) -> str:
    """Returns the name of a Series or the names of a data frame's columns, or else the default."""
    names = list(values.columns) if hasattr(values, "columns") else [getattr(values, "name", None)]
    return ",".join(map(str, names)) if all(isinstance(name, str) and name for name in names) else default


def split_names(names: str | Sequence[str], columns: Columns) -> list[str]:
    """Returns the names in a list, or in a text divided by commas. A column whose name has commas is named alone."""
    if not isinstance(names, str):
        return [str(name) for name in names]
    return [names] if names in columns.names else [name.strip() for name in names.split(",")]


def read_variable(columns: Columns, names: Sequence[str], place: Any, door: Door = COMMAND) -> np.ndarray:
    """Returns the columns of one variable side by side, [N, d]. Raises UserError."""
    for name in names:
        if name not in columns.names:
            fix = f"it holds: {', '.join(columns.names) or 'nothing'}; say {door.name_columns}"
            raise UserError(f"no {columns.kind} {name!r} in {place}", nearest=nearest(name, columns.names), fix=fix)
    text = ",".join(names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise UserError(f"{columns.kind} {twice!r} is named twice", fix="name each column once")
    if len(names) > 1 and 0 < len(columns.words.intersection(names)) < len(names):
        raise UserError(f"{text}: columns of words beside columns of numbers", fix="give words alone or numbers alone")
    parts = [_to_columns(columns.kind, name, columns.read(name)) for name in names]
    if len({len(part) for part in parts}) > 1:
        raise UserError(f"{text}: {', '.join(str(len(part)) for part in parts)} samples", fix="give as many of each")
    if columns.words.intersection(names):
        for name, part in zip(names, parts, strict=True):
            _check_words(f"column {name!r}", part, is_date=name in columns.dates)
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _to_columns(kind: str, name: str, x: np.ndarray) -> np.ndarray:
    """Returns the array as [N, d]. Raises UserError unless it is [N, d] or [N] of numbers."""
    if x.shape[:1] == (0,):
        raise UserError(f"{kind} {name!r} has no rows", fix="give one sample a row")
    if x.dtype.kind not in "biuf" or x.ndim not in (1, 2) or 0 in x.shape:
        raise UserError(f"{kind} {name!r} is {x.dtype} {list(x.shape)}", fix="give numbers [N, d] or [N]")
    return x.reshape(len(x), -1)


def _check_words(word: str, x: np.ndarray, *, is_date: bool, what: str = "holds words") -> None:
    """Raises UserError unless a column of words, which are numbered, repeats them as labels do."""
    if not discrete_sides(x, x, 3)[0]:
        if is_date:
            raise UserError(f"{word} looks like dates", fix=FIX_DATES.partition(": ")[2])
        count = len(np.unique(x[np.isfinite(x)]))
        raise UserError(f"{word} {what}, {count} different ones in {len(x)} rows", fix=FIX_WORDS)


def check_finite(word: str, x: np.ndarray, flag: str) -> None:
    """Raises UserError if a row is not finite. `flag` leaves such rows out."""
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        fix = "name another" if bad == len(x) else f"leave those rows out with {flag}"
        raise UserError(f"{word} has NaN or infinity in {bad} of {len(x)} rows", fix=fix)


def check_varies(word: str, x: np.ndarray) -> None:
    """Raises UserError if no row is finite, or if all of two or more such rows are the same."""
    whole = x[np.isfinite(x).all(axis=1)]
    if len(whole) == 0:
        raise UserError(f"{word} holds no values", fix="name another")
    if len(whole) > 1 and (whole == whole[:1]).all():
        raise UserError(
            f"{word} holds one value in all of its {len(whole):,} rows",
            fix="name another: what never changes shares nothing, 0 nats",
        )


def find_whole_rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Returns which rows are finite in all arrays, bool [N]. Raises UserError if there are none."""
    whole: np.ndarray = np.logical_and.reduce([np.isfinite(array).all(axis=1) for array in arrays])
    if not whole.any():
        raise UserError(f"a value is missing in each of the {len(whole):,} rows", fix="name columns with values")
    return whole


def describe_missing(whole: np.ndarray) -> list[str]:
    """Returns a note on how many rows are left out, or none."""
    note = f"{(~whole).sum():,} of {len(whole):,} rows have missing values and are left out"
    return [] if whole.all() else [note]


def choose_names(
    columns: Columns, flags: Mapping[str, Any], place: Any, door: Door = COMMAND
) -> tuple[str | Sequence[str], str | Sequence[str]]:
    """Returns the names of the two variables: those of the flags, x and y, or the only two. Raises UserError."""
    first, second = flags.get("x"), flags.get("y")
    if len(columns.names) == 2 and not {"x", "y"} <= set(columns.names):
        others = [name for name in columns.names if name not in (first, second)]
        first, second = first or others[0], second or others[-1]
    if (first is None and "x" not in columns.names) or (second is None and "y" not in columns.names):
        shown = ", ".join(columns.names[:SHOWN_NAMES]) + (", ..." if len(columns.names) > SHOWN_NAMES else "")
        missing = "x" if first is None and "x" not in columns.names else "y"
        raise UserError(
            f"{place} has no {columns.kind} {missing!r}", fix=f"say {door.name_columns}, of: {shown}{door.pairs}"
        )
    return first or "x", second or "y"


def as_samples(name: str, values: Any) -> Float[np.ndarray, "N d"]:
    """Returns an array as samples [N, d]. Words are numbered, as in a file.

    Raises:
      UserError unless it is numbers [N, d] or [N], or words that repeat as labels do.
    """
    array = np.asarray(values)
    word, is_column = f"{name} is {array.dtype} {list(array.shape)}", array.ndim == 2 and array.shape[1:] == (1,)
    array, kind = convert_array(array[:, 0] if is_column else array)
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2) or 0 in array.shape:
        raise UserError(word, fix="give numbers [N, d] or [N], or words [N] that repeat")
    array = array.reshape(len(array), -1)
    if kind != "numbers":
        _check_words(f"{name!r}" if kind == "dates" else word, array, is_date=kind == "dates", what="and holds words")
    return array
