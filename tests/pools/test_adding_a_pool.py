"""Adding a pool takes one file and one line, shown by a bank whose rows grow old."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.checks import check_whole
from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import batch_sharding, make_mesh
from mi_contrast.core.schedules import Progress
from mi_contrast.data.readers import Batch
from mi_contrast.methods import method as methods
from mi_contrast.methods.skeletons import make_bank_method
from mi_contrast.models.towers import TowerOutput
from mi_contrast.pools import kinds
from mi_contrast.pools.bank import Bank, BankPool
from mi_contrast.training.candidates import StepContext, Tables, find_candidates, init_pool_states, update_pool_states
from mi_contrast.training.encoding import Encodings
from mi_contrast.training.state import placement
from tests.training import rows

# The file


@flax.struct.dataclass
class AgedBank:
    """A bank, and for each row the number of steps since it was written, int32 [R]."""

    rows: jax.Array
    valid: jax.Array
    age: jax.Array


@dataclass(frozen=True)
class AgedBankPool(BankPool):
    """A bank whose rows are candidates only while they are at most `max_age` steps old."""

    max_age: int = 100

    def check(self, where):
        super().check(where)
        check_whole(f"{where}.max_age", self.max_age, 0)

    def init(self, rng, train_mask, dim, mesh):
        bank = super().init(rng, train_mask, dim, mesh)
        return AgedBank(bank.rows, bank.valid, jnp.zeros(len(bank.valid), jnp.int32))

    def candidates(self, state, batch, labels):
        return replace(super().candidates(state, batch, labels), valid=state.valid & (state.age <= self.max_age))

    def update(self, state, embeddings, ids, progress, accept, mesh):
        bank = super().update(Bank(state.rows, state.valid), embeddings, ids, progress, accept, mesh)
        age = (state.age + 1).at[ids].set(0)
        return AgedBank(bank.rows, bank.valid, jnp.where(accept, age, state.age))


# The line


@pytest.fixture(autouse=True)
def table(monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "aged_bank", AgedBankPool)


MESH, TRAINED, BATCH = make_mesh(), np.arange(64) < 60, 16


def method(**settings):
    made = make_bank_method(dict(kind="all"), 0.2, "random", momentum=0.5)
    made["pools"]["bank"] |= dict(kind="aged_bank", max_age=1) | settings
    return made


def test_its_candidates_are_the_rows_of_the_last_steps():
    template = methods.build(method())
    states = init_pool_states(template, TRAINED, {"head": 8}, 0, MESH)
    tables = Tables(jnp.zeros(64, jnp.int32), jnp.arange(64))

    def context(states, index, t):
        return StepContext(template, t, SimpleNamespace(pools=states, carried={}), Batch(None, index), tables, MESH)

    update = jax.jit(
        lambda states, encodings, index, t, accept: update_pool_states(context(states, index, t), encodings, accept)
    )
    last_written = np.zeros(64, int)  # every row counts as written before the first step
    for step in range(4):
        index = jnp.asarray(np.arange(BATCH)[:, None] + [0, 16, 32, 0][step], jnp.int32)
        candidates = find_candidates(context(states, index, None), template.terms[0], {})
        fresh = step - last_written <= 1
        np.testing.assert_array_equal(candidates.valid[:64], TRAINED & fresh)
        assert candidates.sharded and not candidates.has_gradient and candidates.own_rows == 1
        embeddings = jax.nn.one_hot(index[:, 0] % 8, 8)
        encodings = Encodings({"query": TowerOutput(embeddings, embeddings, {}, embeddings)}, {})
        t = Progress(jnp.int32(step), 4)
        refused = update(states, encodings, index, t, jnp.bool_(False))
        jax.tree.map(np.testing.assert_array_equal, refused, states)
        states = update(states, encodings, index, t, jnp.bool_(True))
        last_written[np.asarray(index[:, 0])] = step + 1
    assert 0 < fresh.sum() < 60, "some rows have grown old"


def test_its_settings_are_checked_and_its_state_is_placed():
    with pytest.raises(UserError, match=r"unknown field of .*bank 'max_ages'; did you mean 'max_age'"):
        methods.build(method(max_ages=3))
    with pytest.raises(UserError, match="max_age is -1"):
        methods.build(method(max_age=-1))
    with pytest.raises(UserError, match="momentum is 2"):
        methods.build(method(momentum=2.0))
    assert placement(methods.build(method()), MESH).pools["bank"] == batch_sharding(MESH)


@pytest.mark.slow
def test_a_row_trains_against_it():
    config = rows.small("ir")
    config["method"] = method()
    _, state, scalars = rows.train(config, 3)
    written = [set(np.asarray(rows.batch(at).index[:, 0]).tolist()) for at in range(3)]
    # An anchor's own row is left out of the count: at the third step its candidates are the rows of the two before.
    for ceiling, count in zip(scalars, (60, 60, len(written[0] | written[1])), strict=True):
        assert ceiling["objective_ceiling"] == pytest.approx(np.log(count), rel=1e-6)
    assert {int(i) for i in np.flatnonzero(np.asarray(state.pools["bank"].age)[:60] == 0)} == written[2]
