"""Times the start of a run, from the command to its first step, with an empty compile cache and with a full one.

Each start is a process of its own. It ends after the first step, and says when each part was over:

  imports      Python starts, and the packages are imported
  data         the config is read and checked, the data are opened, and the first batch is read
  first state  the network's initialisation is traced, compiled and run
  tracing      the step is traced and lowered to a program
  compiling    the step is compiled, or read from the cache
  first step   the step is taken
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from mi_contrast.benchmarks.timing import spread

REPEATS = 3
PARTS = ("imports", "data", "first_state", "tracing", "compiling", "first_step")
RECIPES = {"ring_moco:digits": (), "moco:cifar10_small": ("data.name=moving_digits", "data.size=32")}
# The parts add up to the time from the command to the step: both begin at the wall clock's time of the command.
START = """
import json, sys, time
command_time, recipe, changes = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
import jax
import mi_contrast.main
from mi_contrast.core.config import change, load_config, to_plain_data
from mi_contrast.core.user_cache import use_compile_cache
from mi_contrast.training import assemble, loop
from mi_contrast.training.state import abstract, placement
from mi_contrast.training.step import make_step
times = [time.time()]
use_compile_cache()
config = load_config(recipe)[0]
for field in changes:
    config = change(config, *field.split("=", 1))
job = assemble.build(to_plain_data(config))
reader = job.open()
batch = jax.block_until_ready(reader.batch(0))
times.append(time.time())
shardings = placement(job.parts.method, job.parts.mesh)
state = jax.block_until_ready(loop.place(job.first_state(), shardings))
times.append(time.time())
step = make_step(job.parts).lower(abstract(state, shardings), batch, job.tables)
times.append(time.time())
step = step.compile()
times.append(time.time())
jax.block_until_ready(step(state, batch, job.tables))
times.append(time.time())
reader.close()
print(json.dumps([b - a for a, b in zip([command_time, *times], times)]))
"""


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the seconds of each part of a start, by recipe, with a cold and a warm compile cache."""
    figures: dict[str, Any] = {"what": "seconds from the command to the end of the first step"}
    for recipe in list(RECIPES)[: 1 if small else None]:
        starts: dict[str, list[list[float]]] = {"cold": [], "warm": []}
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as cache:
                for kind in starts:  # the first of the two fills the cache
                    starts[kind].append(time_start(recipe, RECIPES[recipe], cache))
        figures[recipe] = {kind: summarise(parts) for kind, parts in starts.items()}
    return figures


def time_start(recipe: str, changes: tuple[str, ...], cache: str) -> list[float]:
    """Starts a run in a new process with this folder as the user's cache. Returns the seconds of each part."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment["XDG_CACHE_HOME"] = cache
    config, _, variant = recipe.partition(":")
    command = [sys.executable, "-c", START, str(time.time()), f"configs/{config}.py:{variant}", *changes]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr)
    return [float(seconds) for seconds in json.loads(ended.stdout.splitlines()[-1])]


def summarise(starts: list[list[float]]) -> dict[str, Any]:
    """Returns the spread over starts of each part and of their sum."""
    parts = {name: spread(list(seconds)) for name, seconds in zip(PARTS, zip(*starts, strict=True), strict=True)}
    return {"total": spread([sum(seconds) for seconds in starts]), **parts}


def format_figures(figures: Mapping[str, Any]) -> str:
    """Returns the figures as lines of text."""
    lines = [figures["what"]]
    for recipe in (name for name in RECIPES if name in figures):
        for kind, parts in figures[recipe].items():
            total = parts["total"]
            shares = ", ".join(f"{name.replace('_', ' ')} {parts[name]['median']:.1f}" for name in PARTS)
            seconds = f"{total['median']:.1f} ({total['min']:.1f} to {total['max']:.1f}) s"
            lines.append(f"  {recipe}, {kind}: {seconds}: {shares}")
    return "\n".join(lines)
