"""Measures the slow parts of training on an accelerator, in at most eight minutes on an H200.

The rows are training steps of ResNet-18 at 32 px and ResNet-50 at 224 px in bfloat16, and the same steps in torch;
losses against 65,536 and 1,281,167 candidates, with whole supports and drawn ones; views at 32 and 224 px; and the
training loop against its bare step. The most important rows come first. Each row is measured separately. If it fails,
for example for lack of memory, it has the reason and the others continue. Rows for which no time is left are named.
Images are random; no data are read.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.benchmarks import loop
from mi_contrast.benchmarks.peers import find_missing, start_process
from mi_contrast.benchmarks.programs import count_products, peak_bytes, read_program, reported_flops
from mi_contrast.benchmarks.steps import make_recipe_step, random_arguments
from mi_contrast.benchmarks.timing import spread, time_repeated
from mi_contrast.benchmarks.torch_step import TorchStep, serve_torch_step
from mi_contrast.core.errors import UserError
from mi_contrast.core.progress import format_duration
from mi_contrast.planning.chips import TERA, look_up_chip
from mi_contrast.views import policies

REPEATS = 5
BUDGET = 450.0  # seconds; a row that would end later is not started
TORCH_PATIENCE = 150.0  # seconds that a torch step may take to compile and start
Row = dict[str, Any]


class NotRunError(Exception):
    """A row that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Measurement:
    """A row to measure. expected: its seconds on an H200; measure: returns its figures."""

    name: str
    expected: float
    measure: Callable[[], Row]


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the rows, as plain data, and the peak of the device. Raises UserError on a CPU, unless `small`."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory too
    device = jax.devices()[0]
    if device.platform == "cpu" and not small:
        raise UserError("the only device here is a CPU", fix="run it on an accelerator, or add --small")
    rows = measure(list_small_measurements(repeats) if small else list_measurements(repeats))
    peak = look_up_peak(device.device_kind)
    add_shares(rows, peak)
    peak_text = f"{peak:,.0f} TFLOP/s in bf16" if peak else f"not known of {device.device_kind}: no shares of it"
    return {
        "what": "an accelerator's figures; every row is measured separately, median (least to largest)",
        "peak": peak_text,
        "devices": jax.device_count(),
        "small": small,
        "rows": rows,
    }


def list_measurements(repeats: int) -> list[Measurement]:
    """Returns the rows of a full run, the most important first.

    Our ResNet-50 has eight groups of batch statistics, as its recipe says; torch's has one.
    """
    r18, r50 = "configs/ring_moco.py:cifar10", "configs/ring_moco.py:imagenet"
    torch18 = TorchStep("resnet18", 64, "small", 32, 512, 4096, name_torch_device(), "bfloat16", True)
    torch50 = TorchStep("resnet50", 64, "imagenet", 224, 256, 65536, name_torch_device(), "bfloat16", True)
    losses = [
        Measurement(f"loss, {name}, {size:,} candidates", 8, partial(measure_loss, support, size, repeats))
        for size in (65_536, 1_281_167)
        for name, support in SUPPORTS.items()
    ]
    return [
        Measurement("step, ResNet-18, 32 px, batch 512", 60, partial(measure_step, r18, 512, repeats)),
        Measurement("torch step, ResNet-18, 32 px, batch 512", 50, partial(measure_torch, torch18, repeats)),
        Measurement("step, ResNet-50, 224 px, batch 256", 100, partial(measure_step, r50, 256, repeats)),
        Measurement("torch step, ResNet-50, 224 px, batch 256", 80, partial(measure_torch, torch50, repeats)),
        *losses[: len(SUPPORTS)],
        Measurement("views, 32 px, batch 1,024", 10, partial(measure_views, 32, 32, 1024, repeats)),
        Measurement("views, 224 px of 256 px, batch 256", 10, partial(measure_views, 224, 256, 256, repeats)),
        *losses[len(SUPPORTS) :],
        Measurement("step, ResNet-18, 32 px, batch 1,024", 60, partial(measure_step, r18, 1024, repeats)),
        Measurement("loop over bare step, tiny net, batch 256", 40, partial(measure_loop, min(repeats, 2), False)),
    ]


def list_small_measurements(repeats: int) -> list[Measurement]:
    """Returns a row of each kind, so small that it takes seconds on a CPU."""
    tiny = {"model.backbone": "tiny", "model.width": 4, "views.size": 16, "method.pools.queue.size": 64}
    step = partial(measure_step, "configs/ring_moco.py:cifar10", 8, repeats, tiny)
    torch = partial(measure_torch, TorchStep(width=2, size=16, batch=8, threads=1), repeats)
    return [
        Measurement("step, tiny, 16 px, batch 8", 10, step),
        Measurement("torch step, ResNet-18 of width 2, 16 px, batch 8", 10, torch),
        *[
            Measurement(f"loss, {name}, 512 candidates", 2, partial(measure_loss, support, 512, repeats, 16, 16))
            for name, support in SUPPORTS.items()
        ],
        Measurement("views, 16 px, batch 8", 5, partial(measure_views, 16, 16, 8, repeats)),
        Measurement("loop over bare step, tiny net, batch 256", 20, partial(measure_loop, 1, True)),
    ]


SUPPORTS: dict[str, Any] = {
    "all": mi.All(),
    "ring": mi.Ring(0.9, 0.99),
    "drawn from all": mi.Drawn(4095, mi.All()),
    "drawn from a ring": mi.Drawn(4095, mi.Ring(0.9, 0.99)),
}


def measure(plan: list[Measurement], budget: float = BUDGET) -> list[Row]:
    """Returns a row for each measurement, in order: its figures, or why it failed or was not run."""
    rows: list[Row] = []
    start = time.perf_counter()
    for i, measurement in enumerate(plan):
        gone = time.perf_counter() - start
        row: Row = {"name": measurement.name}
        if rows and gone + measurement.expected > budget:
            spent = f"{gone:.0f} of {budget:.0f} seconds are spent"
            row["not_run"] = f"{spent}, and it takes about {measurement.expected:.0f}"
        else:
            try:
                row |= measurement.measure()
            except NotRunError as error:
                row["not_run"] = str(error)
            except Exception as error:  # the row shows the reason, and the others continue
                row["failed"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        rows.append(row)
        gone = time.perf_counter() - start
        left = min(sum(later.expected for later in plan[i + 1 :]), max(budget - gone, 0.0))
        progress = f"{i + 1}/{len(plan)}, {format_duration(gone)} gone, about {format_duration(left)} left"
        print(f"{describe(row)}  [{progress}]", file=sys.stderr, flush=True)
    return rows


def measure_step(recipe: str, batch: int, repeats: int, changes: Mapping[str, Any] | None = None) -> Row:
    """Measures the training step of a recipe in bfloat16, including the augmentation of two views per image."""
    step = make_recipe_step(recipe, {"model.dtype": "bfloat16", "data.batch": batch, **(changes or {})})
    state, images, tables = random_arguments(step)
    products = count_products(step.call, state, images, tables)
    program, compile_seconds = time_compilation(step.call, state, images, tables)

    def call(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = program(state, images, tables)
        jax.block_until_ready(state)

    return make_figures(time_repeated(call, repeats), program, products, compile_seconds, batch)


def measure_loss(support: Any, size: int, repeats: int, batch: int = 256, dim: int = 128) -> Row:
    """Measures value and gradients of anchors and positives for one support, with float32 embeddings."""
    rngs = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(rng, (rows, dim)) for rng, rows in zip(rngs, (batch, batch, size), strict=True)]
    arguments = [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in arrays]

    def loss(anchors: jax.Array, positives: jax.Array, pool: jax.Array, rng: jax.Array) -> jax.Array:
        rng_of_draws = rng if isinstance(support, mi.Drawn) else None
        return -jnp.mean(mi.contrast(anchors, positives, pool, support, temperature=0.2, key=rng_of_draws))

    loss_and_gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))
    arguments.append(jax.random.key(1))
    program, compile_seconds = time_compilation(loss_and_gradients, *arguments)

    def call(count: int) -> None:
        for _ in range(count):
            result = program(*arguments)
        jax.block_until_ready(result)

    products = count_products(loss_and_gradients, *arguments)
    return make_figures(time_repeated(call, repeats), program, products, compile_seconds)


def measure_views(size: int, source: int, batch: int, repeats: int) -> Row:
    """Measures two views per image by the policy of MoCo v2, from images on the device."""
    views = policies.build(policies.moco_v2(size))
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, 1, source, source, 3), np.uint8))
    rngs = jax.random.split(jax.random.key(0), batch)
    program, compile_seconds = time_compilation(jax.jit(lambda pixels, rngs: views(pixels, rngs)), pixels, rngs)

    def call(count: int) -> None:
        for _ in range(count):
            result = program(pixels, rngs)
        jax.block_until_ready(result)

    return make_figures(time_repeated(call, repeats), program, None, compile_seconds, batch)


def measure_loop(repeats: int, small: bool) -> Row:
    """Measures images/s of the training loop, with reading and logging, and of the bare step; see `benchmarks.loop`."""
    results = loop.run(repeats, small)
    return {"images_per_second": results["loop"], "bare_step": results["bare_step"], "ratio": results["loop_over_bare"]}


def measure_torch(config: TorchStep, repeats: int) -> Row:
    """Measures the same step in torch, on finished views, in a process of its own."""
    with start_torch_step(config) as (call, ready):
        seconds = time_repeated(call, repeats)
    return {"seconds": spread(seconds), "images_per_second": spread([config.batch / s for s in seconds]), **ready}


def name_torch_device() -> str:
    """Returns torch's name for this device."""
    return {"gpu": "cuda"}.get(jax.devices()[0].platform, jax.devices()[0].platform)


@contextmanager
def start_torch_step(config: TorchStep) -> Iterator[tuple[Callable[[int], None], Row]]:
    """Starts a torch step, yields a function that takes a number of steps and waits, and its first row, and ends it."""
    if reason := find_missing(("torch",)):
        raise NotRunError(reason)
    if config.device not in ("cpu", "cuda"):
        raise NotRunError(f"torch does not run on a {config.device} here")
    with start_process(serve_torch_step, config, patience=5) as pipe:

        def call(count: int) -> None:
            pipe.send(count)
            pipe.recv()

        if not pipe.poll(TORCH_PATIENCE):
            raise TimeoutError(f"not ready after {TORCH_PATIENCE:.0f} seconds")
        ready = pipe.recv()
        if "failed" in ready:
            raise RuntimeError(ready["failed"])
        yield call, ready


def time_compilation(call: Any, *arguments: Any) -> tuple[Any, float]:
    """Returns the compiled program of a jitted function, and the seconds of its compilation."""
    start = time.perf_counter()
    return call.lower(*arguments).compile(), time.perf_counter() - start


def make_figures(
    seconds: list[float], program: Any, products: float | None, compile_seconds: float, images: int | None = None
) -> Row:
    """Returns the figures of a row: times, rate, memory, launches; with `products` also floating-point operations."""
    row: Row = {"seconds": spread(seconds), "compile_seconds": compile_seconds, "peak_mib": peak_bytes(program) / 2**20}
    if images is not None:
        row["images_per_second"] = spread([images / s for s in seconds])
    if products is not None:
        reported = reported_flops(program)
        row |= {"gflop": products / 1e9, "gflop_reported": reported and reported / 1e9}
        row["tflop_per_second"] = products / row["seconds"]["median"] / 1e12
    stats = jax.devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        row["device_peak_mib_so_far"] = stats["peak_bytes_in_use"] / 2**20
    return row | {"program": read_program(program.as_text())}


def look_up_peak(kind: str) -> float | None:
    """Returns the bf16 peak in TFLOP/s for a device_kind, or None if it is not in the table."""
    chip = look_up_chip(kind)
    return None if chip is None else chip.peaks["bfloat16"] / TERA


def add_shares(rows: list[Row], peak: float | None) -> None:
    """Adds each row's share of the peak of all devices, and in torch's rows our speed divided by theirs."""
    rows_by_name = {row["name"]: row for row in rows}
    for row in rows:
        ours = rows_by_name.get(row["name"].removeprefix("torch "))
        if ours is not row and ours and "seconds" in ours and "seconds" in row:
            row["ours_over_torch"] = row["seconds"]["median"] / ours["seconds"]["median"]
            row["tflop_per_second"] = ours["gflop"] / row["seconds"]["median"] / 1e3
        if peak and "tflop_per_second" in row:
            row["share_of_peak"] = row["tflop_per_second"] / (peak * jax.device_count())


def describe(row: Mapping[str, Any]) -> str:
    """Returns a row in a line."""
    if "failed" in row or "not_run" in row:
        return f"{row['name']}: " + (f"failed, {row['failed']}" if "failed" in row else f"not run, {row['not_run']}")
    parts = []
    if "seconds" in row:
        least, median, largest = (1e3 * row["seconds"][name] for name in ("min", "median", "max"))
        parts.append(f"{median:.2f} ms ({least:.2f} to {largest:.2f})")
    if "images_per_second" in row:
        parts.append(f"{row['images_per_second']['median']:,.0f} images/s")
    if "ratio" in row:
        parts.append(f"{row['ratio']['median']:.2f} x the bare step's")
    if "tflop_per_second" in row:
        share = f", {100 * row['share_of_peak']:.1f} % of the peak" if "share_of_peak" in row else ""
        parts.append(f"{row['tflop_per_second']:.3g} TFLOP/s{share}")
    if row.get("peak_mib"):
        parts.append(f"{row['peak_mib']:,.0f} MiB")
    if "program" in row:
        parts.append(f"{row['program']['launched']} launches")
    if "how" in row:
        parts.append(row["how"])
    if "ours_over_torch" in row:
        parts.append(f"ours {row['ours_over_torch']:.2f} x as fast")
    if "compile_seconds" in row:
        parts.append(f"ready after {row['compile_seconds']:.0f} s")
    return f"{row['name']}: " + ", ".join(parts)


def format_figures(results: Mapping[str, Any]) -> str:
    """Returns the rows as lines of text."""
    head = f"{results['what']}\n{results['devices']} x {results.get('device', 'device')}; its peak is {results['peak']}"
    return "\n".join([head, *(f"  {describe(row)}" for row in results["rows"])])
