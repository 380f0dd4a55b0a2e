"""Readers against a model of the order in plain Python; resident, streamed, eight devices, two processes: one batch."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data.pairing import draw_partner, make_pairing
from mi_contrast.data.readers import Resident, Streamed, make_reader
from tests import devices as virtual
from tests.data.toys import tell_index, toy_set

COUNT, SEED = 40, 5
MEMBERS = np.arange(3, COUNT, dtype=np.int32)  # 37 of them: 4 batches of 8, 5 left over


def paired_set():
    digit, clip = np.arange(COUNT, dtype=np.int32) // 10, np.arange(COUNT, dtype=np.int32) // 5
    return toy_set(COUNT, factors={"digit": digit, "clip": clip})


def reader(resident, shared=(), images=None, **changes):
    how = {"batch_size": 8, "seed": SEED, "shared": shared, "mesh": make_mesh(), "resident": resident} | changes
    return make_reader(paired_set() if images is None else images, MEMBERS, **how)


def model(step, shared, order="epochs"):
    """Who is in a step, [8, V], by the rule in words."""
    if order == "epochs":
        epoch, at = divmod(step, len(MEMBERS) // 8)
        bits = np.random.PCG64(np.random.SeedSequence((3, 1, SEED, epoch))).random_raw(len(MEMBERS))
        places = sorted(range(len(MEMBERS)), key=lambda i: int(bits[i]))[8 * at : 8 * at + 8]
    else:
        bits = np.random.PCG64(np.random.SeedSequence((4, 1, SEED, step, 1))).random_raw(1000)
        places = list(dict.fromkeys(int(x) % len(MEMBERS) for x in bits))[:8]
    anchors = [int(MEMBERS[i]) for i in places]
    if not shared:
        return [[a] for a in anchors]
    pairing, rows = make_pairing(paired_set(), MEMBERS, shared), []
    for position, anchor in enumerate(anchors):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), step), position)
        rows.append([anchor, int(draw_partner(pairing, anchor, jax.random.fold_in(key, 2)))])
    return rows


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("shared", "order"), [((), "epochs"), (("digit",), "epochs"), ((), "draws")])
def test_batches_follow_the_model(resident, shared, order):
    with reader(resident, shared, order=order) as batches:
        assert isinstance(batches, Resident if resident else Streamed) and batches.steps_per_epoch == 4
        for step in (0, 1, 2, 3, 4, 9, 2, 1000):  # on, across an epoch, back and far ahead
            batch = batches.batch(step)
            expected = np.array(model(step, shared, order))
            assert np.array_equal(batch.index, expected) and batch.index.dtype == np.int32
            assert np.array_equal(batch.sources, tell_index(expected.ravel()).reshape(8, -1, 4, 4, 3))
            assert batch.sources.dtype == np.uint8 and batch.sources.sharding.spec == PartitionSpec("data")


@pytest.mark.parametrize("resident", [True, False])
def test_words_of_partners_change_the_second_image_alone(resident):
    own = np.arange(COUNT, dtype=np.int32)
    twins = np.where(own < 3, own, COUNT + 2 - own).astype(np.int32)  # backwards among the members
    images = replace(paired_set(), partners={"twin": twins, "self": own})
    with (
        reader(resident, images=images, partner="twin") as one,
        reader(resident, images=images, partner="self") as other,
    ):
        for step in (0, 3, 9):
            index, same = np.asarray(one.batch(step).index), np.asarray(other.batch(step).index)
            first = np.array(model(step, ()))[:, 0]
            np.testing.assert_array_equal(index, np.stack([first, twins[first]], axis=1))
            np.testing.assert_array_equal(same, np.stack([first, first], axis=1))
            expected = tell_index(index.ravel()).reshape(8, 2, 4, 4, 3)
            np.testing.assert_array_equal(one.batch(step).sources, expected)


def test_an_epoch_sees_members_once_and_the_next_another_order():
    with reader(True) as batches:
        epochs = [np.concatenate([batches.batch(4 * e + i).index[:, 0] for i in range(4)]) for e in range(2)]
    for seen in epochs:
        assert len(set(seen.tolist())) == 32 and set(seen.tolist()) <= set(MEMBERS.tolist())
    assert epochs[0].tolist() != epochs[1].tolist()


def test_another_seed_is_another_order():
    with reader(True) as one, reader(True, seed=SEED + 1) as other:
        assert not np.array_equal(one.batch(0).index, other.batch(0).index)


def test_the_size_decides_which_reader():
    assert isinstance(reader(None), Resident)
    large = replace(paired_set(), image_shape=(4096, 8192, 3))
    assert isinstance(reader(None, images=large), Streamed)


@pytest.mark.slow
def test_both_read_the_embedded_set_alike(digits):
    made = [
        make_reader(
            digits, np.arange(10, 290), batch_size=32, seed=1, shared=("digit",), mesh=make_mesh(), resident=resident
        )
        for resident in (True, False)
    ]
    with made[0] as resident, made[1] as streamed:
        for step in (0, 8, 9):
            one, other = resident.batch(step), streamed.batch(step)
            assert np.array_equal(one.index, other.index) and np.array_equal(one.sources, other.sources)
            assert (digits.groups[one.index[:, 0]] == digits.groups[one.index[:, 1]]).all()
            assert np.array_equal(one.sources[:, 1], digits.images(one.index[:, 1]))


def test_streams_ahead_of_the_step():
    asked = []

    def read(indices):
        asked.append(len(indices))
        return tell_index(indices)

    with reader(False, images=replace(paired_set(), read=read)) as batches:
        batches.batch(0)
        deadline = time.monotonic() + 20
        while len(asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(asked) >= 3  # steps 1 and 2 as well, unasked
        time.sleep(0.2)
        assert len(asked) <= 2 + 2 * (os.cpu_count() or 1)  # and no more than a few


def test_a_bad_image_is_named_and_the_reader_lives_on():
    bad = model(2, ())[3][0]

    def read(indices):
        if bad in indices:
            raise UserError(f"example {bad}: not a readable image")
        return tell_index(indices)

    with reader(False, images=replace(paired_set(), read=read)) as batches:
        batches.batch(1)
        for _ in range(2):
            with pytest.raises(UserError, match=f"example {bad}: not a readable image"):
                batches.batch(2)
        assert np.array_equal(batches.batch(3).index, model(3, ()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 38}, "batch 38 is larger than the 37 examples of toy train; give another data.batch"),
        ({"batch_size": 0}, "batch 0 is empty"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": 2**32}, "seed 4294967296 is out of range"),
        ({"shared": ("digits",)}, "unknown factor of toy 'digits'; did you mean 'digit'"),
    ],
)
def test_a_wrong_argument_is_one_line(changes, said):
    with pytest.raises(UserError, match=said):
        reader(True, **changes)


def test_a_whole_batch_and_the_largest_seed():
    with reader(True, batch_size=37, seed=2**32 - 1) as batches:
        assert batches.steps_per_epoch == 1 and sorted(batches.batch(7).index[:, 0].tolist()) == MEMBERS.tolist()


# What other devices and processes read: the digest of their batches, printed by a process that has them.
ELSEWHERE = """
import json, sys
import jax
rank = int(sys.argv[1])
if rank >= 0:
    jax.distributed.initialize(sys.argv[2], 2, rank)
from tests.data.test_readers import digests, collectives
print(json.dumps({"devices": jax.device_count(), "digests": digests(), "collectives": collectives()}))
"""


def digests():
    """sha256 of each of this process's shards, in the order of positions, of three steps of both readers."""
    found = []
    for resident in (True, False):
        with reader(resident, ("digit",)) as batches:
            for step in (0, 3, 6):
                shards = [
                    {s.index[0].start or 0: np.asarray(s.data) for s in leaf.addressable_shards}
                    for leaf in batches.batch(step)
                ]
                sources, index = (np.concatenate([of[at] for at in sorted(of)]) for of in shards)
                rows = zip(index, sources, strict=True)
                found.append([hashlib.sha256(i.tobytes() + s.tobytes()).hexdigest() for i, s in rows])
    return found


def collectives():
    """How many collectives the resident reader's gather has."""
    with reader(True, ("digit",)) as batches:
        arguments = batches._tables, batches.sampler.anchors(0), np.int32(0)
        if jax.process_count() > 1:
            return 0
        text = batches._gather.lower(*arguments).compile().as_text()
    return sum(text.count(word) for word in ("all-gather", "all-reduce", "collective-permute", "all-to-all"))


def elsewhere(devices=1, rank=-1, address=""):
    command = [sys.executable, "-c", ELSEWHERE, str(rank), address]
    return subprocess.Popen(command, env=virtual.environment(devices), stdout=-1, stderr=-1, text=True)


def said(job):
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
def test_eight_devices_read_what_one_reads():
    found = said(elsewhere(devices=8))
    assert found["devices"] == 8 and found["digests"] == digests() and found["collectives"] == 0
    assert found["digests"][0] != found["digests"][1]  # control: the digest sees another step


def test_a_batch_that_devices_cannot_share():
    three = SimpleNamespace(shape={"data": 3})
    with pytest.raises(UserError, match="batch 8 is not a multiple of the mesh's 3 devices"):
        reader(True, mesh=three)


@pytest.mark.slow
def test_two_processes_hold_the_two_halves():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    jobs = [elsewhere(rank=rank, address=address) for rank in range(2)]
    halves = [said(job)["digests"] for job in jobs]
    assert [a + b for a, b in zip(*halves, strict=True)] == digests()
