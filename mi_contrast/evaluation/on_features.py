"""A judgement by features: what it begins from, the features of both splits, a top-1 with its interval, its file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.core.layout import write_json
from mi_contrast.core.mesh import make_mesh, replicated
from mi_contrast.data import sets
from mi_contrast.evaluation.asked import (
    Judgement,
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
from mi_contrast.evaluation.tasks import Outcome, run_task
from mi_contrast.evaluation.twin import untrained
from mi_contrast.interchange import Loaded
from mi_contrast.readout.accuracy import effective_count, interval95, top1

Truth = tuple[np.ndarray, tuple[str, ...]]  # labels, classes


@dataclass(frozen=True)
class Ready:
    """What every judgement of one set begins from: the chosen data and label, both splits, and where the result goes.

    backbone: as given, or its untrained twin; began: when, by time.perf_counter.
    """

    data: Mapping[str, Any]
    label: str
    fit: sets.ImageSet
    test: sets.ImageSet
    backbone: Loaded
    twin: bool
    results: Path
    began: float


def ready(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None, *, twin: bool) -> Ready:
    """Opens both splits at the size of the backbone and the folder of results. Raises UserError on what can't serve."""
    results, began = results_of(backbone, workdir), time.perf_counter()
    data = chosen_data(config["data"], backbone.config.get("data", {}))
    size = backbone.representation.spec["size"]
    fit, test = load_split(data, data["split"], size), load_test(data, size)
    label = main_label(fit) if data["label"] is None else data["label"]
    make_writable(results)
    return Ready(data, label, fit, test, untrained(backbone, fit) if twin else backbone, twin, results, began)


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """As `evaluation.judge`, of a task on features."""
    taking, kind = Taking.read(config.get("features", {})), config["task"]["kind"]
    if taking.views is not None and kind != "linear":
        raise UserError(f"the {kind} task is fitted on images as they are", fix="leave out features.views")
    begun = ready(config, backbone, workdir, twin=twin)
    fit, test = take(begun, taking, config)
    outcome = run_task(config["task"], fit, test, seed=config["seed"])
    how = {"features": fit.values.shape[1], "layer": taking.layer}
    how |= {"views": taking.views, "copies": taking.copies} if taking.views else {}
    return written(begun, config, outcome, test, how)


def written(
    begun: Ready, config: Mapping[str, Any], outcome: Outcome, test: Features, how: Mapping[str, Any]
) -> Judgement:
    """The judgement of an outcome, its file written, the fitted head beside it; `how` goes to the result's settings.

    Raises BadNumbersError where scores are not finite.
    """
    share, interval, count = measured(outcome, test, config["task"]["kind"])
    data, backbone = begun.data, begun.backbone
    result = {
        "task": config["task"]["kind"],
        "dataset": data["name"],
        **({"tested_on": data["test_name"]} if "test_name" in data else {}),
        "label": begun.label,
        "classes": config["task"].get("ways", len(test.classes)),
        "fit": {"split": data["split"], "examples": len(begun.fit)},
        "test": {"split": data["test_split"], "examples": len(test)},
        "top1": share,
        "interval95": interval,
        "independent_examples": round(count, 1),
        "settings": {**config["task"], "seed": config["seed"], "size": backbone.representation.spec["size"], **how},
        "solved": outcome.how,
        "backbone": backbone.sha256 or str(backbone.source),
        "step": backbone.step,
        "untrained": begun.twin,
        "seconds": round(time.perf_counter() - begun.began, 3),
    }
    path = begun.results / name_of(begun, result["task"])
    write_json(path, result)
    if outcome.head is not None:
        about = {k: v for k, v in result.items() if k not in ("solved", "seconds")}
        write_head(path.with_suffix(".safetensors"), outcome.head, test.classes, about)
    return Judgement(result, path, said_of(result, path))


def name_of(begun: Ready, task: str) -> str:
    """The result's file: <task>-<dataset>[-<label>][_on_<set tested on>][-untrained].json."""
    beside = None if begun.label == main_label(begun.fit) else begun.label
    if "test_name" in begun.data:
        beside = "_".join(filter(None, (beside, "on", short_name(begun.data["test_name"]))))
    return file_name(task, begun.data["name"], beside, begun.twin)


def take(begun: Ready, taking: Taking, config: Mapping[str, Any]) -> tuple[Features, Features]:
    """Features of the fitting and the test split, kept beside the results; all labels are looked at before any
    encoding.
    """
    fit_truth, test_truth = truths(begun)
    encoder, spec = begun.backbone.representation, dict(begun.backbone.representation.spec)
    of_network = {"variables": digest_of(encoder.variables), "spec": spec, "layer": taking.layer}
    if jax.local_device_count() > 1:
        encoder = replace(encoder, variables=jax.device_put(encoder.variables, replicated(make_mesh())))
    size = {"batch_size": config["batch_size"], "layer": taking.layer}
    where = begun.results.parent / "features" if taking.keep else None

    def key_of(images: sets.ImageSet, **more: Any) -> dict[str, Any]:
        return {**of_network, **identity_of(images), **more} if where is not None else {}

    def plainly(images: sets.ImageSet, truth: Truth) -> Features:
        values = kept(where, key_of(images), lambda: encode_all(encoder, images, **size))
        return Features(values, *truth, images.groups)

    def viewed(images: sets.ImageSet, truth: Truth) -> Features:
        policy = policy_named(str(taking.views), spec["size"], begun.backbone.config)
        more = {"policy": policy, "copies": taking.copies, "seed": config["seed"]}
        values = kept(where, key_of(images, **more), lambda: encode_views(encoder, images, **more, **size))
        own = np.arange(len(images)) if images.groups is None else images.groups
        return Features(values, np.tile(truth[0], taking.copies), truth[1], np.tile(own, taking.copies))

    fit = (plainly if taking.views is None else viewed)(begun.fit, fit_truth)
    return fit, plainly(begun.test, test_truth)


def truths(begun: Ready) -> tuple[Truth, Truth]:
    """(labels, classes) of the fitting and of the test split. UserError where the classes are not the same."""
    fit, test = (labels_of(images, begun.label) for images in (begun.fit, begun.test))
    if fit[1] != test[1]:
        raise UserError(
            f"{begun.fit.name} {begun.fit.split} has {len(fit[1])} classes, {begun.test.name} {begun.test.split} has "
            f"{len(test[1])} or other ones",
            fix="give two splits of one set, or two sets of the same classes",
        )
    return fit, test


def measured(outcome: Outcome, test: Features, kind: str) -> tuple[float, tuple[float, float], float]:
    """(top-1, its 95 % interval, how many independent examples or episodes that rests on).

    Raises BadNumbersError where scores are not finite.
    """
    if outcome.shares is not None:
        return *mean_and_interval(outcome.shares), float(len(outcome.shares))
    scores = np.asarray(outcome.scores)
    if not np.isfinite(scores).all():
        raise BadNumbersError(f"the {kind} task's scores are not finite; lower its learning rate")
    share, count = float(top1(scores, test.labels)), float(len(test))
    if test.groups is not None:
        count = effective_count(np.argmax(scores, axis=-1) == test.labels, test.groups)
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
