"""Times the training loop against the bare step on one batch, to see what reading, logging and waiting cost.

The images of the first loop are on the device. `streamed` is a loop that decodes JPEGs (see `benchmarks.streamed`).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from mi_contrast.benchmarks.streamed import compare_streamed
from mi_contrast.benchmarks.timing import spread
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.training import assemble, loop
from mi_contrast.training.metrics import read
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step


def run(repeats: int, small: bool) -> dict[str, Any]:
    """Returns images/s of the loop, between its first and its last logged step, and of the bare step."""
    config = to_plain_data(load_config("configs/ring_moco.py:digits")[0])
    steps, every = (8, 4) if small else (400, config["log"]["every"])
    if small:
        config["data"] = {**config["data"], "batch": 32}
        config["eval"] = {**config["eval"], "pairs": 32, "knn_bank": 256}
    config["steps"] = steps
    config["log"] = {**config["log"], "every": every}
    for section in ("eval", "checkpoint"):
        config[section] = {**config[section], "every": 10 * steps}
    job = assemble.build(config)
    bare_speeds, loop_speeds = [], []
    step = make_step(job.parts)
    for _ in range(repeats):
        # Time the bare step before and after, because the speed of the machine drifts.
        speed_before = time_bare_step(job, step, steps // 2)
        with tempfile.TemporaryDirectory() as folder:
            outcome = loop.run(config, Path(folder) / "run")
            rows = [row for row in read(outcome.run) if "objective" in row]
            span = rows[-1]["seconds"] - rows[0]["seconds"]
            loop_speeds.append((rows[-1]["step"] - rows[0]["step"]) * job.batch_size / span)
        bare_speeds.append((speed_before + time_bare_step(job, step, steps // 2)) / 2)
    shares = [a / b for a, b in zip(loop_speeds, bare_speeds, strict=True)]
    return {
        "what": f"images/s, tiny network, 32 px, batch {job.batch_size}, one resident batch against the whole loop",
        "bare_step": spread(bare_speeds),
        "loop": spread(loop_speeds),
        "loop_over_bare": spread(shares),
        "streamed": compare_streamed(min(repeats, 3), small),
    }


def time_bare_step(job: assemble.Job, step: Any, count: int) -> float:
    """Returns images/s of `count` steps on one batch; `bad_steps` is read one step late, as the loop does it."""
    with job.open() as reader:
        batch, state = reader.batch(0), loop.place(job.first_state(), placement(job.parts.method, job.parts.mesh))
        state, scalars = jax.block_until_ready(step(state, batch, job.tables))
        start_time = time.perf_counter()
        for _ in range(count):
            previous = scalars["bad_steps"]
            state, scalars = step(state, batch, job.tables)
            int(previous)
        jax.block_until_ready(state)
        return count * job.batch_size / (time.perf_counter() - start_time)
