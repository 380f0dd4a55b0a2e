import errno
import json
import shutil
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core import checkpoint
from mi_contrast.core.errors import UserError

WEIGHTS = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints", keep=2)
    state = {"step": jnp.int32(0), "online": {"params": {"w": jnp.asarray(WEIGHTS)}}, "probe": {}}
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


def files_of(kept, step):
    return [p for p in (kept.directory / str(step)).rglob("*") if p.is_file()]


def truncate(kept, step):
    for file in files_of(kept, step):
        if file.parent.name == "d":
            file.write_bytes(file.read_bytes()[:20])


def flip(kept, step, place=0.5, bit=0):
    """Flips one bit of the largest data file, at that share of its length. Returns what undoes it."""
    file = max(files_of(kept, step), key=lambda p: p.stat().st_size)
    before = file.read_bytes()
    changed = bytearray(before)
    changed[int(place * len(changed))] ^= 1 << bit
    file.write_bytes(changed)
    return lambda: file.write_bytes(before)


def lose_meta(kept, step):
    shutil.rmtree(kept.directory / str(step) / "meta")


def lose_state(kept, step):
    shutil.rmtree(kept.directory / str(step) / "state")


def damage_meta(kept, step):
    path = kept.directory / str(step) / "meta" / "metadata"
    path.write_text(path.read_text().replace("checksums", "checksumt"))


def rename_leaf(kept, step):
    path = kept.directory / str(step) / "meta" / "metadata"
    path.write_text(path.read_text().replace("params.w", "params.v"))


DAMAGES = [truncate, flip, lose_meta, lose_state, damage_meta, rename_leaf]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(saved, damage, capsys):
    kept, state = saved
    damage(kept, 7)
    assert checkpoint.read(kept.directory)[0] == 5
    assert "7 is damaged" in (said := capsys.readouterr().err) and "step 5 is read" in said and said.count("\n") == 1
    assert (kept.directory / "7").is_dir()  # a reader changes nothing
    step, tree = kept.restore(wanted(state))
    assert step == 5 and int(tree["step"]) == 5
    said = capsys.readouterr().out
    assert "checkpoint of step 7 is damaged" in said and "step 5 is restored" in said and said.count("\n") == 1
    assert sorted(p.name for p in kept.directory.iterdir()) == ["5", "7.damaged"]
    kept.save(7, {**state, "step": jnp.int32(7)}, {"step": 7})
    kept.wait()
    assert kept.restore(wanted(state))[0] == 7 and capsys.readouterr().out == ""


@pytest.mark.parametrize("damage", DAMAGES)
def test_where_none_is_whole_all_are_named_and_left_alone(saved, damage):
    kept, state = saved
    for step in (5, 7):
        damage(kept, step)
    for read in (lambda: kept.restore(wanted(state)), lambda: checkpoint.read(kept.directory)):
        with pytest.raises(UserError, match=r"no checkpoint is whole: .*7 can't be read .*5 can't be read"):
            read()
    assert sorted(p.name for p in kept.directory.iterdir()) == ["5", "7"]


def test_no_flip_of_the_largest_data_file_is_silent(saved):
    kept, _ = saved
    meta = kept.directory / "7" / "meta" / "metadata"
    with_sums, silent = meta.read_text(), 0
    for at in range(20):
        undo = flip(kept, 7, at / 20, at % 8)
        try:
            tree = checkpoint.read(kept.directory, 7)[1]
        except UserError as error:
            assert "no checkpoint is whole" in str(error)
        else:  # a bit that no leaf depends on
            np.testing.assert_array_equal(tree["online"]["params"]["w"], WEIGHTS)
        meta.write_text(json.dumps({"step": 7}))  # control: without checksums, as in 0.1.0
        with suppress(UserError):
            silent += not np.array_equal(checkpoint.read(kept.directory, 7)[1]["online"]["params"]["w"], WEIGHTS)
        meta.write_text(with_sums)
        undo()
    assert silent > 10
    assert checkpoint.read(kept.directory, 7)[0] == 7


def test_another_shape_is_refused_and_no_reason_to_fall_back(saved):
    kept, state = saved
    with pytest.raises(UserError, match=r"7: leaf 'step' is int32\[\], this config needs int32\[2\]"):
        kept.restore(wanted({**state, "step": jnp.zeros(2, jnp.int32)}))
    assert sorted(p.name for p in kept.directory.iterdir()) == ["5", "7"]


def test_numbers_that_are_not_finite_are_no_damage(tmp_path):
    kept = checkpoint.Checkpoints(tmp_path / "checkpoints", keep=2)
    kept.save(1, {"w": jnp.array([jnp.nan, jnp.inf])}, {"step": 1}, wait=True)
    kept.close()
    np.testing.assert_array_equal(checkpoint.read(kept.directory)[1]["w"], [np.nan, np.inf])


def test_a_checkpoint_of_0_1_0_is_read_without_checksums(saved):
    kept, state = saved
    (kept.directory / "7" / "meta" / "metadata").write_text(json.dumps({"step": 7}))
    assert kept.restore(wanted(state))[0] == 7 and checkpoint.read(kept.directory)[0] == 7
    fixture = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "moco" / "checkpoints"
    assert checkpoint.read(fixture, subtree=("online",))[0] == 4


def test_a_save_that_was_killed_leaves_nothing_at_the_next_start(saved):
    kept, _ = saved
    half = kept.directory / "9.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    checkpoint.Checkpoints(kept.directory, keep=2).close()
    assert not half.exists() and checkpoint.latest_step(kept.directory) == 7


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("RESOURCE: write: No space left on device")]
)
def test_a_disk_that_is_full_is_one_line_and_leaves_older_ones_whole(saved, monkeypatch, error):
    kept, state = saved

    def full(*_, **__):
        (kept.directory / "9.orbax-checkpoint-tmp").mkdir()
        raise error

    monkeypatch.setattr(kept._manager, "save", full)
    with pytest.raises(UserError, match=r"can't write .*checkpoints \(No space left on device\); free some space"):
        kept.save(9, state, {"step": 9})
    kept.close()
    assert sorted(p.name for p in kept.directory.iterdir()) == ["5", "7"]
    assert checkpoint.read(kept.directory)[0] == 7


def test_saving_a_step_twice_is_our_error(saved):
    kept, state = saved
    with pytest.raises(Exception, match="7"):
        kept.save(7, state, {})
