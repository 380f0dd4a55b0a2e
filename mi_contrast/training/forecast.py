"""What a run will take: parameters, steps and disk at its start, and time and memory once a few steps are measured."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from mi_contrast.core.progress import format_duration
from mi_contrast.core.quantities import interval, size
from mi_contrast.readout.accuracy import FEWEST
from mi_contrast.training.state import State

SKIPPED = 2  # steps that are not counted: the first compiles, and the second waits for it
MEASURED = 10  # steps whose median is reported
PATIENCE = 20.0  # seconds after which fewer steps must do


class Pace:
    """Collects the seconds of a run's first steps.

    The first two are left out, because they wait for the compiler. The median of the next ten is not moved by a
    measurement or a checkpoint among them. Long steps are reported after 20 seconds, whatever their number.
    """

    def __init__(self) -> None:
        self._skipped, self._seconds, self._done = 0, list[float](), False

    @property
    def count(self) -> int:
        """The number of steps that were measured."""
        return len(self._seconds)

    def add(self, seconds: float) -> float | None:
        """Counts a step. Returns the seconds of a step, once, when enough were measured, and None otherwise."""
        if self._done:
            return None
        if self._skipped < SKIPPED:
            self._skipped += 1
            return None
        self._seconds.append(seconds)
        self._done = len(self._seconds) == MEASURED or sum(self._seconds) > PATIENCE
        return statistics.median(self._seconds) if self._done else None


def describe_start(
    state: State, config: Mapping[str, Any], steps: int, train: int, held_out: int, workdir: Path
) -> Iterator[str]:
    """Yields the lines that a run prints before its first step: parameters and steps; disk; too few held-out images.

    Args:
      steps: that are to be taken now.
      train, held_out: number of examples that are trained on, and that are held out to measure.
    """
    count = sum(leaf.size for leaf in jax.tree.leaves(state.online["params"]))
    whole = "" if steps == config["steps"] else f" of {config['steps']:,}"
    of = f"{config['data']['batch']:,} images, {count_epochs(config['steps'], config['data']['batch'], train)} in all"
    yield f"{count:,} parameters; {steps:,}{whole} steps to take, each of {of}"
    disk = plan_disk(state, config, workdir)
    kept = f"{disk['kept']} checkpoints" if disk["kept"] > 1 else "a checkpoint"
    parts = f"{kept} of {size(disk['checkpoint'])} at a time, and the export"
    free = "" if disk["free"] is None else f"; {size(disk['free'])} are free"
    too_full = " (NOT ENOUGH)" if disk["free"] is not None and disk["total"] > disk["free"] else ""
    yield f"disk: {size(disk['total'])} at most in {workdir}: {parts}{free}{too_full}"
    if held_out < FEWEST:
        yield (
            f"{held_out} images are held out to measure training, and fewer than {FEWEST} are too few: nats and "
            "accuracies of this run are noise"
        )


def count_epochs(steps: int, batch: int, train: int) -> str:
    """Returns how often each of `train` examples is seen, in words: '232 epochs of 147 images'.

    The reader's own rounds may be more: each drops the last batch that is not full, and so has fewer examples.
    """
    return f"{round_digits(steps * batch / train)} epochs of {train:,} images"


def round_digits(value: float) -> str:
    """Writes a number above 0 with three digits, or with all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def describe_pace(seconds: float, count: int, steps: int) -> str:
    """Returns the line that a run prints once its first steps are measured: time and memory.

    Args:
      seconds: of a step, the median of `count` steps.
      steps: that are still to be taken.
    """
    used, available = measure_memory()
    memory = f"{size(used)}" + ("" if available is None else f" of {size(available)}")
    left = f"{format_duration(seconds * steps)} of steps to go"
    return f"a step takes {interval(seconds)} (median of {count}): {left}; memory so far: {memory}"


def plan_disk(state: State, config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """Returns the bytes that a run needs on disk: of a checkpoint, of how many at a time, of the export and in all.

    `free` is what is free where `workdir` is or would be made; None where that is not known.
    """
    saved, exported = (sum(leaf.nbytes for leaf in jax.tree.leaves(part)) for part in (state, state.online))
    kept = min(config["checkpoint"]["keep"] + 1, 1 + config["steps"] // config["checkpoint"]["every"])
    existing = next((folder for folder in (workdir, *workdir.absolute().parents) if folder.exists()), None)
    return {
        "checkpoint": saved,
        "kept": kept,
        "export": exported,
        "total": saved * kept + exported,
        "free": None if existing is None else shutil.disk_usage(existing).free,
    }


def measure_memory() -> tuple[int, int | None]:
    """Returns the most bytes that were in use until now, and how many there are; None where that is not known.

    On an accelerator it is the fullest device's memory. On a CPU it is this process's, beside the machine's.
    """
    statistics_of_devices = [found for device in jax.local_devices() if (found := device.memory_stats())]
    if statistics_of_devices:
        fullest = max(statistics_of_devices, key=lambda found: found.get("peak_bytes_in_use", 0))
        return fullest.get("peak_bytes_in_use", 0), fullest.get("bytes_limit")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return used, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
