"""One judgement: a backbone, a data set, a task; features taken once, a top-1 with its interval, a result file."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.config import plain
from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.layout import RunDirectory, write_json
from mi_contrast.data import sets
from mi_contrast.evaluation.features import features_of, main_label
from mi_contrast.evaluation.tasks import run_task
from mi_contrast.evaluation.twin import untrained
from mi_contrast.interchange import Loaded
from mi_contrast.readout.accuracy import effective_count, interval95, top1

DATA_FIELDS = ("name", "dir", "split", "test_split", "options", "label")
FIELDS = ("task", "data", "batch_size", "seed")


@dataclass(frozen=True)
class Judgement:
    """The result as written, and where."""

    result: Mapping[str, Any]
    path: Path

    def __str__(self) -> str:
        result = self.result
        low, high = (100 * x for x in result["interval95"])
        what = f"{result['task']} on {result['dataset']} ({result['label']})"
        which = "untrained twin, " if result["untrained"] else ""
        return (
            f"{what}: {which}top-1 {100 * result['top1']:.2f} % (95 %: {low:.2f} to {high:.2f}) on "
            f"{result['test']['examples']:,} images, {result['seconds']:.0f} s -> {self.path}"
        )


def chosen_data(given: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The data set to judge on: what the config gives, and for the rest the backbone's own training set.

    Splits, options and label are the training set's only where the set is: another set has 'train' and 'test'.

    Args:
      given: config.data of the evaluation; None where not given.
      training: config.data of the training, or {}.

    Returns:
      name, dir, split, test_split, options, label. UserError where no set is named, or it would be tested on itself.
    """
    for name in given:
        if name not in DATA_FIELDS:
            raise unknown("field of config.data", name, DATA_FIELDS)
    own = given.get("name") in (None, training.get("name"))
    usual: dict[str, Any] = {
        "name": None,
        "dir": None,
        "split": "train",
        "test_split": "test",
        "options": {},
        "label": None,
    }
    fallback = {**usual, **{k: v for k, v in training.items() if k in usual and v is not None}} if own else usual
    data = {name: fallback[name] if given.get(name) is None else given[name] for name in DATA_FIELDS}
    if data["name"] is None:
        raise UserError("no data set: the backbone doesn't tell its own", fix="give --config.data.name=NAME")
    if data["split"] == data["test_split"]:
        raise UserError(f"split and test_split are both {data['split']!r}", fix="fit on one split, test on another")
    return data


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Takes features of both splits, runs the task, writes results/<task>-<dataset>.json.

    Images are resized by their short side to the backbone's size and centre-cropped, never augmented. The file's name
    grows by the label where it isn't the set's main one, and by 'untrained' for the twin. Where the set has groups
    (frames of one object), the interval counts as many examples as would tell as much independently.

    Args:
      config: {'task', 'data', 'batch_size', 'seed'}, as in configs/evaluate.
      workdir: where `results` goes; the run directory itself by default, needed for an export.
      twin: judge the same network before training instead.

    Returns:
      Judgement.

    Raises:
      UserError on any mistake in the config or the data; BadNumbersError where features or scores are not finite.
    """
    config = plain(config)
    for name in config:
        if name not in FIELDS:
            raise unknown("field of the config", name, FIELDS)
    if workdir is None and backbone.sha256 is not None:
        raise UserError(f"{backbone.source} is an export", fix="say where results go with --workdir=DIRECTORY")
    folder = RunDirectory(backbone.source if workdir is None else workdir).results
    began = time.perf_counter()
    data = chosen_data(config["data"], backbone.config.get("data", {}))
    size = backbone.representation.spec["size"]
    fit_images, test_images = (load_split(data, data[which], size) for which in ("split", "test_split"))
    make_writable(folder)
    if twin:
        backbone = untrained(backbone, fit_images)
    label = main_label(fit_images) if data["label"] is None else data["label"]
    fit, test = (
        features_of(backbone.representation, images, label, batch_size=config["batch_size"])
        for images in (fit_images, test_images)
    )
    scores, how = run_task(config["task"], fit, test, seed=config["seed"])
    if not np.isfinite(scores).all():
        raise BadNumbersError(f"the {config['task']['kind']} task's scores are not finite; lower its learning rate")
    share, count = float(top1(scores, test.labels)), float(len(test.labels))
    if test_images.groups is not None:
        count = effective_count(np.argmax(scores, axis=-1) == test.labels, test_images.groups)
    result = {
        "task": config["task"]["kind"],
        "dataset": data["name"],
        "label": label,
        "classes": len(fit.classes),
        "fit": {"split": data["split"], "examples": len(fit.labels)},
        "test": {"split": data["test_split"], "examples": len(test.labels)},
        "top1": share,
        "interval95": interval95(share, count),
        "independent_examples": round(count, 1),
        "settings": {**config["task"], "seed": config["seed"], "size": size, "features": fit.values.shape[1]},
        "solved": how,
        "backbone": backbone.sha256 or str(backbone.source),
        "step": backbone.step,
        "untrained": twin,
        "seconds": round(time.perf_counter() - began, 3),
    }
    beside = None if label == main_label(fit_images) else label
    name = file_name(result["task"], data["name"], beside, twin)
    write_json(folder / name, result)
    return Judgement(result, folder / name)


def load_split(data: Mapping[str, Any], split: str, size: int) -> sets.ImageSet:
    """One split of the chosen set, every image `size` square."""
    return sets.load(data["name"], split, data_dir=data["dir"], size=size, options=data["options"])


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
    folder, _, path = dataset.partition(":")
    parts = [task, Path(path).name if folder == "folder" else dataset, label, "untrained" if twin else None]
    return "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts if part) + ".json"
