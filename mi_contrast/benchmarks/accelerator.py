"""What an accelerator makes of the parts that take the time, in at most eight minutes on an H200.

Training steps of ResNet-18 at 32 px and ResNet-50 at 224 px in bfloat16, beside the same step in torch; losses against
65,536 and 1,281,167 candidates, whole supports and drawn ones; views at 32 and 224 px; the main loop over its bare
step. Each row is measured apart: one that fails, for want of memory say, holds the reason, and the others go on. Rows
stand in the order of their weight; those that the time no longer allows are named. Images are random: no data are read.
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
from mi_contrast.benchmarks.peers import missing, started
from mi_contrast.benchmarks.programs import count_products, peak_bytes, read_program, reported_flops
from mi_contrast.benchmarks.steps import make_recipe_step, random_arguments
from mi_contrast.benchmarks.timing import repeated, spread
from mi_contrast.benchmarks.torch_step import TorchStep, serve_torch_step
from mi_contrast.core.errors import UserError
from mi_contrast.core.progress import format_duration
from mi_contrast.views import policies

REPEATS = 5
BUDGET = 450.0  # seconds; no row begins that is expected to end after them
TORCH_PATIENCE = 150.0  # seconds that a torch step may take to compile and start
Row = dict[str, Any]

# bf16 TFLOP/s of one device, dense, by a part of its device_kind in lower case; the first that fits counts.
# Recalled, not looked up: NVIDIA's data sheets of the H200, H100 (SXM, PCIe, NVL) and A100, half of what they give
# "with sparsity"; Google Cloud's pages on TPU v4, v5e, v5p and v6e. TPU kinds as in
# jax/_src/pallas/mosaic/tpu_info.py.
PEAKS = (
    ("h200", 989.0),
    ("h100 pcie", 756.0),
    ("h100 nvl", 835.0),
    ("h100", 989.0),
    ("a100", 312.0),
    ("tpu v4", 275.0),
    ("tpu v5 lite", 197.0),
    ("tpu v5e", 197.0),
    ("tpu v5", 459.0),
    ("tpu v6", 918.0),
)


class NotRunError(Exception):
    """A row that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Measurement:
    """A row to be measured: `measure` returns its figures; expected: seconds that it takes on an H200."""

    name: str
    expected: float
    measure: Callable[[], Row]


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the rows, each a dict of plain data, and what the device's peak is. Raises UserError on a CPU, unless
    `small`.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch needs memory too
    device = jax.devices()[0]
    if device.platform == "cpu" and not small:
        raise UserError("the only device here is a CPU", fix="run it beside an accelerator, or add --small")
    rows = measure(small_measurements(repeats) if small else measurements(repeats))
    peak = peak_of(device.device_kind)
    add_shares(rows, peak)
    said = f"{peak:,.0f} TFLOP/s in bf16" if peak else f"not known of {device.device_kind}: no shares of it"
    return {
        "what": "an accelerator's figures; every row is measured alone, median (least to largest)",
        "peak": said,
        "devices": jax.device_count(),
        "small": small,
        "rows": rows,
    }


def measurements(repeats: int) -> list[Measurement]:
    """The rows of a whole run, the weightiest first. Our ResNet-50 has its recipe's eight groups of batch statistics,
    torch's has one.
    """
    r18, r50 = "configs/ring_moco.py:cifar10", "configs/ring_moco.py:imagenet"
    torch18 = TorchStep("resnet18", 64, "small", 32, 512, 4096, torch_device(), "bfloat16", True)
    torch50 = TorchStep("resnet50", 64, "imagenet", 224, 256, 65536, torch_device(), "bfloat16", True)
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


def small_measurements(repeats: int) -> list[Measurement]:
    """One row of each kind, so small that a CPU takes seconds."""
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
    """Returns a row of each measurement, in order: its figures, or why it failed or was not run."""
    rows: list[Row] = []
    began = time.perf_counter()
    for at, one in enumerate(plan):
        gone = time.perf_counter() - began
        row: Row = {"name": one.name}
        if rows and gone + one.expected > budget:
            row["not_run"] = f"{gone:.0f} of {budget:.0f} seconds are spent, and it takes about {one.expected:.0f}"
        else:
            try:
                row |= one.measure()
            except NotRunError as error:
                row["not_run"] = str(error)
            except Exception as error:  # a row that fails holds its reason, and the others go on
                row["failed"] = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        rows.append(row)
        gone = time.perf_counter() - began
        left = min(sum(later.expected for later in plan[at + 1 :]), max(budget - gone, 0.0))
        said = f"{at + 1}/{len(plan)}, {format_duration(gone)} gone, about {format_duration(left)} left"
        print(f"{describe(row)}  [{said}]", file=sys.stderr, flush=True)
    return rows


def measure_step(recipe: str, batch: int, repeats: int, changes: Mapping[str, Any] | None = None) -> Row:
    """The whole training step of a recipe in bfloat16, two augmented views a source image included."""
    step = make_recipe_step(recipe, {"model.dtype": "bfloat16", "data.batch": batch, **(changes or {})})
    state, images, tables = random_arguments(step)
    products = count_products(step.call, state, images, tables)
    program, compile_seconds = compile_timed(step.call, state, images, tables)

    def call(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = program(state, images, tables)
        jax.block_until_ready(state)

    return figures(repeated(call, repeats), program, products, compile_seconds, batch)


def measure_loss(support: Any, size: int, repeats: int, batch: int = 256, dim: int = 128) -> Row:
    """Value and gradient to anchors and positives of one support, float32 embeddings, 256 anchors."""
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (rows, dim)) for key, rows in zip(keys, (batch, batch, size), strict=True)]
    arguments = [x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in arrays]

    def loss(anchors: jax.Array, positives: jax.Array, pool: jax.Array, key: jax.Array) -> jax.Array:
        draws = key if isinstance(support, mi.Drawn) else None
        return -jnp.mean(mi.contrast(anchors, positives, pool, support, temperature=0.2, key=draws))

    graded = jax.jit(jax.value_and_grad(loss, (0, 1)))
    arguments.append(jax.random.key(1))
    program, compile_seconds = compile_timed(graded, *arguments)

    def call(count: int) -> None:
        for _ in range(count):
            result = program(*arguments)
        jax.block_until_ready(result)

    return figures(repeated(call, repeats), program, count_products(graded, *arguments), compile_seconds)


def measure_views(size: int, source: int, batch: int, repeats: int) -> Row:
    """Two views an image by the policy of MoCo v2, from images on the device."""
    views = policies.build(policies.moco_v2(size))
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (batch, 1, source, source, 3), np.uint8))
    keys = jax.random.split(jax.random.key(0), batch)
    program, compile_seconds = compile_timed(jax.jit(lambda pixels, keys: views(pixels, keys)), pixels, keys)

    def call(count: int) -> None:
        for _ in range(count):
            made = program(pixels, keys)
        jax.block_until_ready(made)

    return figures(repeated(call, repeats), program, None, compile_seconds, batch)


def measure_loop(repeats: int, small: bool) -> Row:
    """images/s of the main loop, with its reading and logging, and of the bare step; see `benchmarks.loop`."""
    results = loop.run(repeats, small)
    return {"images_per_second": results["loop"], "bare_step": results["bare_step"], "ratio": results["loop_over_bare"]}


def measure_torch(config: TorchStep, repeats: int) -> Row:
    """The same step in torch, on views already made, in a process of its own."""
    with started_torch_step(config) as (call, ready):
        seconds = repeated(call, repeats)
    return {"seconds": spread(seconds), "images_per_second": spread([config.batch / s for s in seconds]), **ready}


def torch_device() -> str:
    """The word for this device in torch."""
    return {"gpu": "cuda"}.get(jax.devices()[0].platform, jax.devices()[0].platform)


@contextmanager
def started_torch_step(config: TorchStep) -> Iterator[tuple[Callable[[int], None], Row]]:
    """Starts a torch step and yields a call that takes so many steps and waits, and how it runs; ends it after."""
    if reason := missing(("torch",)):
        raise NotRunError(reason)
    if config.device not in ("cpu", "cuda"):
        raise NotRunError(f"torch does not run on a {config.device} here")
    with started(serve_torch_step, config, patience=5) as pipe:

        def call(count: int) -> None:
            pipe.send(count)
            pipe.recv()

        if not pipe.poll(TORCH_PATIENCE):
            raise TimeoutError(f"not ready after {TORCH_PATIENCE:.0f} seconds")
        ready = pipe.recv()
        if "failed" in ready:
            raise RuntimeError(ready["failed"])
        yield call, ready


def compile_timed(call: Any, *arguments: Any) -> tuple[Any, float]:
    """Returns the compiled program of a jitted function, and the seconds that took."""
    began = time.perf_counter()
    return call.lower(*arguments).compile(), time.perf_counter() - began


def figures(
    seconds: list[float], program: Any, products: float | None, compile_seconds: float, images: int | None = None
) -> Row:
    """Returns a row's figures: times, rate, memory, launches, and the floating-point operations where `products`."""
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


def peak_of(kind: str) -> float | None:
    """Returns the bf16 peak of a device in TFLOP/s by its device_kind; None where it is not in the table."""
    return next((peak for part, peak in PEAKS if part in kind.lower()), None)


def add_shares(rows: list[Row], peak: float | None) -> None:
    """Adds to each row its share of the peak of all devices, and to torch's rows the ratio of ours to theirs."""
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        ours = by_name.get(row["name"].removeprefix("torch "))
        if ours is not row and ours and "seconds" in ours and "seconds" in row:
            row["ours_over_torch"] = row["seconds"]["median"] / ours["seconds"]["median"]
            row["tflop_per_second"] = ours["gflop"] / row["seconds"]["median"] / 1e3
        if peak and "tflop_per_second" in row:
            row["share_of_peak"] = row["tflop_per_second"] / (peak * jax.device_count())


def describe(row: Mapping[str, Any]) -> str:
    """Returns a row as one line."""
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


def words(results: Mapping[str, Any]) -> str:
    """Returns the rows as a reader wants them."""
    head = f"{results['what']}\n{results['devices']} x {results.get('device', 'device')}; its peak is {results['peak']}"
    return "\n".join([head, *(f"  {describe(row)}" for row in results["rows"])])
