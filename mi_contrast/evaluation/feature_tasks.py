"""Judges a backbone by a task on its features: extracts them, runs the task, scores it and writes the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.core.layout import write_json
from mi_contrast.core.mesh import local_mesh, replicated
from mi_contrast.data import sets
from mi_contrast.evaluation.augmentation import encode_views, make_policy
from mi_contrast.evaluation.episodes import mean_and_interval
from mi_contrast.evaluation.feature_cache import compute_digest, describe_split, load_or_extract
from mi_contrast.evaluation.features import Features, FeatureSettings, encode_all, find_main_label, read_label
from mi_contrast.evaluation.heads import write_head
from mi_contrast.evaluation.task_config import (
    Judgement,
    find_results_folder,
    load_split,
    load_test_split,
    make_file_name,
    make_writable,
    resolve_data,
    shorten_name,
)
from mi_contrast.evaluation.tasks import Outcome, run_task
from mi_contrast.evaluation.twin import make_untrained_twin
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.readout.accuracy import effective_count, interval95, top1

Labels = tuple[np.ndarray, tuple[str, ...]]  # classes of a split's examples, int32 [N], and the names of the classes


@dataclass(frozen=True)
class Setup:
    """What every task on one data set starts from.

    data: the resolved config.data.
    label: name of the label in the fitting split; '' without labels.
    fit, test: the two splits, at the backbone's image size.
    backbone: the backbone to judge; the untrained twin where `untrained` is true.
    results: folder of results.
    start_time: of time.perf_counter.
    """

    data: Mapping[str, Any]
    label: str
    fit: sets.ImageSet
    test: sets.ImageSet
    backbone: LoadedBackbone
    untrained: bool
    results: Path
    start_time: float


def prepare(
    config: Mapping[str, Any],
    backbone: LoadedBackbone,
    workdir: Path | None,
    *,
    untrained: bool,
    needs_labels: bool = True,
) -> Setup:
    """Opens both splits and the folder of results. Raises UserError on a mistake in the config or the data.

    Args:
      needs_labels: whether the task can't do without labels. If it can, the label of a set without any is ''.
    """
    results, start_time = find_results_folder(backbone, workdir), time.perf_counter()
    data = resolve_data(config["data"], backbone.config.get("data", {}))
    size = backbone.representation.spec["size"]
    fit, test = load_split(data, data["split"], size), load_test_split(data, size)
    label = data["label"]
    if label is None:
        label = find_main_label(fit) if fit.labels or needs_labels else ""
    make_writable(results)
    judged = make_untrained_twin(backbone, fit) if untrained else backbone
    return Setup(data, label, fit, test, judged, untrained, results, start_time)


def judge(
    config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None = None, *, untrained: bool = False
) -> Judgement:
    """Judges a backbone by a task on features (one of `tasks.TASKS`). See `evaluation.judge`."""
    settings, kind = FeatureSettings.read(config.get("features", {})), config["task"]["kind"]
    if settings.views is not None and kind != "linear":
        raise UserError(f"the {kind} task is fitted on images as they are", fix="leave out features.views")
    setup = prepare(config, backbone, workdir, untrained=untrained)
    fit, test = extract_features(setup, settings, config)
    outcome = run_task(config["task"], fit, test, seed=config["seed"])
    more = {"features": fit.values.shape[1], "layer": settings.layer}
    more |= {"views": settings.views, "copies": settings.copies} if settings.views else {}
    return write_judgement(setup, config, outcome, test, more)


def write_judgement(
    setup: Setup, config: Mapping[str, Any], outcome: Outcome, test: Features, more_settings: Mapping[str, Any]
) -> Judgement:
    """Scores an outcome and writes its result file, with the fitted head next to it if there is one.

    `more_settings` is added to the result's settings. Raises BadNumbersError where scores are not finite.
    """
    accuracy, interval, count = score_outcome(outcome, test, config["task"]["kind"])
    data, backbone = setup.data, setup.backbone
    second_set = {"tested_on": "test_name", "test_label": "test_label"}
    result = {
        "task": config["task"]["kind"],
        "dataset": data["name"],
        **{name: data[field] for name, field in second_set.items() if field in data},
        "label": setup.label,
        "classes": config["task"].get("ways", len(test.classes)),
        "fit": {"split": data["split"], "examples": len(setup.fit)},
        "test": {"split": data["test_split"], "examples": len(test)},
        "top1": accuracy,
        "interval95": interval,
        "independent_examples": round(count, 1),
        "settings": {
            **config["task"],
            **{
                name: outcome.details[name]
                for name, value in config["task"].items()
                if value is None and name in outcome.details
            },
            "seed": config["seed"],
            "size": backbone.representation.spec["size"],
            **more_settings,
        },
        "solved": outcome.details,
        "backbone": backbone.sha256 or str(backbone.source),
        "step": backbone.step,
        "untrained": setup.untrained,
        "seconds": round(time.perf_counter() - setup.start_time, 3),
    }
    path = setup.results / name_result(setup, result["task"])
    write_json(path, result)
    if outcome.head is not None:
        about = {k: v for k, v in result.items() if k not in ("solved", "seconds")}
        write_head(path.with_suffix(".safetensors"), outcome.head, test.classes, about)
    return Judgement(result, path, summarise(result, path))


def name_result(setup: Setup, task: str) -> str:
    """Returns the result's file name: <task>-<dataset>[-<label>_on_<second set>][-untrained].json."""
    label = None if not setup.label or setup.label == find_main_label(setup.fit) else setup.label
    if "test_name" in setup.data:
        label = "_".join(filter(None, (label, "on", shorten_name(setup.data["test_name"]))))
    return make_file_name(task, setup.data["name"], label, setup.untrained)


def extract_features(setup: Setup, settings: FeatureSettings, config: Mapping[str, Any]) -> tuple[Features, Features]:
    """Returns the features of the fitting and the test split, from the cache where it has them.

    The labels of both splits are checked before any image is encoded.
    """
    fit_labels, test_labels = read_labels(setup)
    encoder, spec = setup.backbone.representation, dict(setup.backbone.representation.spec)
    network = {"variables": compute_digest(encoder.variables), "spec": spec, "layer": settings.layer}
    if jax.local_device_count() > 1:
        encoder = replace(encoder, variables=jax.device_put(encoder.variables, replicated(local_mesh())))
    arguments = {"batch_size": config["batch_size"], "layer": settings.layer}
    cache = setup.results.parent / "features" if settings.keep else None

    def identify(images: sets.ImageSet, **more: Any) -> dict[str, Any]:
        return {**network, **describe_split(images), **more} if cache is not None else {}

    def encode_images(images: sets.ImageSet, labels: Labels) -> Features:
        values = load_or_extract(cache, identify(images), lambda: encode_all(encoder, images, **arguments))
        return Features(values, *labels, images.groups)

    def encode_augmented(images: sets.ImageSet, labels: Labels) -> Features:
        policy = make_policy(str(settings.views), spec["size"], setup.backbone.config)
        more = {"policy": policy, "copies": settings.copies, "seed": config["seed"]}
        values = load_or_extract(
            cache, identify(images, **more), lambda: encode_views(encoder, images, **more, **arguments)
        )
        # All views of one image form one group, so that validation never holds out a view of a fitted image.
        groups = np.arange(len(images)) if images.groups is None else images.groups
        copies = settings.copies
        return Features(values, np.tile(labels[0], copies), labels[1], np.tile(groups, copies))

    fit = (encode_images if settings.views is None else encode_augmented)(setup.fit, fit_labels)
    return fit, encode_images(setup.test, test_labels)


def read_labels(setup: Setup) -> tuple[Labels, Labels]:
    """Returns the labels of the fitting and of the test split, numbered by the fitting split's classes.

    Raises UserError, with the names, if the two splits don't have the same classes.
    """
    labels, classes = read_label(setup.fit, setup.label)
    test_label = setup.data.get("test_label", setup.label)
    if "test_name" in setup.data and test_label not in setup.test.labels:
        raise UserError(
            f"{setup.test.name} has no label {test_label!r}, it has {', '.join(setup.test.labels) or 'none'}",
            fix="give --config.data.test_label=NAME",
        )
    test_labels, test_classes = read_label(setup.test, test_label)
    names = [f"{images.name} {images.split}" for images in (setup.fit, setup.test)]
    return (labels, classes), (match_classes(test_labels, test_classes, classes, names), classes)


def match_classes(
    labels: Int[np.ndarray, " N"], classes: tuple[str, ...], fit_classes: tuple[str, ...], split_names: list[str]
) -> Int[np.ndarray, " N"]:
    """Renumbers the labels of a test split by the fitting split's classes, which are matched by name.

    Args:
      labels: int32 [N], numbers of `classes`.
      classes, fit_classes: names of the test split's and of the fitting split's classes.
      split_names: of the fitting and the test split, for the message.
    Raises:
      UserError, naming classes that only one of the two has.
    """
    if classes == fit_classes:
        return labels
    if sorted(classes) != sorted(fit_classes):
        parts = [f"{split_names[0]} has {len(fit_classes)} classes and {split_names[1]} has {len(classes)}"]
        for split, own, other in zip(split_names, (fit_classes, classes), (classes, fit_classes), strict=True):
            if missing := [name for name in own if name not in other]:
                parts.append(f"only {split} has {list_names(missing)}")
        raise UserError("; ".join(parts), fix="give two splits of one set, or two sets of the same classes")
    return np.array([fit_classes.index(name) for name in classes], np.int32)[labels]


def list_names(names: list[str], most: int = 6) -> str:
    """Returns the names in a line, at most six of them.

    >>> list_names(list("abcdefgh"))
    'a, b, c, d, e, f and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def score_outcome(outcome: Outcome, test: Features, kind: str) -> tuple[float, tuple[float, float], float]:
    """Returns the top-1, its 95 % interval, and the number of independent examples or episodes behind it.

    Raises BadNumbersError where scores are not finite.
    """
    if outcome.accuracies is not None:
        return *mean_and_interval(outcome.accuracies), float(len(outcome.accuracies))
    scores = np.asarray(outcome.scores)
    if not np.isfinite(scores).all():
        raise BadNumbersError(f"the {kind} task's scores are not finite; lower its learning rate")
    accuracy, count = float(top1(scores, test.labels)), float(len(test))
    if test.groups is not None:
        count = effective_count(np.argmax(scores, axis=-1) == test.labels, test.groups)
    return accuracy, interval95(accuracy, count), count


def summarise(result: Mapping[str, Any], path: Path) -> str:
    """Returns the judgement in a line."""
    low, high = (100 * x for x in result["interval95"])
    dataset = f"{result['dataset']}, tested on {result['tested_on']}" if "tested_on" in result else result["dataset"]
    twin = "untrained twin, " if result["untrained"] else ""
    edge = ", the best setting lies at the edge of its grid" if result["solved"].get("at_edge") else ""
    chosen = f", {result['solved']['why_k']}" if "why_k" in result["solved"] else ""
    return (
        f"{result['task']} on {dataset} ({result['label']}): {twin}top-1 {100 * result['top1']:.2f} % "
        f"(95 %: {low:.2f} to {high:.2f}) on {result['test']['examples']:,} images{edge}{chosen}, "
        f"{result['seconds']:.0f} s -> {path}"
    )
