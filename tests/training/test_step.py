"""One step: its order, its guard, and what it is on shapes alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core import schedules
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data.readers import Batch
from mi_contrast.models.towers import calibrate_statistics
from mi_contrast.pools import queue as queues
from mi_contrast.training import assemble, loop
from mi_contrast.training.candidates import Tables
from mi_contrast.training.encoding import make_crops
from mi_contrast.training.parts import init_state
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step, update_target
from tests.training import small


def tables(count=64):
    return Tables(jnp.arange(count, dtype=jnp.int32) % 10, jnp.arange(count, dtype=jnp.int32))


def batch(seed, size=32, views=2):
    draws = np.random.default_rng(seed)
    sources = draws.integers(0, 256, (size, views, 32, 32, 3), dtype=np.uint8)
    index = np.stack([draws.permutation(64)[:size] for _ in range(views)], axis=1).astype(np.int32)
    return Batch(jnp.asarray(sources), jnp.asarray(index))


def make_views(parts, step, batch):
    return parts.augmentation.divide(make_crops(parts.augmentation, parts.seed, step, batch))


def begin(**changes):
    parts = assemble.make_parts(assemble.check(small.config(**changes)), 10, make_mesh())
    images = jnp.asarray(np.random.default_rng(9).normal(size=(32, 32, 32, 3)), jnp.float32)
    return parts, loop.place(init_state(parts, images, calibrate_statistics), placement(parts.method, parts.mesh))


@pytest.fixture(scope="module")
def started():
    parts, state = begin()
    step = make_step(parts)
    copy = lambda tree: jax.tree.map(np.array, tree)  # noqa: E731 - a step's state is donated
    states, scalars = [copy(state)], []
    for at in range(3):
        state, found = step(state, batch(at), tables())
        states.append(copy(state))
        scalars.append(copy(found))
    return parts, states, scalars


def test_an_empty_queue_gives_0_nats_and_the_keys_come_after_the_loss(started):
    _, states, scalars = started
    assert scalars[0]["objective"] == 0.0 and scalars[0]["objective_ceiling"] == 0.0
    # a twelfth on: percentiles .15 to .915 of 32 valid keys are ranks 5 to 29
    assert scalars[1]["objective_ceiling"] == pytest.approx(np.log(25), rel=1e-6)
    queue = states[1].pools["queue"]
    assert int(queue.pointer) == 32 and int((queue.ids >= 0).sum()) == 32
    np.testing.assert_array_equal(queue.ids[:32], batch(0).index[:, 1])  # the key's example, not the query's


def test_keys_are_the_averaged_targets_own(started):
    parts, states, _ = started
    at = jnp.int32(1)
    target = update_target(parts.method, states[1], at)
    views = make_views(parts, at, batch(1))
    keys = jax.jit(lambda t, x: parts.tower.encode(t, x, train=True).embedding)(target, views["key"])
    np.testing.assert_allclose(states[2].pools["queue"].rows[32:64], keys, atol=2e-5)
    for slow, old, fast in zip(*(jax.tree.leaves(s.target["params"]) for s in (states[2], states[1])),
                               jax.tree.leaves(states[1].online["params"]), strict=True):  # fmt: skip
        np.testing.assert_allclose(slow, 0.99 * old + 0.01 * fast, atol=1e-6)


def test_the_target_moves_before_it_encodes_the_keys():
    """With half of the online network in it, the target before and the target after give keys that are far apart."""
    parts, state = begin(method__momentum=0.5, optim__kind="sgd", optim__lr=0.5, optim__warmup=0)
    step = make_step(parts)
    state = step(step(state, batch(0), tables())[0], batch(1), tables())[0]  # the first step has no nats to climb
    before = jax.tree.map(np.array, state)
    after, _ = step(state, batch(2), tables())
    images = make_views(parts, jnp.int32(2), batch(2))["key"]
    keys = jax.jit(lambda target: parts.tower.encode(target, images, train=True).embedding)
    queued = np.asarray(after.pools["queue"].rows)[64:96]
    np.testing.assert_allclose(queued, keys(update_target(parts.method, before, 0.0)), atol=2e-5)
    assert np.abs(queued - keys(before.target)).max() > 1e-2, "the target as it was would be seen"


def test_target_statistics_are_its_own(started):
    _, states, _ = started
    online, target = states[3].online["batch_stats"], states[3].target["batch_stats"]
    gaps = [np.abs(a - b).max() for a, b in zip(jax.tree.leaves(online), jax.tree.leaves(target), strict=True)]
    assert max(gaps) > 0


def test_a_step_that_is_not_finite_changes_nothing_but_step_and_guard(started):
    parts, states, _ = started
    step = make_step(parts)
    poisoned = jax.tree.map(jnp.asarray, states[3])
    rows = poisoned.pools["queue"].rows.at[3].set(jnp.nan)
    poisoned.pools["queue"] = queues.Queue(rows, poisoned.pools["queue"].ids, poisoned.pools["queue"].pointer)
    before = jax.tree.map(np.array, poisoned)
    after, scalars = step(loop.place(poisoned, placement(parts.method, parts.mesh)), batch(3), tables())
    assert int(scalars["bad_steps"]) == 1
    assert int(after.step) == int(before.step) + 1 and int(after.guard) == 1
    for name in ("online", "target", "optimiser", "pools", "probe"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    good, scalars = step(
        loop.place(jax.tree.map(jnp.asarray, states[3]), placement(parts.method, parts.mesh)), batch(3), tables()
    )
    assert int(scalars["bad_steps"]) == 0
    pairs = zip(jax.tree.leaves(good.online), jax.tree.leaves(states[3].online), strict=True)
    assert max(np.abs(np.asarray(a) - b).max() for a, b in pairs) > 0


def test_the_learning_rate_follows_the_step_after_skipped_ones():
    """Steps that were skipped put the optimiser's state back; the rate is the step's all the same."""
    parts, state = begin(optim__lr=schedules.step((0.1, 0.0), (0.5,)), optim__warmup=0, optim__kind="sgd")
    step, first = make_step(parts), jax.tree.map(np.array, state)
    later = loop.place(replace(first, step=np.int32(6)), placement(parts.method, parts.mesh))
    moved, scalars = step(later, batch(0), tables())
    assert float(scalars["lr"]) == 0.0
    jax.tree.map(np.testing.assert_array_equal, moved.online["params"], first.online["params"])
    earlier = loop.place(replace(first, step=np.int32(5)), placement(parts.method, parts.mesh))
    moved, scalars = step(earlier, batch(0), tables())
    assert float(scalars["lr"]) == pytest.approx(0.1)
    pairs = zip(jax.tree.leaves(moved.online["params"]), jax.tree.leaves(first.online["params"]), strict=True)
    assert max(np.abs(np.asarray(a) - b).max() for a, b in pairs) > 0, "negative control"


@pytest.mark.nightly
def test_keys_come_back_in_order_from_permuted_groups():
    """With frozen statistics groups can't matter, so permuting there and back must change nothing."""
    parts, state = begin(model__norm={"kind": "frozen"})
    images = make_views(parts, jnp.int32(0), batch(0))["key"]
    plainly = parts.encoder.encode_keys(state.target, "key", images).embedding
    permuted = replace(parts.encoder, batch_norm_groups=4).encode_keys(state.target, "key", images).embedding
    np.testing.assert_allclose(permuted, plainly, atol=1e-5)
    grouped, state = begin(model__norm={"kind": "batch", "groups": 4})
    one, state_one = begin()
    assert grouped.encoder.batch_norm_groups == 4
    a = grouped.encoder.encode_keys(state.target, "key", images).embedding
    b = one.encoder.encode_keys(state_one.target, "key", images).embedding
    assert np.abs(a - b).max() > 1e-4  # a group's statistics are not the batch's


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ring_moco", "moco", "ball_moco"])
def test_imagenet_compiles_on_shapes(name):
    config = to_plain_data(load_config(f"configs/{name}.py:imagenet")[0])
    assert config["method"]["pools"]["queue"]["size"] == 65536
    config["data"]["batch"] = 16  # the program is the same but for this number; a laptop compiles it
    config["model"]["norm"]["groups"] = 2
    parts = assemble.make_parts(assemble.check(config), 1000, make_mesh())
    images = jax.ShapeDtypeStruct((16, 224, 224, 3), jnp.float32)
    state = jax.eval_shape(lambda x: init_state(parts, x, calibrate_statistics), images)
    of = jax.ShapeDtypeStruct
    shapes = Batch(of((16, 1, 256, 256, 3), jnp.uint8), of((16, 1), jnp.int32))
    known = Tables(of((1281167,), jnp.int32), of((1281167,), jnp.int32))
    lowered = make_step(parts).lower(state, shapes, known)
    if name == "ring_moco":
        assert lowered.compile().memory_analysis().argument_size_in_bytes > 65536 * 128 * 4
