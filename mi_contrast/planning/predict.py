"""Predicts a training step on a slice that is not here, by compiling it for the slice's devices."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax

from mi_contrast.benchmarks.programs import count_products_by_inputs, peak_bytes, read_program
from mi_contrast.benchmarks.steps import abstract_arguments, make_config_step
from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data import sets
from mi_contrast.planning.collectives import find_collectives, summarise_collectives
from mi_contrast.planning.hlo import Program
from mi_contrast.planning.judging import judge
from mi_contrast.planning.roofline import estimate_step
from mi_contrast.planning.topologies import Slice, describe_devices
from mi_contrast.planning.traffic import count_traffic
from mi_contrast.training.state import State

TITLE = "Predicted by compiling, not measured"
# Examples and classes of the splits that the variants of the configs train on; their data need not be here.
SIZES = {
    ("cifar10", "train"): (50_000, 10),
    ("cifar100", "train"): (50_000, 100),
    ("stl10", "train"): (5_000, 10),
    ("stl10", "unlabelled"): (100_000, 0),
    ("stl10", "train+unlabelled"): (105_000, 10),
    ("imagenet2012", "train"): (1_281_167, 1000),
}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
NEEDED = re.compile(r"[Uu]sed ([\d.]+)([KMGT]?)i?B? of ([\d.]+)([KMGT]?)i?B? hbm")
ALL = {"kind": "all"}


def predict(config: Mapping[str, Any], wanted: Slice, examples: int, classes: int) -> dict[str, Any]:
    """Returns what is known of the step of a config on a slice, as plain data.

    Args:
      examples, classes: of the training split (`find_data_size`).
    Raises:
      UserError: a mistake in the config, or no compiler for the slice.
    """
    step = make_config_step(config, make_mesh(describe_devices(wanted)), examples, classes)
    chip, arguments = wanted.chip, abstract_arguments(step)
    pools = find_pools(arguments[0])
    products = {
        inputs: count / wanted.size for inputs, count in count_products_by_inputs(step.call, *arguments).items()
    }
    prediction: dict[str, Any] = {
        "topology": wanted.name,
        "chips": wanted.size,
        "chip": {name: value for name, value in asdict(chip).items() if name != "target"},
        "batch": step.batch_size,
        "batch_a_chip": step.batch_size // wanted.size,
        "products": products,
        "held": count_held(*arguments),
        "pools": pools,
    }
    began = time.perf_counter()
    try:
        compiled = step.call.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        return prediction | {"compiles": False, **explain_failure(str(error)), "seconds": time.perf_counter() - began}
    prediction |= {"compiles": True, "seconds": time.perf_counter() - began}
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    prediction["memory"] = {
        "peak": peak_bytes(compiled) + memory.generated_code_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "of": chip.memory,
    }
    prediction["reported"] = {name: cost[name] for name in ("flops", "bytes accessed") if name in cost} if cost else {}
    return prediction | describe_text(compiled.as_text(), wanted, products, step.dtype, step.batch_size, pools)


def describe_text(
    text: str,
    wanted: Slice,
    products: Mapping[str, float],
    dtype: str,
    batch_size: int,
    pools: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Returns what the text of a compiled step tells: traffic, collectives, verdicts, kernels and the roofline.

    Args:
      products: operations on one device, by their inputs.
      dtype: of the networks.
      pools: of each pool the number of its rows, over all devices and on one.
    """
    program = Program(text)
    collectives, traffic = find_collectives(program), count_traffic(program)
    sides = (batch_size, batch_size // wanted.size)
    verdicts = judge(program, collectives, dtype=dtype, pools=pools, batch_sides=sides)
    return {
        "traffic": traffic,
        "collectives": summarise_collectives(collectives),
        "verdicts": [asdict(verdict) | {"passed": verdict.passed} for verdict in verdicts],
        "program": read_program(text),
        "roofline": estimate_step(wanted.chip, products, traffic, collectives, wanted.size),
    }


def count_held(state: State, batch: Any, tables: Any) -> dict[str, int]:
    """Returns the bytes a device that a step is given, by kind.

    Args:
      state, batch, tables: shapes with shardings.
    """
    online, target = state.online, state.target
    parts = {
        "parameters": online["params"],
        "target network": target.get("params", {}),
        "batch statistics": (online.get("batch_stats", {}), target.get("batch_stats", {})),
        "optimiser": state.optimiser,
        "pools": state.pools,
        "probe, generator and the rest": (state.step, state.carried, state.guard, state.probe, state.generator),
        "batch": batch,
        "labels and groups": tables,
    }
    return {name: size for name, part in parts.items() if (size := sum(map(_bytes_a_device, jax.tree.leaves(part))))}


def _bytes_a_device(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def find_pools(state: State) -> dict[str, tuple[int, ...]]:
    """Returns the number of rows of each pool with a state, over all devices and on one."""
    pools: dict[str, tuple[int, ...]] = {}
    for name, pool in state.pools.items():
        rows = pool.rows
        pools[name] = (rows.shape[0], rows.sharding.shard_shape(rows.shape)[0])
    return pools


def explain_failure(message: str) -> dict[str, Any]:
    """Returns the reason for which a step does not compile and, where it is memory, how much it needs and has."""
    reason = " ".join(message.split())[:400]
    if match := NEEDED.search(message):
        needed, limit = (float(match[i]) * UNITS[match[i + 1]] for i in (1, 3))
        return {"reason": "it needs more memory than a chip has", "needed": needed, "limit": limit, "message": reason}
    return {"reason": reason}


def with_whole_supports(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the config with every term scored against all candidates, or None where it is so already."""
    changed = to_plain_data(config)
    terms = [{**term, "support": ALL} for term in changed["method"]["terms"]]
    if all(_kind(term["support"]) == "all" for term in changed["method"]["terms"]):
        return None
    changed["method"] = {**changed["method"], "terms": tuple(terms)}
    return dict(changed)


def _kind(support: Any) -> str:
    return support if isinstance(support, str) else str(support["kind"])


def compare_supports(ours: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what selecting candidates costs: the terms of the roofline, peak memory and bytes sent of a step, and of
    the same step with whole supports.
    """
    shares: dict[str, Any] = {}
    for name, seconds in ours["roofline"]["seconds"].items():
        other = whole["roofline"]["seconds"][name]
        shares[name] = {"step": seconds, "whole": other, "share": (seconds - other) / seconds if seconds else 0.0}
    for name, read in {
        "peak memory": lambda p: p["memory"]["peak"],
        "bytes sent": lambda p: sum(row["sent"] for row in p["collectives"].values()),
        "launches": lambda p: p["program"]["launched"],
    }.items():
        mine, other = read(ours), read(whole)
        shares[name] = {"step": mine, "whole": other, "share": (mine - other) / mine if mine else 0.0}
    return shares


def find_data_size(config: Mapping[str, Any], examples: int | None, classes: int | None) -> tuple[int, int]:
    """Returns the number of examples of the training split and of classes: those given, or known, or the data's own.

    Raises:
      UserError: the data are not known and cannot be read.
    """
    data = config["data"]
    known = SIZES.get((data["name"].partition(":")[0].partition("/")[0], data["split"]))
    if examples is not None:
        return examples, classes if classes is not None else known[1] if known else 0
    if known is not None:
        return known[0], classes if classes is not None else known[1]
    try:
        images = sets.load_section(data)
    except UserError as error:
        raise UserError(error.what, nearest=error.nearest, fix="or give --examples=N and --classes=N") from None
    label = data["label"] or next(iter(images.labels), None)
    return len(images), len(images.classes[label]) if label else 0
