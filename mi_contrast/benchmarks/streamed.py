"""Times a training loop that decodes JPEGs of ImageNet's size on the fly, and finds how many cores its device needs."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from mi_contrast.benchmarks.timing import spread
from mi_contrast.core.config import change, load_config, to_plain_data
from mi_contrast.training import assemble, loop
from mi_contrast.training.metrics import read
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step

WIDTH, HEIGHT = 500, 375
CHANGES: dict[str, dict[str, Any]] = {
    "accelerator": {"data.batch": 256, "data.size": 256, "views.size": 224},
    "cpu": {
        "data.batch": 32, "data.size": 128, "views.size": 112, "model.backbone": "resnet18", "model.width": 16,
        "model.dtype": "float32", "method.pools.queue.size": 1024,
    },
    "small": {
        "data.batch": 16, "data.size": 32, "views.size": 32, "model.backbone": "tiny", "model.width": 8,
        "model.stem": "small", "model.dtype": "float32", "method.pools.queue.size": 64,
    },
}  # fmt: skip


def write_photographs(folder: Path, count: int) -> None:
    """Writes JPEGs of 500 x 375 pixels, of noise on several scales, about as large as photographs are."""
    random = np.random.default_rng(0)
    for i in range(count):
        layers = []
        for side in (6, 24, 96, 375):
            pixels = random.integers(0, 256, (side, side, 3), np.uint8)
            layers.append(np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), float))
        mixed = np.average(layers, axis=0, weights=(4, 2, 1, 0.5)).astype(np.uint8)
        Image.fromarray(mixed).save(folder / f"{i:05}.jpg", quality=90)


def compare_streamed(repeats: int, small: bool) -> dict[str, Any]:
    """Returns images/s of the loop, of its step on one batch, and of its reader alone, and the cores that are needed.

    Where the reader alone is faster than the step, the loop waits for the device. `cores_needed` is the number of cores
    at which the two are equally fast. On a CPU, step and reader share the cores, so the loop is slower than either.
    """
    kind = "small" if small else "cpu" if jax.default_backend() == "cpu" else "accelerator"
    cores, steps = len(os.sched_getaffinity(0)), 6 if small else 12
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        photographs.mkdir()
        write_photographs(photographs, 400 if small else 1200)
        job, config = make_job(photographs, kind, steps)
        seconds = [time_round(job, config, Path(folder) / f"run_{i}") for i in range(repeats)]
    speeds = {name: [job.batch_size / one[name] for one in seconds] for name in seconds[0]}
    return {
        "what": f"{config['model']['backbone']}, {config['views']['size']} px crops of {WIDTH} x {HEIGHT} JPEGs, "
        f"batch {job.batch_size}",
        "cores": cores,
        **{name: spread(values) for name, values in speeds.items()},
        "loop_over_slower": spread(
            [a / min(b, c) for a, b, c in zip(speeds["loop"], speeds["step"], speeds["reader"], strict=True)]
        ),
        "cores_needed": spread([cores * b / c for b, c in zip(speeds["step"], speeds["reader"], strict=True)]),
    }


def make_job(photographs: Path, kind: str, steps: int) -> tuple[assemble.Job, dict[str, Any]]:
    """Returns a run of ring_moco on the photographs, which are decoded for every batch."""
    config = load_config("configs/ring_moco.py:imagenet")[0]
    fixed: dict[str, Any] = {
        "steps": steps, "data.name": f"folder:{photographs}", "data.resident": False, "log.every": 1,
        "log.tensorboard": False, "eval.every": 10 * steps, "eval.pairs": 16, "eval.knn_bank": 16,
        "checkpoint.every": 10 * steps, "model.norm.groups": 1,
    }  # fmt: skip
    for name, value in {**fixed, **CHANGES[kind]}.items():
        config = change(config, name, str(value))
    return assemble.build(to_plain_data(config)), to_plain_data(config)


def time_round(job: assemble.Job, config: dict[str, Any], workdir: Path) -> dict[str, float]:
    """Returns the seconds of a batch: in the whole loop, in the step on one batch, and in the reader alone."""
    outcome = loop.run(config, workdir)
    rows = [row for row in read(outcome.run) if "objective" in row]
    half = rows[len(rows) // 3 :]  # the batches that were read ahead of the first steps are over then
    seconds = {"loop": (half[-1]["seconds"] - half[0]["seconds"]) / (half[-1]["step"] - half[0]["step"])}
    count = max(2, config["steps"] // 2)
    with job.open() as reader:
        batch = jax.block_until_ready(reader.batch(0))
        reader.close()
        start_time = time.perf_counter()
        for number in range(count):
            jax.block_until_ready(reader.batch(number))
        seconds["reader"] = (time.perf_counter() - start_time) / count
    step, state = make_step(job.parts), loop.place(job.first_state(), placement(job.parts.method, job.parts.mesh))
    state, _ = jax.block_until_ready(step(state, batch, job.tables))
    start_time = time.perf_counter()
    for _ in range(count):
        state, _ = step(state, batch, job.tables)
    jax.block_until_ready(state)
    seconds["step"] = (time.perf_counter() - start_time) / count
    return seconds
