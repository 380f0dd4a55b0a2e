"""Reads the set hf:NAME_OR_PATH through Hugging Face's `datasets`: from its hub, or from a folder or a parquet file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from mi_contrast.core.errors import FileError, UserError, unknown
from mi_contrast.data.collect import NONE, find_table, read_labels, sort_names
from mi_contrast.data.decoding import BrokenImageError, read_bytes
from mi_contrast.data.pictures import Pictures

LABEL = "label"  # the word of data.labels that takes the column of labels
USUAL = ("label", "labels", "fine_label", "class", "target")  # names of columns of labels, the likeliest first
INSTALL = "pip install 'mi-contrast[hf]'"


def collect_hub(path: str, name: str, labels: str | None) -> Pictures:
    """Returns the pictures of a set, named by split, row and file.

    Args:
      path: a name on the hub such as 'beans' or 'user/set', a folder of parquet or image files, a file of parquet, or
        what `save_to_disk` has written.
      labels: 'label' (the column of class labels, or one that is named so), the name of another column, 'none', or the
        path of a table with the columns file and label. None takes the column if there is one, else 'none'.
    Raises UserError if `datasets` is not installed, or the set can't be had or has no images or labels.
    """
    tables = load_tables(path)
    first = next(iter(tables.values()))
    image = find_image_column(first, name)
    rows: dict[str, tuple[str, int]] = {}
    splits: dict[str, tuple[str, ...]] = {}
    encoded = {split: cast(table, image) for split, table in tables.items()}
    for split, table in encoded.items():
        files = [os.path.basename(file or "") for file in list_files(table, image)]
        names = [f"{split}/{row:08d} {file}".strip() for row, file in enumerate(files)]
        rows |= {each: (split, row) for row, each in enumerate(names)}
        splits[split] = sort_names(names)

    def read(each: str) -> bytes:
        split, row = rows[each]
        item = encoded[split][row][image]
        if item is None:
            raise BrokenImageError(f"{path} {each}", "the cell is empty", " has no picture")
        return item["bytes"] if item["bytes"] is not None else read_bytes(Path(item["path"]))

    facts = {"rows": {split: len(table) for split, table in tables.items()}, "columns": sorted(first.column_names)}
    pictures = Pictures(name, path, splits, read, dict.fromkeys(rows, (0, 0)), facts=facts)
    return _add_labels(pictures, tables, rows, labels)


def list_files(table: Any, column: str) -> list[str | None]:
    """Returns the path of each picture's file where there is one, without reading the pictures."""
    from pyarrow import compute

    return list(compute.struct_field(table.with_format("arrow").data.column(column), "path").to_pylist())


@lru_cache(maxsize=2)
def load_tables(path: str) -> dict[str, Any]:
    """Returns the tables of a set by split."""
    try:
        import datasets
    except ImportError:
        raise UserError("hf: needs the package datasets, which is not installed", fix=INSTALL) from None
    place = Path(path).expanduser()
    try:
        if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
            loaded = datasets.load_from_disk(str(place))
        elif place.is_file():
            loaded = datasets.load_dataset("parquet", data_files={"train": str(place)})
        else:
            loaded = datasets.load_dataset(str(place) if place.exists() else path)
    except Exception as error:  # `datasets` raises many kinds for a set that is missing, damaged or not reachable
        why = " ".join(str(error).split())[:160] or type(error).__name__
        fix = "give a name on the hub, or a folder of parquet or image files"
        raise FileError(f"datasets can't load {path} ({why})", fix=fix) from None
    return dict(loaded) if isinstance(loaded, Mapping) else {"train": loaded}


def cast(table: Any, column: str) -> Any:
    """Returns the table with its pictures as bytes, not decoded."""
    import datasets

    return table.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def find_image_column(table: Any, name: str) -> str:
    """Returns the column of images: the one called 'image', or else the first. Raises UserError if there is none."""
    import datasets

    images = [column for column, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise UserError(f"{name} has no column of images, but {', '.join(table.column_names)}", fix="give another set")
    return "image" if "image" in images else images[0]


def _add_labels(
    pictures: Pictures, tables: Mapping[str, Any], rows: Mapping[str, tuple[str, int]], labels: str | None
) -> Pictures:
    """Returns the pictures with the labels that `labels` asks for. Splits without labels are left out beside others."""
    import datasets

    first = next(iter(tables.values()))
    known = [column for column, feature in first.features.items() if isinstance(feature, datasets.ClassLabel)]
    usual = next((column for column in (*known, *USUAL) if column in first.column_names), None)
    if labels == NONE or (labels is None and usual is None):
        return pictures
    column = usual if labels in (None, LABEL) else labels
    if column is None or column not in first.column_names:
        if labels is not None and labels.lower().endswith(".csv"):
            table, digest = read_labels(find_table(labels, pictures), pictures)
            return replace(pictures, labels=table, facts={**pictures.facts, "labels": digest})
        raise unknown(f"column of labels of {pictures.name}", labels, first.column_names)
    words = {split: read_column(table, column) for split, table in tables.items()}
    splits = {split: names for split, names in pictures.splits.items() if not all(w is None for w in words[split])}
    found = {name: words[split][row] for name, (split, row) in rows.items() if split in splits}
    if missing := [name for name, word in found.items() if word is None]:
        fix = "give data.labels='none', or complete the column"
        raise UserError(f"{len(missing)} rows of {pictures.name} have no {column}, such as {missing[0]}", fix=fix)
    if len(set(found.values())) < 2 and labels is None:
        return pictures
    return replace(pictures, splits=splits, labels={name: str(word) for name, word in found.items()})


def read_column(table: Any, column: str) -> list[str | None]:
    """Returns the labels of a table in words; None where there is none."""
    import datasets

    feature, values = table.features[column], table[column]
    if isinstance(feature, datasets.ClassLabel):
        return [None if value is None or value < 0 else feature.int2str(int(value)) for value in values]
    return [None if value is None else str(value) for value in values]
