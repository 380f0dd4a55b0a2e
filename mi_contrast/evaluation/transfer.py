"""Transfer: one task on many sets, of a backbone and of its untrained twin, every set looked over before any work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import write_json
from mi_contrast.core.progress import Progress
from mi_contrast.evaluation import on_features
from mi_contrast.evaluation.asked import Judgement, load_split, make_writable, results_of, short_name
from mi_contrast.evaluation.features import labels_of, main_label
from mi_contrast.evaluation.tasks import TASKS
from mi_contrast.interchange import Loaded

SET_FIELDS = ("split", "test_split", "label", "dir", "options")
MISSING = ("refuse", "skip")
TWIN_NEEDS = ("model", "seed", "data")


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Judges a backbone on every set of config.task.sets by the task config.task.by; results/transfer-<task>.json.

    Each set is {name, classes} and perhaps split ('train'), test_split ('test'), label (the main one), dir
    (config.data.dir) and options; the name is TFDS's, or folder:PATH, relative to the folder of data. Every split,
    label and number of classes is looked over first. Each set's own results are written as `judge` writes them.

    Raises UserError naming all the sets that can't be read, unless config.task.missing is 'skip', which tells of them
    in the table; and on a number of classes other than the config's in any case.
    """
    task = config["task"]
    check_section("config.task", task, ("kind", "by", "sets"), ("missing", "twin"))
    kind = task["by"].get("kind")
    if kind not in TASKS:
        raise unknown("task of a transfer", kind, TASKS)
    if task.get("missing", "refuse") not in MISSING:
        raise unknown("config.task.missing", task["missing"], MISSING)
    if twin:
        raise UserError("transfer judges the untrained twin itself", fix="leave out --untrained; see config.task.twin")
    for name in ("name", "split", "test_split", "options", "label", "test_name", "test_dir"):
        if config["data"].get(name):
            raise UserError(
                f"data.{name} of a transfer", fix="each set in config.task.sets has its own; data.dir is for all"
            )
    twins = (False, True) if task.get("twin", True) else (False,)
    if True in twins and not all(name in backbone.config for name in TWIN_NEEDS):
        raise UserError(
            f"{backbone.source} doesn't tell its training", fix="leave out its twin: --config.task.twin=False"
        )
    began = time.perf_counter()
    results = results_of(backbone, workdir)
    asked = [asked_of(given, config["data"].get("dir")) for given in task["sets"]]
    absent = look_over(asked, backbone.representation.spec["size"], task.get("missing", "refuse") == "skip")
    make_writable(results)
    rows: list[dict[str, Any]] = []
    progress = Progress("transfer", (len(asked) - len(absent)) * len(twins), unit="judgement", seconds_between=0.0)
    try:
        for each in asked:
            if each["name"] in absent:
                rows.append({"dataset": each["name"], "classes": each["classes"], "missing": absent[each["name"]]})
                continue
            one = {**config, "task": task["by"], "data": {n: each[n] for n in ("name", *SET_FIELDS)}}
            found = []
            for untrained in twins:
                found.append(on_features.judge(one, backbone, workdir, twin=untrained).result)
                progress.advance(note=f"{short_name(each['name'])} {100 * found[-1]['top1']:.1f} %")
            rows.append(row_of(each, found))
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
        "seconds": round(time.perf_counter() - began, 3),
    }
    path = results / f"transfer-{kind}.json"
    write_json(path, result)
    judged = len(rows) - len(absent)
    left_out = f", {len(absent)} missing ({', '.join(absent)})" if absent else ""
    return Judgement(result, path, f"transfer by {kind}: {judged} sets{left_out}, {result['seconds']:.0f} s -> {path}")


def asked_of(given: Mapping[str, Any], where: str | None) -> dict[str, Any]:
    """One set of the config with its defaults. UserError on a field that it can't have, or lacks."""
    check_section("a set in config.task.sets", given, ("name", "classes"), SET_FIELDS)
    each = {"split": "train", "test_split": "test", "label": None, "options": {}, "dir": where, **given}
    each["dir"] = where if each["dir"] is None else each["dir"]
    if each["split"] == each["test_split"]:
        raise UserError(f"{each['name']}: split and test_split are both {each['split']!r}", fix="fit on another split")
    return each


def look_over(asked: Sequence[Mapping[str, Any]], size: int, skip: bool) -> dict[str, str]:
    """{name: why} of the sets that can't be read; both splits of every set are opened and their labels read.

    Raises UserError on those, all in one line, unless `skip`; and where classes are not as the config says.
    """
    absent: dict[str, str] = {}
    for each in asked:
        try:
            splits = [load_split(each, each[which], size) for which in ("split", "test_split")]
            label = each["label"] or main_label(splits[0])
            classes = [labels_of(images, label)[1] for images in splits]
        except UserError as error:
            absent[each["name"]] = str(error)
            continue
        if classes[0] != classes[1]:
            raise UserError(f"{each['name']}: {each['split']} and {each['test_split']} have different classes")
        if len(classes[0]) != each["classes"]:
            raise UserError(
                f"{each['name']} has {len(classes[0])} classes by {label!r}, the config says {each['classes']}",
                fix="mend the config, or name another label",
            )
    if absent and (not skip or len(absent) == len(asked)):
        first = next(iter(absent.values()))
        raise UserError(
            f"{len(absent)} of {len(asked)} sets can't be read: {', '.join(absent)} ({first})",
            fix="give --config.data.dir, or --config.task.missing=skip to go on without them",
        )
    return absent


def row_of(asked: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A line of the table: the set, its splits, and what was found of the backbone and of its twin."""
    first = found[0]
    top1s = {
        "untrained" if result["untrained"] else "trained": {
            "top1": result["top1"],
            "interval95": result["interval95"],
            "solved": result["solved"],
        }
        for result in found
    }
    return {
        "dataset": asked["name"],
        "classes": asked["classes"],
        "chance": 1 / first["classes"],
        "label": first["label"],
        "fit": first["fit"],
        "test": first["test"],
        "independent_examples": first["independent_examples"],
        **top1s,
    }
