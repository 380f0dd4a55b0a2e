"""Programs that are compiled here have the collectives that were written down."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mi_contrast.planning.hlo import OPEN_LOOP_RUNS, Program
from mi_contrast.planning.traffic import count_traffic
from tests.devices import environment

ROOT = Path(__file__).parents[2]


def test_collectives_over_eight_devices_are_those_that_were_written():
    command = [sys.executable, "-m", "tests.planning.known_programs"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment(8))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    a_device = 64 * 4 * 4 // 8  # bytes of each device's part

    def one(kind, size, sent, runs=1, open_loops=0):
        return {kind: {"count": 1, "runs": runs, "bytes": size, "sent": sent, "in_open_loops": open_loops}}

    assert found["devices"] == 8
    assert found["summed"] == one("all-reduce", a_device, a_device * 2 * 7 / 8)
    assert found["gathered"] == one("all-gather", 8 * a_device, 8 * a_device * 7 / 8)
    assert found["scattered"] == one("reduce-scatter", 8 * a_device, 8 * a_device * 7 / 8)
    assert found["moved"] == one("collective-permute", a_device, a_device)
    assert found["looped"] == one("all-reduce", 5 * a_device, 5 * a_device * 2 * 7 / 8, runs=5)
    runs = OPEN_LOOP_RUNS
    assert found["searched"] == one("all-reduce", runs * a_device, runs * a_device * 2 * 7 / 8, runs=runs, open_loops=1)
    assert found["anchors travel"] == []
    assert len(found["pool travels"]) == 1 and "as long as the pool bank" in found["pool travels"][0]


@pytest.mark.parametrize(
    "function, shapes, floats",
    [
        (lambda x, w: x @ w, [(256, 512), (512, 128)], 256 * 512 + 512 * 128 + 256 * 128),
        (lambda x: jnp.tanh(x) * 2 + x, [(256, 512)], 2 * 256 * 512),  # fused: read once and written once
    ],
)
def test_traffic_is_what_the_compiler_says_and_a_hand_counts(function, shapes, floats):
    program = jax.jit(function).lower(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)).compile()
    traffic = count_traffic(Program(program.as_text()))
    assert traffic == program.cost_analysis()["bytes accessed"] == 4 * floats


def test_traffic_of_a_loop_counts_each_time():
    matrix = jax.ShapeDtypeStruct((128, 128), jnp.float32)

    def looped(x, length):
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry @ x), None), jnp.ones((8, 128)), length=length)[0]

    text = {n: jax.jit(looped, static_argnums=1).lower(matrix, n).compile().as_text() for n in (40, 80)}
    few, many = (count_traffic(Program(text[n])) for n in (40, 80))
    assert 40 * 4 * 128 * 128 < many - few < 1.5 * 40 * 4 * (128 * 128 + 4 * 8 * 128)
