"""One judgement: a backbone, a data set, a task; a top-1 with its interval, a result file, the fitted head."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_contrast.core.config import plain
from mi_contrast.core.errors import BadNumbersError, UserError, unknown
from mi_contrast.core.layout import write_json
from mi_contrast.core.mesh import make_mesh, replicated
from mi_contrast.data import sets
from mi_contrast.evaluation.asked import (
    Judgement,
    check_fields,
    chosen_data,
    file_name,
    load_split,
    load_test,
    make_writable,
    results_of,
    short_name,
)
from mi_contrast.evaluation.augmented import encode_views, policy_named
from mi_contrast.evaluation.episodes import mean_and_interval
from mi_contrast.evaluation.features import Features, Taking, encode_all, labels_of, main_label
from mi_contrast.evaluation.heads import write_head
from mi_contrast.evaluation.kept import digest_of, identity_of, kept
from mi_contrast.evaluation.tasks import TASKS, Outcome, run_task
from mi_contrast.evaluation.twin import untrained
from mi_contrast.interchange import Loaded
from mi_contrast.readout.accuracy import effective_count, interval95, top1

__all__ = ["Judgement", "chosen_data", "judge", "load_split"]

# Kinds of task that are not a fit on features; each module has a `judge` of the same form as this one's.
BEYOND = {
    "finetune": "mi_contrast.evaluation.finetune",
    "transfer": "mi_contrast.evaluation.transfer",
    "diagnostics": "mi_contrast.evaluation.diagnostics",
    "detection": "mi_contrast.evaluation.dense",
}


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Judges a backbone by the task that the config names, and writes results/<task>-<dataset>.json.

    Of a task on features (TASKS): takes features of both splits, or reads those that an earlier task kept; fits on one
    split, scores the other once. Images are resized by their short side to the backbone's size and centre-cropped,
    never augmented unless the config asks for views to fit on. The file's name grows by the label where it isn't the
    set's main one, by the set that is tested on where it is another, and by 'untrained' for the twin; a fitted head
    lies beside it as .safetensors. Where the set has groups (frames of one object), the interval counts as many
    examples as would tell as much independently.

    Args:
      config: {'task', 'data', 'batch_size', 'seed'} and perhaps 'features', as in configs/evaluate.
      workdir: where `results` and kept `features` go; the run directory itself by default, needed for an export.
      twin: judge the same network before training instead.

    Returns:
      Judgement.

    Raises:
      UserError on any mistake in the config or the data, or where weights are not all loaded; BadNumbersError where
      features or scores are not finite.
    """
    config = plain(config)
    check_fields(config)
    check_loaded(backbone)
    kind = config["task"].get("kind")
    if kind in TASKS:
        return judge_features(config, backbone, workdir, twin=twin)
    if kind in BEYOND and importlib.util.find_spec(BEYOND[kind]) is not None:
        found: Judgement = importlib.import_module(BEYOND[kind]).judge(config, backbone, workdir, twin=twin)
        return found
    raise unknown("task", kind, (*TASKS, *BEYOND))


def judge_features(
    config: Mapping[str, Any], backbone: Loaded, workdir: Path | None, *, twin: bool, name: str | None = None
) -> Judgement:
    """As `judge`, of a task on features; `name` goes before the file's where several judgements would share one."""
    results = results_of(backbone, workdir)
    began = time.perf_counter()
    taking = Taking.read(config.get("features", {}))
    if taking.views is not None and config["task"]["kind"] != "linear":
        raise UserError(
            f"the {config['task']['kind']} task is fitted on images as they are", fix="leave out features.views"
        )
    data = chosen_data(config["data"], backbone.config.get("data", {}))
    size = backbone.representation.spec["size"]
    fit_images, test_images = load_split(data, data["split"], size), load_test(data, size)
    make_writable(results)
    if twin:
        backbone = untrained(backbone, fit_images)
    label = main_label(fit_images) if data["label"] is None else data["label"]
    fit, test = take(backbone, (fit_images, test_images), label, taking, config, results.parent / "features")
    outcome = run_task(config["task"], fit, test, seed=config["seed"])
    share, interval, count = measured(outcome, test, config["task"]["kind"])
    result = {
        "task": config["task"]["kind"],
        "dataset": data["name"],
        **({"tested_on": data["test_name"]} if "test_name" in data else {}),
        "label": label,
        "classes": config["task"].get("ways", len(fit.classes)),
        "fit": {"split": data["split"], "examples": len(fit_images)},
        "test": {"split": data["test_split"], "examples": len(test)},
        "top1": share,
        "interval95": interval,
        "independent_examples": round(count, 1),
        "settings": {
            **config["task"],
            "seed": config["seed"],
            "size": size,
            "features": fit.values.shape[1],
            "layer": taking.layer,
            **({"views": taking.views, "copies": taking.copies} if taking.views else {}),
        },
        "solved": outcome.how,
        "backbone": backbone.sha256 or str(backbone.source),
        "step": backbone.step,
        "untrained": twin,
        "seconds": round(time.perf_counter() - began, 3),
    }
    beside = None if label == main_label(fit_images) else label
    if "test_name" in data:
        beside = "_".join(filter(None, (beside, "on", short_name(data["test_name"]))))
    path = results / file_name(name or result["task"], data["name"], beside, twin)
    write_json(path, result)
    if outcome.head is not None:
        about = {k: v for k, v in result.items() if k not in ("solved", "seconds")} | {"layer": taking.layer}
        write_head(path.with_suffix(".safetensors"), outcome.head, fit.classes, about)
    return Judgement(result, path, said_of(result, path))


def check_loaded(backbone: Loaded) -> None:
    """UserError where fewer tensors were loaded than the network has: such a backbone would be scored at chance."""
    held = len(jax.tree.leaves(backbone.representation.variables))
    if backbone.tensors != held or held == 0:
        raise UserError(
            f"{backbone.tensors} of the network's {held} tensors were loaded from {backbone.source}",
            fix="judge a backbone whose weights are all loaded, or its untrained twin with --untrained",
        )


def take(
    backbone: Loaded,
    splits: tuple[sets.ImageSet, sets.ImageSet],
    label: str,
    taking: Taking,
    config: Mapping[str, Any],
    folder: Path,
) -> tuple[Features, Features]:
    """Features of the fitting and the test split, kept in the folder; all labels are looked at before any encoding."""
    labels = [labels_of(images, label) for images in splits]
    encoder = backbone.representation
    spec = {name: encoder.spec[name] for name in encoder.spec}
    of_network = {"variables": digest_of(encoder.variables), "spec": spec, "layer": taking.layer}
    if jax.local_device_count() > 1:
        encoder = replace(encoder, variables=jax.device_put(encoder.variables, replicated(make_mesh())))
    size, where = {"batch_size": config["batch_size"], "layer": taking.layer}, folder if taking.keep else None
    if labels[0][1] != labels[1][1]:
        raise UserError(
            f"{splits[0].name} {splits[0].split} has {len(labels[0][1])} classes, {splits[1].name} {splits[1].split} "
            f"has {len(labels[1][1])} or other ones",
            fix="give two splits of one set, or two sets of the same classes",
        )

    def key_of(images: sets.ImageSet, **more: Any) -> dict[str, Any]:
        return {**of_network, **identity_of(images), **more} if where is not None else {}

    def plainly(images: sets.ImageSet, truth: Any) -> Features:
        values = kept(where, key_of(images), lambda: encode_all(encoder, images, **size))
        return Features(values, *truth, images.groups)

    def viewed(images: sets.ImageSet, truth: Any) -> Features:
        policy = policy_named(taking.views, spec["size"], backbone.config)
        more = {"policy": policy, "copies": taking.copies, "seed": config["seed"]}
        values = kept(where, key_of(images, **more), lambda: encode_views(encoder, images, **more, **size))
        own = np.arange(len(images)) if images.groups is None else images.groups
        return Features(values, np.tile(truth[0], taking.copies), truth[1], np.tile(own, taking.copies))

    fit = (plainly if taking.views is None else viewed)(splits[0], labels[0])
    return fit, plainly(splits[1], labels[1])


def measured(outcome: Outcome, test: Features, kind: str) -> tuple[float, tuple[float, float], float]:
    """(top-1, its 95 % interval, how many independent examples or episodes that rests on).

    Raises BadNumbersError where scores are not finite.
    """
    if outcome.shares is not None:
        return *mean_and_interval(outcome.shares), float(len(outcome.shares))
    if not np.isfinite(outcome.scores).all():
        raise BadNumbersError(f"the {kind} task's scores are not finite; lower its learning rate")
    share, count = float(top1(outcome.scores, test.labels)), float(len(test))
    if test.groups is not None:
        count = effective_count(np.argmax(outcome.scores, axis=-1) == test.labels, test.groups)
    return share, interval95(share, count), count


def said_of(result: Mapping[str, Any], path: Path) -> str:
    """The judgement in a line."""
    low, high = (100 * x for x in result["interval95"])
    where = f"{result['dataset']}, tested on {result['tested_on']}" if "tested_on" in result else result["dataset"]
    which = "untrained twin, " if result["untrained"] else ""
    edge = ", the best setting lies at the edge of its grid" if result["solved"].get("at_edge") else ""
    return (
        f"{result['task']} on {where} ({result['label']}): {which}top-1 {100 * result['top1']:.2f} % "
        f"(95 %: {low:.2f} to {high:.2f}) on {result['test']['examples']:,} images{edge}, "
        f"{result['seconds']:.0f} s -> {path}"
    )
