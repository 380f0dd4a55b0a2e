import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core import checkpoint
from mi_contrast.core.errors import UserError


@pytest.fixture
def saved(tmp_path):
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints", keep=2)
    state = {"step": jnp.int32(0), "online": {"params": {"w": jnp.arange(6.0).reshape(2, 3)}}, "probe": {}}
    for step in (3, 5, 7):
        kept.save(step, {**state, "step": jnp.int32(step)}, {"step": step})
    kept.wait()
    yield kept, state
    kept.close()


def wanted(state):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)


def test_the_newest_two_are_kept_and_the_newest_restored(saved):
    kept, state = saved
    assert sorted(p.name for p in kept.directory.iterdir()) == ["5", "7"]
    step, tree = kept.restore(wanted(state))
    assert step == 7 and int(tree["step"]) == 7
    np.testing.assert_array_equal(tree["online"]["params"]["w"], state["online"]["params"]["w"])


def test_read_gives_a_part_as_numpy(saved):
    kept, _ = saved
    step, tree = checkpoint.read(kept.directory, subtree=("online",))
    assert step == 7 and list(tree) == ["online"]
    assert isinstance(tree["online"]["params"]["w"], np.ndarray)
    assert checkpoint.read(kept.directory, 5)[0] == 5
    with pytest.raises(UserError, match="no checkpoint of step 6"):
        checkpoint.read(kept.directory, 6)
    with pytest.raises(UserError, match="did you mean 'online'"):
        checkpoint.read(kept.directory, subtree=("onlin",))


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoint.read(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: {**s, "queue": s["step"]}, "has no leaf 'queue'"),
        (lambda s: {k: v for k, v in s.items() if k != "online"}, r"has a leaf 'online\.params\.w'"),
        (lambda s: {**s, "step": jnp.zeros(2, jnp.int32)}, r"leaf 'step' is int32\[\], this config needs int32\[2\]"),
        (lambda s: {**s, "step": jnp.float32(0)}, "this config needs float32"),
    ],
)
def test_any_unmatched_leaf_refuses(saved, change, said):
    kept, state = saved
    with pytest.raises(UserError, match=said):
        kept.restore(wanted(change(state)))


def test_a_truncated_checkpoint_is_named_and_left_alone(saved):
    kept, state = saved
    files = [p for p in (kept.directory / "7").rglob("d/*") if p.is_file()]
    for file in files:
        file.write_bytes(file.read_bytes()[:20])
    for read in (lambda: kept.restore(wanted(state)), lambda: checkpoint.read(kept.directory)):
        with pytest.raises(UserError, match=r"can't be read .* to go on from step 5"):
            read()
    assert (kept.directory / "7").is_dir()


def test_saving_a_step_twice_is_our_error(saved):
    kept, state = saved
    with pytest.raises(Exception, match="7"):
        kept.save(7, state, {})
