"""What a judgement is asked for: the data, the fields of its config, and where its result goes."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.data import sets
from mi_contrast.evaluation.features import Taking
from mi_contrast.interchange import Loaded

DATA_FIELDS = ("name", "dir", "split", "test_split", "options", "label", "broken")
TEST_FIELDS = ("test_name", "test_dir")  # of the set to test on, where it is another than the one fitted on
FIELDS = ("task", "data", "batch_size", "seed", "features")


@dataclass(frozen=True)
class Judgement:
    """The result as written, where, and what to say of it."""

    result: Mapping[str, Any]
    path: Path
    said: str

    def __str__(self) -> str:
        return self.said


def config_of(task: Mapping[str, Any], *, features: bool = True) -> ConfigDict:
    """The config that asks for a task: on the backbone's own training set, its splits, options and label, which None
    stands for. Every field is there to be changed. `features`: whether the task is on features.
    """
    config = ConfigDict(dict(task=dict(task), data=dict.fromkeys(DATA_FIELDS + TEST_FIELDS), batch_size=256, seed=0))
    if features:
        config.features = ConfigDict(asdict(Taking()))
    return config


def check_fields(config: Mapping[str, Any]) -> None:
    """UserError on a field that no evaluation has, or where task, data, batch_size or seed is missing."""
    check_section("the config", config, FIELDS[:-1], FIELDS[-1:])


def chosen_data(given: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The data set to judge on: what the config gives, and for the rest the backbone's own training set.

    Splits, options and label are the training set's only where the set is: another set has 'train' and 'test'.

    Args:
      given: config.data of the evaluation; None where not given. test_name and test_dir, where given, name another
        set, of the same classes, whose test_split is tested on.
      training: config.data of the training, or {}.

    Returns:
      name, dir, split, test_split, options, label, broken, and test_name and test_dir where test_name is given.
      UserError where no set is named, or it would be tested on itself.
    """
    check_section("config.data", given, (), DATA_FIELDS + TEST_FIELDS)
    own = given.get("name") in (None, training.get("name"))
    usual: dict[str, Any] = {
        "name": None,
        "dir": None,
        "split": "train",
        "test_split": "test",
        "options": {},
        "label": None,
        "broken": 0.0,
    }
    fallback = {**usual, **{k: v for k, v in training.items() if k in usual and v is not None}} if own else usual
    data = {name: fallback[name] if given.get(name) is None else given[name] for name in DATA_FIELDS}
    if data["name"] is None:
        raise UserError("no data set: the backbone doesn't tell its own", fix="give --config.data.name=NAME")
    elsewhere = given.get("test_name")
    if elsewhere is not None and elsewhere != data["name"]:
        where = data["dir"] if given.get("test_dir") is None else given["test_dir"]
        return {**data, "test_name": elsewhere, "test_dir": where}
    if given.get("test_dir") is not None:
        raise UserError("data.test_dir without a data.test_name", fix="name the other set to test on")
    if data["split"] == data["test_split"]:
        raise UserError(f"split and test_split are both {data['split']!r}", fix="fit on one split, test on another")
    return data


def load_split(data: Mapping[str, Any], split: str, size: int) -> sets.ImageSet:
    """One split of the chosen set, every image `size` square."""
    return sets.load(
        data["name"], split, data_dir=data["dir"], size=size, options=data["options"], broken=data.get("broken", 0.0)
    )


def load_test(data: Mapping[str, Any], size: int) -> sets.ImageSet:
    """The split that is tested on, of the chosen set or of another, every image `size` square."""
    if "test_name" not in data:
        return load_split(data, data["test_split"], size)
    where = {"data_dir": data["test_dir"], "size": size, "options": {}, "broken": data.get("broken", 0.0)}
    return sets.load(data["test_name"], data["test_split"], **where)


def results_of(backbone: Loaded, workdir: Path | None) -> Path:
    """The folder of results. UserError for an export without a workdir."""
    if workdir is None and backbone.sha256 is not None:
        raise UserError(f"{backbone.source} is no run directory", fix="say where results go with --workdir=DIRECTORY")
    return RunDirectory(backbone.source if workdir is None else workdir).results


def make_writable(folder: Path) -> None:
    """Makes the folder where it isn't, before any work is done for it. UserError where it can't be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"can't write in {folder} ({error.strerror})", fix="give another --workdir") from None


def file_name(task: str, dataset: str, label: str | None, twin: bool) -> str:
    """<task>-<dataset>[-<label>][-untrained].json, with letters, digits, '.', '_' and '+' only in each part."""
    parts = [task, short_name(dataset), label, "untrained" if twin else None]
    return "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts if part) + ".json"


def short_name(dataset: str) -> str:
    """The set's name, of a folder its last part."""
    folder, _, path = dataset.partition(":")
    return Path(path).name if folder == "folder" else dataset
