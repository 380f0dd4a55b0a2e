import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.estimators.blocks import map_blocks, sum_blocks


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 10])
def test_blocks_change_nothing(block):
    x = jnp.arange(14).reshape(7, 2)
    seen = []

    def double(part):
        seen.append(part["x"].shape[0])
        return {"double": 2 * part["x"], "first": part["x"][:, 0]}

    found = jax.jit(lambda x: map_blocks(double, {"x": x}, block))(x)
    np.testing.assert_array_equal(found["double"], 2 * x)
    np.testing.assert_array_equal(found["first"], x[:, 0])
    assert set(seen) == {min(block, 7)}
    total = jax.jit(lambda x: sum_blocks(lambda part, once: jnp.sum(part * once[:, None], axis=0), x, block))(x)
    np.testing.assert_array_equal(total, np.sum(x, axis=0))
