"""A batch in parts trains as the whole batch does, holds less, and is refused where it could not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.models import towers
from mi_contrast.training import assemble
from mi_contrast.training.microbatches import divide
from tests.training import rows


def divided(name, number, norm):
    config = rows.small(name)
    config["model"]["norm"] = norm
    config["optim"]["microbatches"] = number
    return config


def same(a, b, atol):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=1e-4), a, b)


@pytest.mark.parametrize(
    ("name", "number", "norm"),
    [
        ("simclr", 2, dict(kind="batch", groups=4)),  # gradients reach the candidates, a part holds two groups
        pytest.param("ring_moco", 4, dict(kind="batch", groups=4), marks=pytest.mark.slow),  # keys by a target
        pytest.param("cmc", 2, dict(kind="batch", groups=2), marks=pytest.mark.nightly),  # two networks
        pytest.param("infoaug_simclr", 2, dict(kind="frozen", groups=1), marks=pytest.mark.nightly),  # two heads
    ],
)
def test_two_steps_in_parts_are_two_steps_of_the_whole(name, number, norm):
    (_, whole, scalars), (_, parts, of_parts) = (rows.train(divided(name, n, norm), 2) for n in (1, number))
    same(of_parts, scalars, 1e-5)
    same(parts.online["batch_stats"], whole.online["batch_stats"], 1e-5)
    # where a step of Adam is the sign of a gradient near 0, the last bits of two sums may tell it apart
    pairs = zip(jax.tree.leaves(parts.online["params"]), jax.tree.leaves(whole.online["params"]), strict=True)
    assert np.mean(np.concatenate([np.abs(a - b).ravel() > 1e-5 for a, b in pairs])) < 0.01


def test_a_part_that_would_cut_a_group_is_refused():
    for number, norm, said in (
        (2, dict(kind="batch", groups=1), "statistics are of the whole batch, which a microbatch would cut"),
        (4, dict(kind="batch", groups=2), "statistics are of 2 groups of the batch"),
        (3, dict(kind="frozen", groups=1), "is 16, not a multiple of 3"),
        (0, dict(kind="batch", groups=1), "microbatches is 0"),
    ):
        with pytest.raises(UserError, match=said):
            assemble.make_parts(assemble.check(divided("simclr", number, norm)), 10, make_mesh())


@pytest.mark.slow
def test_parts_hold_less():
    model = rows.small("simclr")["model"] | dict(width=64, norm=dict(kind="batch", groups=8))
    tower = towers.build(model)
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), (32, 32, 3)))

    def temporary(number):
        parts = divide(number, tower, model["norm"], 256, 1)

        def loss(params, images):
            given = variables_of(params)
            found = tower.encode(given, images, train=True) if parts is None else parts.encode(given, images, None)
            return jax.nn.logsumexp(found.embedding @ found.embedding.T)

        def variables_of(params):
            statistics = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), variables["batch_stats"])
            return {"params": params, "batch_stats": statistics}

        images = jax.ShapeDtypeStruct((256, 32, 32, 3), jnp.float32)
        compiled = jax.jit(jax.grad(loss)).lower(variables["params"], images).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    whole, eighths = temporary(1), temporary(8)
    assert eighths < whole / 3, (whole, eighths)
