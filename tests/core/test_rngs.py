import jax
import numpy as np

from mi_contrast.core import rngs


def test_streams_have_their_numbers_for_ever():
    assert rngs.STREAMS == {
        "init": 0, "permutation": 1, "partner": 2, "views": 3, "support": 4, "batch_norm": 5, "probe": 6, "pools": 7,
        "held_out": 8, "generator": 9,
    }  # fmt: skip


def test_an_examples_key_depends_on_seed_step_and_position_alone():
    whole = jax.random.key_data(rngs.example_rngs(3, 5, np.arange(8)))
    half = jax.random.key_data(rngs.example_rngs(3, 5, np.arange(4, 8)))
    np.testing.assert_array_equal(whole[4:], half)
    others = [rngs.example_rngs(seed, step, np.arange(8)) for seed, step in ((3, 5), (4, 5), (3, 6))]
    data = np.concatenate([jax.random.key_data(k) for k in others])
    assert len(np.unique(data, axis=0)) == 24


def test_streams_of_a_key_differ():
    key = jax.random.key(0)
    data = {tuple(np.asarray(jax.random.key_data(rngs.stream_rng(key, name)))) for name in rngs.STREAMS}
    assert len(data) == len(rngs.STREAMS)
    assert tuple(np.asarray(jax.random.key_data(key))) not in data
