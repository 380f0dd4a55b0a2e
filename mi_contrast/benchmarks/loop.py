"""The main loop beside the bare jitted step on one resident batch: what reading, logging and waiting cost."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from mi_contrast.benchmarks.timing import spread
from mi_contrast.core.config import load_config, plain
from mi_contrast.training import assemble, loop
from mi_contrast.training.metrics import read
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step


def run(repeats: int, small: bool) -> dict[str, Any]:
    """images/s of the loop between its first and last logged step, and of the bare step, round by round."""
    config = plain(load_config("configs/ring_moco.py:digits")[0])
    steps, every = (8, 4) if small else (400, config["log"]["every"])
    if small:
        config["data"] = {**config["data"], "batch": 32}
        config["eval"] = {**config["eval"], "pairs": 32, "knn_bank": 256}
    config["steps"] = steps
    config["log"] = {**config["log"], "every": every}
    for section in ("eval", "checkpoint"):
        config[section] = {**config[section], "every": 10 * steps}
    job = assemble.build(config)
    bare, looped = [], []
    step = make_step(job.parts)
    for _ in range(repeats):
        before = bare_step(job, step, steps // 2)
        with tempfile.TemporaryDirectory() as folder:
            outcome = loop.run(config, Path(folder) / "run")
            rows = [row for row in read(outcome.run) if "objective" in row]
            span = rows[-1]["seconds"] - rows[0]["seconds"]
            looped.append((rows[-1]["step"] - rows[0]["step"]) * job.batch_size / span)
        bare.append((before + bare_step(job, step, steps // 2)) / 2)  # on both sides, as the machine drifts
    share = [a / b for a, b in zip(looped, bare, strict=True)]
    return {
        "what": f"images/s, tiny network, 32 px, batch {job.batch_size}, one resident batch against the whole loop",
        "bare_step": spread(bare),
        "loop": spread(looped),
        "loop_over_bare": spread(share),
    }


def bare_step(job: assemble.Job, step: Any, count: int) -> float:
    """images/s of `count` steps on one batch, each step's guard read a step late, as the loop does."""
    with job.open() as reader:
        batch, state = reader.batch(0), loop.place(job.first_state(), placement(job.parts.row, job.parts.mesh))
        state, scalars = jax.block_until_ready(step(state, batch, job.tables))
        began = time.perf_counter()
        for _ in range(count):
            late = scalars["bad_steps"]
            state, scalars = step(state, batch, job.tables)
            int(late)
        jax.block_until_ready(state)
        return count * job.batch_size / (time.perf_counter() - began)
