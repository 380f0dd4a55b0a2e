"""The bank against a plain Python model, on one device and on eight, and what its programs copy and send."""

import functools
import json
import re
import subprocess
import sys
from math import prod

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import batch_sharding, make_mesh, replicated
from mi_contrast.pools import bank as banks
from tests import devices

MESH = make_mesh()
EXAMPLES, DIM = 1500, 3
HELD_OUT = np.array([2, 7, 1499])
VALID = ~np.isin(np.arange(EXAMPLES), HELD_OUT)
random = functools.partial(banks.init_random, jax.random.key(3), VALID, DIM)
write_rows = jax.jit(banks.write_rows, static_argnums=4)
read = jax.jit(banks.read, static_argnums=2)


def model_update(rows, valid, index, embeddings, momentum, keep):
    """The same in plain Python, in float64: each example's last embedding, blended with the row as it was before."""
    before = {i: list(rows[i]) for i in index if 0 <= i < len(rows)}
    for i, new in zip(index, embeddings, strict=True):
        if not keep or i not in before or not valid[i]:
            continue
        blend = [momentum * o + (1 - momentum) * n for o, n in zip(before[i], new, strict=True)]
        norm = sum(x * x for x in blend) ** 0.5
        rows[i] = [x / norm for x in blend] if norm else before[i]


def batches(seed, count):
    """Random batches: few different examples, so that most batches repeat some; -1, held-out ones and padding too."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        size = int(rng.choice([1, 6, 13]))
        index = rng.choice([-1, 0, 1, 2, 3, 1023, 1024, 1499, 1500, 2047, 2048], size).astype(np.int32)
        embeddings = rng.normal(size=(size, DIM)).astype(np.float32)
        embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
        yield index, embeddings, float(rng.choice([0, 0.5])), bool(rng.random() < 0.8)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**20), count=st.integers(1, 6))
def test_bank_equals_a_plain_model(seed, count):
    bank = random(MESH)
    rows, valid = np.asarray(bank.rows).astype(float).tolist(), np.asarray(bank.valid)
    for index, embeddings, momentum, keep in batches(seed, count):
        before = np.asarray(bank.rows)
        found = read(bank.rows, index, MESH)
        inside = (index >= 0) & (index < len(valid))
        np.testing.assert_array_equal(found, np.where(inside[:, None], before[np.where(inside, index, 0)], 0))
        bank = write_rows(bank, embeddings, index, momentum, MESH, keep)
        model_update(rows, valid, index.tolist(), embeddings.tolist(), momentum, keep)
        np.testing.assert_allclose(bank.rows, rows, atol=3e-7)
        np.testing.assert_array_equal(bank.valid, valid)
        others = np.setdiff1d(np.arange(len(valid)), index if keep else [])
        np.testing.assert_array_equal(np.asarray(bank.rows)[others], before[others])
    norms = np.linalg.norm(np.asarray(bank.rows), axis=1)
    np.testing.assert_allclose(norms, valid, atol=3e-7)  # 1, and 0 where not valid


def test_the_last_of_an_example_is_written_blended_with_the_old_row():
    bank = random(MESH)
    index, new = np.array([5, 9, 5], np.int32), np.eye(3, dtype=np.float32)
    old = np.asarray(bank.rows, np.float64)
    for momentum in (0.0, 0.5, 0.9):
        after = np.asarray(write_rows(bank, new, index, momentum, MESH).rows)
        for i, k in ((5, 2), (9, 1)):
            blend = momentum * old[i] + (1 - momentum) * new[k]
            np.testing.assert_allclose(after[i], blend / np.linalg.norm(blend), atol=3e-7)
    np.testing.assert_array_equal(write_rows(bank, new, index, 0.0, MESH).rows[5], new[2])


def test_a_refused_batch_changes_no_bit_and_a_blend_of_zero_keeps_the_old_row():
    bank = random(MESH)
    index, bad = np.arange(4, dtype=np.int32), np.full((4, DIM), np.nan, np.float32)
    jax.tree.map(np.testing.assert_array_equal, write_rows(bank, bad, index, 0.5, MESH, False), bank)
    control = np.asarray(write_rows(bank, bad, index, 0.5, MESH, True).rows)
    assert np.isnan(control[[0, 1, 3]]).all() and not np.isnan(control[2]).any()  # 2 is held out
    opposite = -np.asarray(bank.rows[:4])
    np.testing.assert_array_equal(write_rows(bank, opposite, index, 0.5, MESH).rows, bank.rows)


def test_random_rows():
    bank = random(MESH)
    rows, valid = np.asarray(bank.rows), np.asarray(bank.valid)
    assert rows.shape == (2048, DIM) and rows.dtype == np.float32
    np.testing.assert_array_equal(np.flatnonzero(~valid), [*HELD_OUT, *range(EXAMPLES, 2048)])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), valid, atol=3e-7)
    assert len(np.unique(rows[valid], axis=0)) == valid.sum()
    assert np.abs(rows[valid].mean(axis=0)).max() < 4 * (3 * valid.sum()) ** -0.5  # of no direction
    other = banks.init_random(jax.random.key(4), VALID, DIM, MESH)
    assert (np.asarray(other.rows) != rows)[valid].all()
    drawn = jax.random.uniform(jax.random.fold_in(jax.random.key(3), 1200), (DIM,), minval=-1.0, maxval=1.0)
    np.testing.assert_allclose(rows[1200], drawn / np.linalg.norm(drawn), atol=1e-6)  # of a cube, and of its index


def test_a_bank_from_one_forward_pass():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(EXAMPLES, DIM)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    bank = random(MESH)
    for start in range(0, EXAMPLES, 700):
        index = np.full(700, -1, np.int32)  # the last chunk is short
        chunk = np.zeros((700, DIM), np.float32)
        part = np.arange(start, min(start + 700, EXAMPLES))
        index[: len(part)], chunk[: len(part)] = part, features[part]
        bank = write_rows(bank, chunk, index, 0.0, MESH)
    np.testing.assert_allclose(bank.rows[:EXAMPLES], features * VALID[:, None], atol=1e-6)
    assert not np.asarray(bank.rows[EXAMPLES:]).any()


def test_bfloat16_embeddings_are_stored_in_float32():
    new = jnp.array([[0.6, 0.8, 0.0]], jnp.bfloat16)
    row = write_rows(random(MESH), new, np.array([0], np.int32), 0.0, MESH).rows[0]
    assert row.dtype == jnp.float32 and abs(float(jnp.linalg.norm(row)) - 1) < 1e-6


def test_ids_say_which_row_is_whose():
    bank = random(MESH)
    np.testing.assert_array_equal(banks.row_ids(bank), np.arange(2048))
    assert banks.row_ids(bank).dtype == jnp.int32
    assert [banks.padded_size(n) for n in (1, 1024, 1025, 50_000)] == [1024, 1024, 2048, 50_176]


def test_reading_writes_nothing():
    bank = random(MESH)
    before = np.array(bank.rows).tobytes()
    jax.block_until_ready(read(bank.rows, np.arange(40, dtype=np.int32), MESH))
    assert np.array(bank.rows).tobytes() == before


def test_checkpoint_round_trip_bit_for_bit():
    bank = write_rows(random(MESH), np.ones((1, DIM), np.float32), np.array([4], np.int32), 0.5, MESH)
    packed = flax.serialization.msgpack_serialize(jax.device_get(flax.serialization.to_state_dict(bank)))
    blank = banks.init_random(jax.random.key(9), np.ones(EXAMPLES, bool), DIM, MESH)
    back = flax.serialization.from_state_dict(blank, flax.serialization.msgpack_restore(packed))
    for saved, found in zip(jax.tree.leaves(bank), jax.tree.leaves(back), strict=True):
        assert np.asarray(saved).tobytes() == np.asarray(found).tobytes() and saved.dtype == found.dtype


ONE, INDEX, NEW = np.ones(5, bool), np.zeros(4, np.int32), np.zeros((4, DIM), np.float32)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda b: banks.write_rows(b, NEW[:3], INDEX, 0.0, MESH), r"embeddings \[3, 3\].*want \[4, 3\]"),
        (lambda b: banks.write_rows(b, NEW[:, :2], INDEX, 0.0, MESH), r"embeddings \[4, 2\]"),
        (lambda b: banks.write_rows(b, NEW, INDEX, 1.5, MESH), "momentum 1.5"),
        (lambda b: banks.write_rows(b, NEW, INDEX, -0.1, MESH), "momentum -0.1"),
        (lambda b: banks.write_rows(b, NEW, INDEX, float("nan"), MESH), "momentum nan"),
        (lambda b: banks.write_rows(b, NEW, INDEX.astype(np.float32), 0.0, MESH), "indices float32"),
        (lambda b: banks.read(b.rows, INDEX[:, None], MESH), r"indices int32\[4, 1\]"),
        (lambda b: banks.init_random(jax.random.key(0), ONE[:0], DIM, MESH), r"a bank of \[0\]"),
        (lambda b: banks.init_random(jax.random.key(0), ONE, 0, MESH), r"a bank of \[5\] examples x 0"),
    ],
)
def test_mistakes_are_said(call, says):
    with pytest.raises(UserError, match=says):
        call(random(MESH))


# --- what the programs copy and send ---

SIZE, WIDTH, BATCH = 65536, 16, 32
COLLECTIVE = re.compile(r"= (.*?) (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(")


def compiled(function, mesh, donate=True):
    """The program of (rows, valid, index, embeddings, keep), the batch cut over the mesh."""
    shapes = (((SIZE, WIDTH), "float32"), ((SIZE,), "bool"), ((BATCH,), "int32"), ((BATCH, WIDTH), "float32"))
    cut, same = batch_sharding(mesh), replicated(mesh)
    jitted = jax.jit(function, in_shardings=(*[cut] * 4, same), donate_argnums=(0, 1) if donate else ())
    return jitted.lower(*(jax.ShapeDtypeStruct(*s) for s in shapes), jax.ShapeDtypeStruct((), "bool")).compile()


def step(mesh):
    """As a training step: rows read, the bank scored with a gradient, and an update where all is finite."""

    def of(rows, valid, index, embeddings, keep):
        own = banks.read(rows, index, mesh)
        loss, slope = jax.value_and_grad(lambda x: jnp.sum(jnp.tanh(x @ rows.T)) - jnp.sum(x * own))(embeddings)
        keep &= jnp.isfinite(loss) & jnp.isfinite(slope).all()
        return banks.write_rows(banks.Bank(rows, valid), embeddings, index, 0.5, mesh, keep), loss, slope

    return of


def alone(mesh):
    def of(rows, valid, index, embeddings, keep):
        own = banks.read(rows, index, mesh)
        keep &= jnp.isfinite(own).all()
        return banks.write_rows(banks.Bank(rows, valid), embeddings, index, 0.5, mesh, keep), own

    return of


def copies(program, rows):
    """How often the program copies this device's rows, whole."""
    return len(re.findall(rf"= f32\[{rows},{WIDTH}\]\S* copy(?:-start)?\(", program.as_text()))


def largest_sent(program):
    """Elements of the largest operand or result of any collective."""
    sent = [found[1] for found in map(COLLECTIVE.search, program.as_text().splitlines()) if found]
    shapes = re.findall(r"[a-z]+\d+\[([\d,]*)\]", " ".join(sent))
    return max((prod(int(n) for n in s.split(",") if n) for s in shapes), default=0)


@pytest.mark.parametrize("function", [alone, step])
def test_a_donated_bank_is_written_in_place(function):
    program = compiled(function(MESH), MESH)
    assert copies(program, SIZE) == 0
    memory = program.memory_analysis()
    assert memory.alias_size_in_bytes >= SIZE * WIDTH * 4
    if function is alone:
        assert memory.temp_size_in_bytes < SIZE * WIDTH  # a quarter of the rows
    control = compiled(function(MESH), MESH, donate=False)
    assert copies(control, SIZE) == 1 and control.memory_analysis().alias_size_in_bytes == 0


def on_eight():
    """Run on eight virtual devices: the sequence of batches on them, the rows' places, and what crosses."""
    mesh = make_mesh()
    bank, reads = random(mesh), []
    for index, embeddings, momentum, keep in batches(11, 12):
        reads.append(read(bank.rows, index, mesh))
        bank = write_rows(bank, embeddings, index, momentum, mesh, keep)

    def gathered(rows, valid, index, embeddings, keep):
        whole = jax.lax.with_sharding_constraint(rows, replicated(mesh))
        return whole[index], rows

    ours, control = compiled(alone(mesh), mesh), compiled(gathered, mesh)
    with pytest.raises(UserError, match="2048 rows over 3 devices; use a number of devices that divides 1024"):
        random(make_mesh(jax.devices()[:3]))
    return {
        "rows": np.asarray(bank.rows).tolist(),
        "reads": [np.asarray(x).tolist() for x in reads],
        "shards": [list(x.data.shape) for x in bank.rows.addressable_shards],
        "copies": copies(ours, SIZE // 8),
        "temporaries": ours.memory_analysis().temp_size_in_bytes,
        "sent": largest_sent(ours),
        "sent if gathered": largest_sent(control),
    }


@pytest.mark.slow
def test_eight_devices_equal_one_and_send_only_the_batch():
    environment = devices.environment(8)
    code = (
        "import json, jax; assert len(jax.devices()) == 8\n"
        "from tests.pools.test_bank import on_eight; print(json.dumps(on_eight()))"
    )
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    seen = json.loads(out.stdout)
    bank = random(MESH)
    for (index, embeddings, momentum, keep), found in zip(batches(11, 12), seen["reads"], strict=True):
        np.testing.assert_allclose(found, read(bank.rows, index, MESH), atol=2e-7)
        bank = write_rows(bank, embeddings, index, momentum, MESH, keep)
    np.testing.assert_allclose(seen["rows"], bank.rows, atol=2e-7)
    assert seen["shards"] == [[256, DIM]] * 8
    assert seen["copies"] == 0 and seen["temporaries"] < SIZE // 8 * WIDTH * 4
    assert 0 < seen["sent"] <= BATCH * WIDTH < seen["sent if gathered"]
