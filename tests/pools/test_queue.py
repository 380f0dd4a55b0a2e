"""The queue against a plain Python list, under random sequences of batches that need not divide its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.pools import queue as queues

push = jax.jit(queues.push)


def model_push(rows, ids, pointer, keys, key_ids):
    """The same in plain Python: one key at a time."""
    for key, key_id in zip(keys, key_ids, strict=True):
        rows[pointer], ids[pointer] = key, key_id
        pointer = (pointer + 1) % len(ids)
    return pointer


@settings(deadline=None, max_examples=25)
@given(size=st.sampled_from([3, 7]), batches=st.lists(st.sampled_from([1, 2, 3, 5, 9]), max_size=6))
def test_queue_equals_a_plain_ring_buffer(size, batches):
    queue = queues.make_empty_queue(size, 2)
    rows, ids, pointer = [[0.0, 0.0] for _ in range(size)], [-1] * size, 0
    written = 0
    for batch in batches:
        key_ids = np.arange(written, written + batch, dtype=np.int32)
        keys = np.stack([key_ids + 0.5, -key_ids], axis=1).astype(np.float32)
        queue = push(queue, keys, key_ids)
        pointer = model_push(rows, ids, pointer, keys.tolist(), key_ids.tolist())
        written += batch
        np.testing.assert_array_equal(queue.rows, np.array(rows, np.float32))
        np.testing.assert_array_equal(queue.ids, ids)
        assert int(queue.pointer) == pointer
        assert float(queues.fill_fraction(queue)) == pytest.approx(min(written, size) / size)


def test_a_refused_batch_changes_nothing():
    queue = push(queues.make_empty_queue(5, 2), jnp.ones((3, 2)), jnp.arange(3, dtype=jnp.int32))
    after = push(queue, jnp.full((4, 2), jnp.nan), jnp.arange(4, dtype=jnp.int32), jnp.array(False))
    jax.tree.map(np.testing.assert_array_equal, after, queue)
    control = push(queue, jnp.full((4, 2), jnp.nan), jnp.arange(4, dtype=jnp.int32), jnp.array(True))
    assert np.isnan(control.rows).any()


def test_unwritten_rows_are_invalid():
    queue = push(queues.make_empty_queue(5, 2), jnp.ones((3, 2)), jnp.arange(3, dtype=jnp.int32))
    np.testing.assert_array_equal(queues.is_written(queue), [True, True, True, False, False])
