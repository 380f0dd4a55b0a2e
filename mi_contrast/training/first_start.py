"""Settles, at the first start of a run, what its config leaves open about one's own pictures, and says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from mi_contrast.core import division, processes
from mi_contrast.core.config import to_plain_data
from mi_contrast.core.mesh import make_mesh
from mi_contrast.core.paths import get_field
from mi_contrast.data import sets
from mi_contrast.data.statistics import compute_statistics
from mi_contrast.data.survey import Survey, survey
from mi_contrast.training import fitting
from mi_contrast.training.weights import describe_weights

SAMPLE = 1000  # pictures on which mean and std are measured
DIGITS = 4


def settle(config: Mapping[str, Any], stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the config with every open field filled; a config without open fields is returned as it is.

    Args:
      config: plain data.
      stored: the config of an earlier start, whose values are taken.
    Raises:
      UserError: the pictures can't be read, or a field that is set can't be had with them.
    """
    if not fitting.is_open(config):
        return dict(config)
    if stored is not None:
        return dict(fitting.take_stored(config, stored))
    with processes.together():
        seen = survey(config["data"], config["eval"]["held_out"])
        config = {**config, "data": {**config["data"], **seen.data}}
        facts = gather_facts(config, seen)
        fitted, reasons = fitting.fit(config, facts)
        reasons = {f"data.{field}": why for field, why in seen.reasons.items() if field in seen.data} | reasons
        if fitted["views"]["mean"] is None or fitted["views"]["std"] is None:
            fitted, measured = fill_statistics(fitted, facts.published)
            reasons |= measured
    fitted = to_plain_data(processes.agree(fitted))
    print("\n".join([*seen.lines, "settled for this run, once:", *describe(fitted, reasons)]))
    return dict(fitted)


def describe(config: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    """Returns a line for each field that was filled: its path, its value and why."""
    values = {path: get_field(config, path) for path in reasons}
    return [f"  {path} = {values[path]!r}: {why}" for path, why in reasons.items()]


def gather_facts(config: Mapping[str, Any], seen: Survey) -> fitting.Facts:
    """Returns what a config is fitted to, of its pictures, this machine and the weights that it starts from."""
    device = jax.devices()[0]
    return fitting.Facts(
        train=seen.train,
        held_out=seen.held_out,
        classes=seen.classes,
        short_side=seen.short_side,
        image_shape=seen.image_shape,
        backend=device.platform,
        devices=make_mesh().size,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=read_memory(device),
        uses=seen.uses,
        published=describe_weights(config["checkpoint"]["start_from"]),
    )


def read_memory(device: jax.Device) -> int:
    """Returns the bytes of memory of this machine or, if that has less, of a device."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return min(host, int(limit)) if limit else host


def fill_statistics(
    config: Mapping[str, Any], published: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the config with the mean and deviation of each channel, measured or those of its weights, and why."""
    if published is not None:
        mean, std, why = published["mean"], published["std"], "that of the weights the run starts from"
    else:
        mean, std, count = measure(config)
        why = f"measured on {count:,} pictures"
    views = dict(config["views"])
    filled = {name: tuple(value) for name, value in (("mean", mean), ("std", std)) if views[name] is None}
    return {**config, "views": views | filled}, {f"views.{name}": why for name in filled}


def measure(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Returns the mean and deviation of each channel over a sample of the training pictures, and its size."""
    data, views = config["data"], config["views"]
    split = division.parse_optional(views.get("split"))
    images = sets.load_section(data, size=views["size"])
    rows = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64))
    sample = replace(images, count=len(rows), read=lambda index: images.images(rows[index]), open=None)
    mean, std = compute_statistics(sample, "rgb" if split is None else split.space)
    rounded = [tuple(float(f"{value:.{DIGITS}g}") for value in values) for values in (mean, std)]
    return rounded[0], rounded[1], len(rows)
