"""Reads what a config of an evaluation asks for: its fields, the data set, and where the result is written."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.data import sets
from mi_contrast.data.own import KINDS
from mi_contrast.evaluation.features import FeatureSettings
from mi_contrast.interchange import LoadedBackbone

OWN_FIELDS = ("labels", "group", "test_share")  # of one's own pictures: how they are labelled and divided
DATA_FIELDS = ("name", "dir", "split", "test_split", "options", "label", "broken", *OWN_FIELDS)
TEST_FIELDS = ("test_name", "test_dir", "test_label", "test_options")  # of the test set, where it is a second set
FIELDS = ("task", "data", "batch_size", "seed", "features")


@dataclass(frozen=True)
class Judgement:
    """The result of an evaluation, the path of its file, and its summary in a line for a terminal."""

    result: Mapping[str, Any]
    path: Path
    summary: str

    def __str__(self) -> str:
        return self.summary


def make_config(task: Mapping[str, Any], *, features: bool = True) -> ConfigDict:
    """Returns the config of a task, with every field that a user may change.

    The fields of `data` are None, which stands for the backbone's own training set, its splits, options and label.

    Args:
      task: kind and fields of the task.
      features: whether the task reads features, and so has a section `features`.
    """
    config = ConfigDict(dict(task=dict(task), data=dict.fromkeys(DATA_FIELDS + TEST_FIELDS), batch_size=256, seed=0))
    if features:
        config.features = ConfigDict(asdict(FeatureSettings()))
    return config


def check_fields(config: Mapping[str, Any]) -> None:
    """Raises UserError on a field that no evaluation has, or if task, data, batch_size or seed is missing."""
    check_section("the config", config, FIELDS[:-1], FIELDS[-1:])


def resolve_data(section: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the data to judge on: the config's fields, completed from the data that the backbone was trained on.

    Splits, options and label of the training set apply only to that set. Any other set has the splits 'train' and
    'test' unless the config says otherwise.

    Args:
      section: config.data of the evaluation; None in a field means that it is not given. test_name names a second
        set, with the same classes, whose test_split is the test set. test_dir ('dir' by default), test_label ('label'
        by default) and test_options (none by default) belong to that set.
      training: config.data of the training, or {}.

    Returns:
      `DATA_FIELDS`; with a second set also the four test_ fields.

    Raises:
      UserError if no set is named, if fields of a second set come without its name, or if both splits are the same.
    """
    check_section("config.data", section, (), DATA_FIELDS + TEST_FIELDS)
    is_training_set = section.get("name") in (None, training.get("name"))
    defaults: dict[str, Any] = {
        "name": None,
        "dir": None,
        "split": "train",
        "test_split": "test",
        "options": {},
        "label": None,
        "broken": 0.0,
        "labels": None,
        "group": None,
        "test_share": 0.0,
    }
    if is_training_set:
        defaults |= {k: v for k, v in training.items() if k in defaults and v is not None}
    data = {name: defaults[name] if section.get(name) is None else section[name] for name in DATA_FIELDS}
    if data["name"] is None:
        raise UserError("no data set: the backbone doesn't tell its own", fix="give --config.data.name=NAME")
    test_name = section.get("test_name")
    if test_name == "":
        raise UserError("no data.test_name", fix="give --config.data.test_name=NAME, a second set of the same classes")
    if test_name is not None and test_name != data["name"]:
        test_dir = data["dir"] if section.get("test_dir") is None else section["test_dir"]
        second = {"test_name": test_name, "test_dir": test_dir}
        return data | second | {name: section[name] for name in TEST_FIELDS[2:] if section.get(name) is not None}
    for name in TEST_FIELDS[1:]:
        if section.get(name) is not None:
            raise UserError(f"data.{name} without a data.test_name", fix="name the second set to test on")
    if data["split"] == data["test_split"]:
        raise UserError(f"split and test_split are both {data['split']!r}", fix="fit on one split, test on another")
    return data


def load_split(data: Mapping[str, Any], split: str, size: int) -> sets.ImageSet:
    """Returns one split of the set that `data` names, every image `size` pixels square."""
    chosen = {field: data[field] for field in OWN_FIELDS if field in data}
    options = {"options": data["options"], "broken": data.get("broken", 0.0), **chosen}
    return sets.load(data["name"], split, data_dir=data["dir"], size=size, **options)


def load_test_split(data: Mapping[str, Any], size: int) -> sets.ImageSet:
    """Returns the test split, of the same set or of the second one, every image `size` pixels square."""
    if "test_name" not in data:
        return load_split(data, data["test_split"], size)
    second = {field: value for field, value in data.items() if field not in OWN_FIELDS}
    second |= {"name": data["test_name"], "dir": data["test_dir"], "options": data.get("test_options", {})}
    return load_split(second, data["test_split"], size)


def find_results_folder(backbone: LoadedBackbone, workdir: Path | None) -> Path:
    """Returns the folder for results. Raises UserError if the backbone is an export and no workdir is given."""
    if workdir is None and backbone.sha256 is not None:
        raise FileError(f"{backbone.source} is no run directory", fix="say where results go with --workdir=DIRECTORY")
    return RunDirectory(backbone.source if workdir is None else workdir).results


def make_writable(folder: Path) -> None:
    """Makes the folder if it doesn't exist. Raises UserError if it can't be written to, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(f"can't write in {folder} ({error.strerror})", fix="give another --workdir") from None


def make_file_name(task: str, dataset: str, label: str | None, untrained: bool) -> str:
    """Returns <task>-<dataset>[-<label>][-untrained].json; each part has letters, digits, '.', '_' and '+' only."""
    parts = [task, shorten_name(dataset), label, "untrained" if untrained else None]
    return "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts if part) + ".json"


def shorten_name(dataset: str) -> str:
    """Returns the set's name; of 'folder:PATH' and other kinds of one's own pictures the last part of the path."""
    kind, _, path = dataset.partition(":")
    return Path(path).name if kind in KINDS else dataset
