"""Run on eight virtual devices by test_streaming: a pool cut over them against the same on one, and what crosses."""

import json
import re
import sys
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import PartitionSpec as P

from mi_contrast import estimators as mi
from mi_contrast.core.mesh import make_mesh

COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter|collective-broadcast)(?:-start)?\("
)


def collectives(compiled):
    """Every collective of a compiled program: its name and the elements of its largest operand or result."""
    found = []
    for line in compiled.as_text().splitlines():
        match = COLLECTIVE.search(line)
        if match:
            shapes = re.findall(r"[a-z]+\d*\[([\d,]*)\]", match[1])
            found.append((match[2], max(prod(int(n) for n in s.split(",") if n) for s in shapes)))
    return sorted(set(found))


def nats(support, form, axis, block=None):
    def of(a, p, q, t, ids, labels, valid, pool_ids, pool_labels, key):
        return mi.contrast(
            a,
            p,
            q,
            support,
            form,
            temperature=t,
            valid=valid,
            anchor_ids=ids,
            pool_ids=pool_ids,
            anchor_labels=labels,
            pool_labels=pool_labels,
            key=key,
            block=block,
            axis_name=axis,
            pool_gradient=True,
        )

    return of


CUT, SAME = P("data"), P()
SPECS = (CUT, CUT, CUT, SAME, CUT, CUT, CUT, CUT, CUT, SAME)


def cut_over(mesh, function):
    return jax.shard_map(function, mesh=mesh, in_specs=SPECS, out_specs=CUT)


def graded(function, arguments):
    """Value and gradients to anchors, positives, pool and temperature, each anchor weighed differently."""

    def total(*x):
        found = function(*x)
        return jnp.sum(jnp.arange(len(found)) * found), found

    (_, found), slopes = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True))(*arguments)
    return found, slopes


def main():
    mesh, pair = make_mesh(), jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rng = np.random.default_rng(0)
    anchors, positives = rng.normal(size=(2, 32, 4)).astype(np.float32)
    pool = rng.normal(size=(96, 4)).astype(np.float32)
    pool[8:24] = pool[:16]  # ties, some on another device
    ids, pool_ids = np.arange(32), rng.integers(-1, 32, 96)
    labels, pool_labels = rng.integers(-1, 3, 32), rng.integers(-1, 3, 96)
    rest = (ids, labels, rng.random(96) < 0.8, pool_ids, pool_labels, jax.random.key(7))
    arguments = (anchors, positives, pool, jnp.float32(0.3), *rest)

    def error(x, y):
        return float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y)))

    worst = {}
    for name, support, form, block in (
        ("all", mi.All(), mi.Softmax(), None),
        ("ring", mi.Ring(0.5, 0.9), mi.Softmax(), 5),
        ("ring, traced", mi.Ring(jnp.float32(0.5), jnp.linspace(0.6, 1.0, 4)[3]), mi.Softmax(), None),
        ("cave", mi.Cave(0.3, 0.8), mi.Softmax("mean"), None),
        ("close", mi.Close(mi.Nearest(20)), mi.Softmax(), None),
        ("hard", mi.Ball(0.5), mi.Hard(1.0, 0.05), None),
        ("binary", mi.All(), mi.Binary(2.0, 500), None),
        ("decoupled", mi.All(), mi.Decoupled(), None),
    ):
        ours = graded(cut_over(mesh, nats(support, form, "data", block)), arguments)
        theirs = graded(nats(support, form, None), arguments)
        worst[name] = max(jax.tree.leaves(jax.tree.map(error, ours, theirs)))

    def statistics(axis):
        def of(a, p, q, t, ids, labels, valid, pool_ids, pool_labels, key):
            given = dict(valid=valid, anchor_ids=ids, pool_ids=pool_ids, labels={"class": (labels, pool_labels)})
            return mi.contrast_statistics(a, q, mi.Ring(0.4, 0.9), temperature=t, axis_name=axis, **given)

        return of

    found, one = jax.jit(cut_over(mesh, statistics("data")))(*arguments), jax.jit(statistics(None))(*arguments)
    worst["statistics"] = max(
        float(jnp.max(jnp.abs(x * 1.0 - y))) for x, y in zip(*map(jax.tree.leaves, (found, one)), strict=True)
    )

    drawn = nats(mi.Drawn(10, mi.Ring(0.2, 0.9)), mi.Softmax(), "data")
    eight, two = (graded(cut_over(m, drawn), arguments) for m in (mesh, pair))
    other = cut_over(mesh, drawn)(*arguments[:-1], jax.random.key(8))
    crossing = {
        "8 against 2": max(jax.tree.leaves(jax.tree.map(error, *(jax.device_get(x) for x in (eight, two))))),
        "spread over keys": float(jnp.abs(other - eight[0]).max()),
    }

    print(json.dumps({"devices": jax.device_count(), "worst": worst, "drawn": crossing, "collectives": crossed(mesh)}))


def crossed(mesh):
    """What crosses devices where a pool of 65,536 x 16 is cut over a mesh, and where it is gathered, the control."""
    devices = mesh.devices.size
    batch = 4 * devices
    shapes = [jax.ShapeDtypeStruct((n, 16), jnp.float32) for n in (batch, batch, 65536)]
    shapes += [jax.ShapeDtypeStruct((), jnp.float32)]
    shapes += [jax.ShapeDtypeStruct((batch,), jnp.int32)] * 2
    shapes += [jax.ShapeDtypeStruct((65536,), kind) for kind in (jnp.bool_, jnp.int32, jnp.int32)]
    shapes += [jax.eval_shape(lambda: jax.random.key(0))]
    shardings = [jax.sharding.NamedSharding(mesh, spec) for spec in SPECS]

    def lowered(function):
        def step(*x):
            return jax.grad(lambda a, p, q: jnp.sum(function(a, p, q, *x[3:])), argnums=(0, 1, 2))(*x[:3])

        return collectives(jax.jit(step, in_shardings=shardings).lower(*shapes).compile())

    def gathered(a, p, q, t, *rest):
        q = jax.lax.all_gather(q, "data", tiled=True)
        return mi.contrast(a, p, q, mi.Ring(0.9, 0.99), temperature=t)

    ours = {
        name: lowered(cut_over(mesh, nats(support, form, "data", 8)))
        for name, support, form in (
            ("ring", mi.Ring(0.9, 0.99), mi.Softmax()),
            ("cave", mi.Cave(0.9, 0.99), mi.Softmax()),
            ("drawn", mi.Drawn(64, mi.Ball(0.9)), mi.Softmax()),
            ("hard", mi.All(), mi.Hard(1.0, 0.1)),
        )
    }
    return {"anchors": batch * 16, "ours": ours, "gathered pool": lowered(cut_over(mesh, gathered))}


def on_a_topology(name):
    """The same for a TPU topology, compiled without one."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    mesh = jax.sharding.Mesh(np.array(devices), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    print(json.dumps({"devices": len(devices), "collectives": crossed(mesh)}))


if __name__ == "__main__":
    on_a_topology(sys.argv[1]) if len(sys.argv) > 1 else main()
