"""Compiles programs of known collectives for 8 devices, and prints what is read from them as JSON."""

import json
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from mi_contrast.core.mesh import DATA, batch_sharding, make_mesh
from mi_contrast.planning.collectives import find_collectives, find_pool_sized, summarise_collectives
from mi_contrast.planning.hlo import Program

MESH = make_mesh()
CUT, WHOLE = PartitionSpec(DATA), PartitionSpec()
ROWS, DIM, BATCH = 4096, 16, 64


def compile_on_devices(function, out, *shapes):
    mapped = jax.shard_map(function, mesh=MESH, in_specs=CUT, out_specs=out, check_vma=False)
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=batch_sharding(MESH)) for shape in shapes]
    return jax.jit(mapped).lower(*shapes).compile().as_text()


def summed(x):
    return lax.psum(x, DATA)


def gathered(x):
    return lax.all_gather(x, DATA, tiled=True)


def scattered(x):
    return lax.psum_scatter(x, DATA, tiled=True)


def moved(x):
    return lax.ppermute(x, DATA, [(i, (i + 1) % 8) for i in range(8)])


def looped(x):
    return lax.scan(lambda carry, _: (jnp.sin(lax.psum(carry, DATA)), None), x, length=5)[0]


def searched(x):
    unfinished = lambda state: jnp.max(state) < 1e6  # noqa: E731
    return lax.while_loop(unfinished, lambda state: 2 * lax.pmax(state, DATA), x)


def score(anchors, pool, gather_pool):
    """Anchors travel to the pool's rows or, as they must not, the pool to the anchors."""
    if gather_pool:
        return jnp.sum(anchors @ gathered(pool).T, axis=1)
    return scattered(jnp.sum(gathered(anchors) @ pool.T, axis=1))


PROGRAMS = {
    "summed": (summed, WHOLE, (64, 4)),
    "gathered": (gathered, WHOLE, (64, 4)),
    "scattered": (scattered, CUT, (64 * 8, 4)),
    "moved": (moved, CUT, (64, 4)),
    "looped": (looped, WHOLE, (64, 4)),
    "searched": (searched, WHOLE, (64, 4)),
}


def main():
    found = {
        name: summarise_collectives(find_collectives(Program(compile_on_devices(*one))))
        for name, one in PROGRAMS.items()
    }
    pools = {"bank": (ROWS, ROWS // 8)}
    for name, gather_pool in (("anchors travel", False), ("pool travels", True)):
        text = compile_on_devices(partial(score, gather_pool=gather_pool), CUT, (BATCH, DIM), (ROWS, DIM))
        found[name] = find_pool_sized(find_collectives(Program(text)), pools, (BATCH, BATCH // 8))
    found["devices"] = Program(text).devices
    print(json.dumps(found))


if __name__ == "__main__":
    main()
