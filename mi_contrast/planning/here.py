"""Plans a run on the devices of this machine: memory, seconds a step from a few timed steps, total time and disk."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mi_contrast.benchmarks.programs import peak_bytes, read_program
from mi_contrast.core.config import to_plain_data
from mi_contrast.planning.chips import look_up_chip
from mi_contrast.planning.predict import count_held
from mi_contrast.training import assemble
from mi_contrast.training.first_start import settle
from mi_contrast.training.forecast import plan_disk
from mi_contrast.training.loop import place
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step

PATIENCE = 20.0  # seconds after which no further step is timed
STEPS = 10  # timed steps at most; the first is not counted where there are others


def plan_here(config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """Returns what a run of this config needs here, as plain data. Nothing is written.

    The config and its data are checked as at the start of the run, and a few of its steps are taken.

    Args:
      workdir: where the run would be; only the free space there is read.
    Raises:
      UserError: a mistake in the config or its data.
    """
    config = settle(to_plain_data(config))
    job = assemble.build(config)
    parts = job.parts
    state = job.fill_banks(place(job.first_state(), placement(parts.method, parts.mesh)))
    with job.open() as reader:
        began = time.perf_counter()
        batch = reader.batch(0)
        step: Any = make_step(parts)  # jitted, so that it can be compiled beforehand
        program = step.lower(state, batch, job.tables).compile()
        compile_seconds = time.perf_counter() - began
        held = count_held(state, batch, job.tables)
        seconds = time_steps(program, state, reader, job.tables)
    device, memory = jax.devices()[0], program.memory_analysis()
    chip, step_seconds = look_up_chip(device.device_kind), statistics.median(seconds)
    return {
        "device": f"{jax.device_count()} x {device.device_kind}",
        "batch": job.batch_size,
        "steps": parts.total_steps,
        "epochs": parts.total_steps * job.batch_size / len(job.train_ids),
        "examples": len(job.train_ids),
        "compile_seconds": compile_seconds,
        "held": held,
        "memory": {
            "peak": peak_bytes(program) + memory.generated_code_size_in_bytes,
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "code": memory.generated_code_size_in_bytes,
            "of": chip.memory if chip else None,
        },
        "program": read_program(program.as_text()),
        "timed_steps": len(seconds),
        "seconds_a_step": {"median": step_seconds, "min": min(seconds), "max": max(seconds)},
        "images_per_second": job.batch_size / step_seconds,
        "seconds": step_seconds * parts.total_steps,
        "disk": plan_disk(state, config, workdir),
    }  # fmt: skip


def time_steps(program: Any, state: Any, reader: Any, tables: Any) -> list[float]:
    """Returns the seconds of some steps, each with the reading of its batch. The first, which warms up, is left out
    where there are others.
    """
    seconds: list[float] = []
    began = time.perf_counter()
    for step in range(STEPS + 1):
        start = time.perf_counter()
        state, scalars = program(state, reader.batch(step), tables)
        jax.block_until_ready((state, scalars))
        seconds.append(time.perf_counter() - start)
        if time.perf_counter() - began > PATIENCE:
            break
    return seconds[1:] or seconds
