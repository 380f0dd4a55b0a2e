"""Transfer: runs one task on many data sets, for a backbone and its untrained twin. All sets are checked first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import write_json
from mi_contrast.core.progress import ProgressBar
from mi_contrast.evaluation import feature_tasks
from mi_contrast.evaluation.features import find_main_label, read_label
from mi_contrast.evaluation.task_config import (
    TEST_FIELDS,
    Judgement,
    find_results_folder,
    load_split,
    make_writable,
    shorten_name,
)
from mi_contrast.evaluation.tasks import TASKS
from mi_contrast.interchange import LoadedBackbone

SET_FIELDS = ("split", "test_split", "label", "dir", "options")
MISSING = ("refuse", "skip")
TWIN_NEEDS = ("model", "seed", "data")


def judge(
    config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None = None, *, untrained: bool = False
) -> Judgement:
    """Judges a backbone on every set in config.task.sets by the task config.task.by.

    Writes results/transfer-<task>.json, and the result file of every set as `evaluation.judge` writes it.

    A set is {name, classes} and optionally split ('train' by default), test_split ('test'), label (the set's main
    label), dir (config.data.dir) and options. The name is that of a TFDS set, or folder:PATH relative to dir. Every
    split, label and number of classes is checked before any work.

    Raises:
      UserError naming all sets that can't be read, unless config.task.missing is 'skip', which lists them in the
      table instead; and if a set's number of classes is not the config's.
    """
    task = config["task"]
    check_section("config.task", task, ("kind", "by", "sets"), ("missing", "twin"))
    kind = task["by"].get("kind")
    if kind not in TASKS:
        raise unknown("task of a transfer", kind, TASKS)
    if task.get("missing", "refuse") not in MISSING:
        raise unknown("config.task.missing", task["missing"], MISSING)
    if untrained:
        raise UserError("transfer judges the untrained twin itself", fix="leave out --untrained; see config.task.twin")
    for name in ("name", "split", "test_split", "options", "label", *TEST_FIELDS):
        if config["data"].get(name):
            raise UserError(
                f"data.{name} of a transfer", fix="each set in config.task.sets has its own; data.dir is for all"
            )
    twins = (False, True) if task.get("twin", True) else (False,)
    if True in twins and not all(name in backbone.config for name in TWIN_NEEDS):
        raise UserError(
            f"{backbone.source} doesn't tell its training", fix="leave out its twin: --config.task.twin=False"
        )
    start_time = time.perf_counter()
    results = find_results_folder(backbone, workdir)
    sets = [complete_set(section, config["data"].get("dir")) for section in task["sets"]]
    absent = check_sets(sets, backbone.representation.spec["size"], task.get("missing", "refuse") == "skip")
    make_writable(results)
    rows: list[dict[str, Any]] = []
    progress = ProgressBar("transfer", (len(sets) - len(absent)) * len(twins), unit="judgement", seconds_between=0.0)
    try:
        for data in sets:
            if data["name"] in absent:
                rows.append({"dataset": data["name"], "classes": data["classes"], "missing": absent[data["name"]]})
                continue
            set_config = {**config, "task": task["by"], "data": {n: data[n] for n in ("name", *SET_FIELDS)}}
            results_on_set = []
            for is_twin in twins:
                results_on_set.append(feature_tasks.judge(set_config, backbone, workdir, untrained=is_twin).result)
                progress.advance(note=f"{shorten_name(data['name'])} {100 * results_on_set[-1]['top1']:.1f} %")
            rows.append(make_row(data, results_on_set))
    finally:
        progress.close()
    result = {
        "task": "transfer",
        "by": task["by"],
        "seed": config["seed"],
        "size": backbone.representation.spec["size"],
        "backbone": backbone.sha256 or str(backbone.source),
        "step": backbone.step,
        "rows": rows,
        "seconds": round(time.perf_counter() - start_time, 3),
    }
    path = results / f"transfer-{kind}.json"
    write_json(path, result)
    judged = len(rows) - len(absent)
    missing = f", {len(absent)} missing ({', '.join(absent)})" if absent else ""
    return Judgement(result, path, f"transfer by {kind}: {judged} sets{missing}, {result['seconds']:.0f} s -> {path}")


def complete_set(section: Mapping[str, Any], folder: str | None) -> dict[str, Any]:
    """Returns one set of the config with its defaults. Raises UserError on an unknown or a missing field."""
    check_section("a set in config.task.sets", section, ("name", "classes"), SET_FIELDS)
    data = {"split": "train", "test_split": "test", "label": None, "options": {}, "dir": folder, **section}
    data["dir"] = folder if data["dir"] is None else data["dir"]
    if data["split"] == data["test_split"]:
        raise UserError(f"{data['name']}: split and test_split are both {data['split']!r}", fix="fit on another split")
    return data


def check_sets(sets: Sequence[Mapping[str, Any]], size: int, skip: bool) -> dict[str, str]:
    """Opens both splits of every set, reads their labels, and returns {name: reason} of sets that can't be read.

    Raises UserError on those, all in one line, unless `skip`; and if the classes of a set are not the config's.
    """
    absent: dict[str, str] = {}
    for data in sets:
        try:
            splits = [load_split(data, data[field], size) for field in ("split", "test_split")]
            label = data["label"] or find_main_label(splits[0])
            classes = [read_label(images, label)[1] for images in splits]
        except UserError as error:
            absent[data["name"]] = str(error)
            continue
        if classes[0] != classes[1]:
            raise UserError(f"{data['name']}: {data['split']} and {data['test_split']} have different classes")
        if len(classes[0]) != data["classes"]:
            raise UserError(
                f"{data['name']} has {len(classes[0])} classes by {label!r}, the config says {data['classes']}",
                fix="correct the config, or name another label",
            )
    if absent and (not skip or len(absent) == len(sets)):
        first = next(iter(absent.values()))
        raise UserError(
            f"{len(absent)} of {len(sets)} sets can't be read: {', '.join(absent)} ({first})",
            fix="give --config.data.dir, or --config.task.missing=skip to go on without them",
        )
    return absent


def make_row(data: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns a row of the table: the set, its splits, and the results of the backbone and of its twin."""
    first = results[0]
    top1s = {
        "untrained" if result["untrained"] else "trained": {
            "top1": result["top1"],
            "interval95": result["interval95"],
            "solved": result["solved"],
        }
        for result in results
    }
    return {
        "dataset": data["name"],
        "classes": data["classes"],
        "chance": 1 / first["classes"],
        "label": first["label"],
        "fit": first["fit"],
        "test": first["test"],
        "independent_examples": first["independent_examples"],
        **top1s,
    }
