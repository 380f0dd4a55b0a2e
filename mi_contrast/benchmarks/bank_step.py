"""A step with a bank of ImageNet's size: its peak memory, in banks, and its time.

1,281,167 rows x 128, float32, cut over the devices there are; 64 anchors whose positives are their own rows; value and
gradient of the ring and cave [.90, .99) with the own row excluded by id, then the bank's update with momentum .5, the
bank donated. Peak memory is the compiled program's own account of a device: arguments, results and temporaries, what is
donated counted once.
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
    """Peak memory of a device in MiB and in its part of the bank, and seconds a step."""
    examples, dim = (5000, 16) if small else (1_281_167, 128)
    mesh, seconds, mib = make_mesh(), {}, {}
    bank = banks.init_random(jax.random.key(0), jnp.ones(examples, bool), dim, mesh)
    part = bank.rows.nbytes / mesh.size / 2**20
    for name, support in SUPPORTS.items():
        program = compiled(support, bank, mesh)
        mib[name] = peak(program.memory_analysis()) / 2**20
        seconds[name], bank = _timed(program, bank, repeats, mesh)
    return {
        "what": f"value, gradient and update, {BATCH} anchors, bank {examples} x {dim}, {mesh.size} devices, float32",
        "bank_mib_a_device": part,
        "peak_mib_a_device": mib,
        "peak_in_banks": {name: value / part for name, value in mib.items()},
        "seconds": {name: spread(values) for name, values in seconds.items()},
    }


def compiled(support: Any, bank: banks.Bank, mesh: Mesh) -> Any:
    """The donated step's program: (bank, index, features) to (bank, nats, slopes)."""
    cut = PartitionSpec(DATA)

    def nats(features: jax.Array, positives: jax.Array, index: jax.Array, bank: banks.Bank) -> jax.Array:
        def on_shard(anchors: jax.Array, positives: jax.Array, index: jax.Array, pool: Any, ids: jax.Array) -> Any:
            given = dict(valid=pool.valid, anchor_ids=index, pool_ids=ids, axis_name=DATA)
            return mi.contrast(anchors, positives, pool.rows, support, temperature=TEMPERATURE, **given)

        anchors = features / jnp.linalg.norm(features, axis=1, keepdims=True)
        scored = jax.shard_map(on_shard, mesh=mesh, in_specs=cut, out_specs=cut)
        return scored(anchors, positives, index, bank, banks.ids(bank))

    def step(bank: banks.Bank, index: jax.Array, features: jax.Array) -> tuple[banks.Bank, jax.Array, jax.Array]:
        own = banks.read(bank.rows, index, mesh)

        def loss(features: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = nats(features, own, index, bank)
            return -jnp.mean(found), found

        slopes, found = jax.grad(loss, has_aux=True)(features)
        keep = jnp.isfinite(found).all() & jnp.isfinite(slopes).all()
        new = features / jnp.linalg.norm(features, axis=1, keepdims=True)
        return banks.update(bank, index, new, MOMENTUM, mesh, keep), found, slopes

    cuts = batch_sharding(mesh)
    shapes = jax.ShapeDtypeStruct((BATCH,), jnp.int32), jax.ShapeDtypeStruct((BATCH, bank.rows.shape[1]), jnp.float32)
    jitted = jax.jit(step, in_shardings=cuts, out_shardings=(cuts, replicated(mesh), cuts), donate_argnums=0)
    return jitted.lower(bank, *shapes).compile()


def peak(memory: Any) -> int:
    """Bytes of arguments, results and temporaries, what is donated counted once."""
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return held + memory.temp_size_in_bytes


def _timed(program: Any, bank: banks.Bank, repeats: int, mesh: Mesh) -> tuple[list[float], banks.Bank]:
    rng, seconds = np.random.default_rng(0), []
    for _ in range(repeats + 1):
        index = rng.integers(0, int(bank.valid.sum()), BATCH).astype(np.int32)
        features = rng.normal(size=(BATCH, bank.rows.shape[1])).astype(np.float32)
        given = jax.device_put((index, features), batch_sharding(mesh))
        began = time.perf_counter()
        bank, nats, _ = jax.block_until_ready(program(bank, *given))
        seconds.append(time.perf_counter() - began)
        if not np.isfinite(nats).all():
            raise FloatingPointError("nats that are not finite")
    return seconds[1:], bank
