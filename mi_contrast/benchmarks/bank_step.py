"""Measures a step with a bank of ImageNet's size: its time, and its peak memory in multiples of the bank.

The bank has 1,281,167 rows x 128, float32, sharded over all devices. The step computes value and gradient of the ring
and cave [.90, .99) for 64 anchors, whose positives are their own rows of the bank and whose own rows are excluded from
the candidates by id. It then updates the bank, which is donated, with momentum .5. Peak memory is that of one device as
the compiled program reports it: arguments, results and temporaries, with donated arrays counted once.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from mi_contrast import estimators as mi
from mi_contrast.benchmarks.timing import spread
from mi_contrast.core.mesh import DATA, batch_sharding, make_mesh, replicated
from mi_contrast.pools import bank as banks

SUPPORTS: dict[str, Any] = {"ring": mi.Ring(0.9, 0.99), "cave": mi.Cave(0.9, 0.99)}
TEMPERATURE, MOMENTUM, BATCH = 0.07, 0.5, 64


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the peak memory of a device, in MiB and in multiples of its shard of the bank, and seconds per step."""
    examples, dim = (5000, 16) if small else (1_281_167, 128)
    mesh, seconds, mib = make_mesh(), {}, {}
    bank = banks.init_random(jax.random.key(0), jnp.ones(examples, bool), dim, mesh)
    shard_mib = bank.rows.nbytes / mesh.size / 2**20
    for name, support in SUPPORTS.items():
        program = compile_step(support, bank, mesh)
        mib[name] = peak_bytes(program.memory_analysis()) / 2**20
        seconds[name], bank = _time_steps(program, bank, repeats, mesh)
    return {
        "what": f"value, gradient and update, {BATCH} anchors, bank {examples} x {dim}, {mesh.size} devices, float32",
        "bank_mib_a_device": shard_mib,
        "peak_mib_a_device": mib,
        "peak_in_banks": {name: value / shard_mib for name, value in mib.items()},
        "seconds": {name: spread(values) for name, values in seconds.items()},
    }


def compile_step(support: Any, bank: banks.Bank, mesh: Mesh) -> Any:
    """Compiles the step: (bank, index, features) to (new bank, nats, gradients); the bank is donated."""
    spec = PartitionSpec(DATA)

    def compute_nats(features: jax.Array, positives: jax.Array, index: jax.Array, bank: banks.Bank) -> jax.Array:
        def on_shard(anchors: jax.Array, positives: jax.Array, index: jax.Array, pool: Any, ids: jax.Array) -> Any:
            masks = dict(valid=pool.valid, anchor_ids=index, pool_ids=ids, axis_name=DATA)
            return mi.contrast(anchors, positives, pool.rows, support, temperature=TEMPERATURE, **masks)

        anchors = features / jnp.linalg.norm(features, axis=1, keepdims=True)
        score = jax.shard_map(on_shard, mesh=mesh, in_specs=spec, out_specs=spec)
        return score(anchors, positives, index, bank, banks.row_ids(bank))

    def step(bank: banks.Bank, index: jax.Array, features: jax.Array) -> tuple[banks.Bank, jax.Array, jax.Array]:
        own = banks.read(bank.rows, index, mesh)

        def loss(features: jax.Array) -> tuple[jax.Array, jax.Array]:
            values = compute_nats(features, own, index, bank)
            return -jnp.mean(values), values

        gradients, values = jax.grad(loss, has_aux=True)(features)
        accept = jnp.isfinite(values).all() & jnp.isfinite(gradients).all()
        new = features / jnp.linalg.norm(features, axis=1, keepdims=True)
        return banks.write_rows(bank, new, index, MOMENTUM, mesh, accept), values, gradients

    sharded = batch_sharding(mesh)
    shapes = jax.ShapeDtypeStruct((BATCH,), jnp.int32), jax.ShapeDtypeStruct((BATCH, bank.rows.shape[1]), jnp.float32)
    jitted = jax.jit(step, in_shardings=sharded, out_shardings=(sharded, replicated(mesh), sharded), donate_argnums=0)
    return jitted.lower(bank, *shapes).compile()


def peak_bytes(memory: Any) -> int:
    """Returns the bytes of arguments, results and temporaries, with donated arrays counted once."""
    arguments_and_results = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return arguments_and_results + memory.temp_size_in_bytes


def _time_steps(program: Any, bank: banks.Bank, repeats: int, mesh: Mesh) -> tuple[list[float], banks.Bank]:
    rng, seconds = np.random.default_rng(0), []
    for _ in range(repeats + 1):
        index = rng.integers(0, int(bank.valid.sum()), BATCH).astype(np.int32)
        features = rng.normal(size=(BATCH, bank.rows.shape[1])).astype(np.float32)
        arguments = jax.device_put((index, features), batch_sharding(mesh))
        start = time.perf_counter()
        bank, nats, _ = jax.block_until_ready(program(bank, *arguments))
        seconds.append(time.perf_counter() - start)
        if not np.isfinite(nats).all():
            raise FloatingPointError("nats that are not finite")
    return seconds[1:], bank
