"""Every method of configs/: it trains, its pools take what they should, and eight devices do what one does."""

import jax
import numpy as np
import pytest

from mi_contrast.core import checkpoint as checkpoints
from mi_contrast.core.errors import UserError
from mi_contrast.pools.bank import Bank
from mi_contrast.training import assemble, loop
from mi_contrast.training.encoding import encode_plain
from mi_contrast.training.state import abstract, from_tree, placement, to_tree
from mi_contrast.training.step import make_step
from tests.training import matrix, rows

QUICK = ("ir", "simclr")
OVER = ("infoaug", "infoaug_simclr", "infoaug_ir")  # of two branches: test_two_branches
APART = ("la", "cmc", "hard_simclr", "moco_v3", "infomin", "infoaug_ir")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.nightly) for n in rows.ALL if n not in OVER]
)
def test_a_row_trains_and_goes_on_from_a_checkpoint(name, tmp_path):
    parts, state, tables = rows.begin(rows.small(name))
    first, step = jax.tree.map(np.array, state), make_step(parts)
    state, before = step(state, rows.batch(0), tables)
    kept = checkpoints.Checkpoints(tmp_path, keep=1)
    kept.save(1, to_tree(state), {"step": 1})
    kept.wait()
    state, after = step(state, rows.batch(1), tables)
    scalars = [before, after]
    assert all(found["bad_steps"] == 0 and np.isfinite(found["objective"]) for found in scalars)
    assert scalars[1]["grad_norm"] > 0
    if "objective_ceiling" in scalars[1]:
        assert scalars[1]["objective"] <= scalars[1]["objective_ceiling"] + 1e-6
    for pool_name, pool in state.pools.items():
        if not isinstance(pool, Bank):
            assert int(pool.pointer) == 2 * rows.BATCH
            continue
        old, new = first.pools[pool_name].rows, np.asarray(pool.rows)
        moved = np.flatnonzero((old != new).any(axis=1))
        seen = np.unique([rows.batch(at).index[:, 0] for at in range(2)])
        np.testing.assert_array_equal(moved, seen)  # the batch's examples and no other
        np.testing.assert_allclose(np.linalg.norm(new[seen], axis=1), 1, atol=1e-5)
        assert not np.asarray(pool.valid)[rows.EXAMPLES - rows.HELD :].any()
    wanted = abstract(jax.eval_shape(lambda: first), placement(parts.method, parts.mesh))
    _, tree = kept.restore(to_tree(wanted))
    kept.close()
    again, _ = step(from_tree(wanted, tree), rows.batch(1), tables)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert step._cache_size() == 1  # one program, fresh or restored


@pytest.mark.nightly
def test_eight_devices_do_what_one_does():
    one, eight = (matrix.on_devices(count, list(APART), 3) for count in (1, 8))
    for name in APART:
        for apart, allowed in matrix.differences(one[name], eight[name]):
            assert apart <= allowed, name


@pytest.mark.nightly
def test_the_own_row_is_a_candidate_only_where_asked():
    config = rows.small("ir")
    config["method"]["terms"][0]["support"] = {"kind": "all"}
    ours = rows.train(config, 1)[2][0]
    config["method"]["pools"]["bank"]["self_row"] = True
    released = rows.train(config, 1)[2][0]
    assert ours["objective_ceiling"] == pytest.approx(np.log(60), rel=1e-6)
    assert released["objective_ceiling"] == pytest.approx(np.log(61), rel=1e-6)
    assert ours["objective"] != released["objective"]


@pytest.mark.nightly
def test_binary_nce_carries_its_normaliser():
    config = rows.small("ir")
    config["method"]["terms"][0]["form"] = {"kind": "binary", "momentum": 1.0}
    _, state, scalars = rows.train(config, 2)
    _, once, _ = rows.train(config, 1)
    assert "objective_ceiling" not in scalars[0] and scalars[0]["objective"] < 0
    assert np.isfinite(state.carried["log_normaliser_0"])
    assert float(state.carried["log_normaliser_0"]) == float(once.carried["log_normaliser_0"])  # the first batch's
    config["method"]["terms"][0]["form"]["momentum"] = 0.5
    moved = rows.train(config, 2)[1]
    assert float(moved.carried["log_normaliser_0"]) != float(state.carried["log_normaliser_0"])


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["la", "nnclr", "cmc", "infomin"])
def test_stopping_and_going_on_changes_nothing(name, tmp_path):
    from tests.training.test_resume import different

    config = rows.whole(name)
    loop.run(config, tmp_path / "whole")
    loop.run(config, tmp_path / "parts", stop_at=3)
    loop.run(config, tmp_path / "parts")
    assert different(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ir", "cmc"])
def test_a_bank_may_start_from_one_forward_pass(name):
    config = rows.whole(name)
    for pool in config["method"]["pools"].values():
        pool["start"] = "forward"
    job = assemble.build(config)
    state = job.fill_banks(loop.place(job.first_state(), placement(job.parts.method, job.parts.mesh)))
    some = job.train_ids[[0, 7, -1]]
    seen = job.evaluation_view(job.images.images(some))
    for pool_name, pool in state.pools.items():
        view = job.parts.method.pools[pool_name].takes
        own = encode_plain(job.parts.tower, state.online, seen, view).embedding
        np.testing.assert_allclose(pool.rows[some], own, atol=1e-5)
        lengths = np.linalg.norm(np.asarray(pool.rows), axis=1)
        np.testing.assert_allclose(lengths[job.train_ids], 1, atol=1e-5)
        assert (lengths[job.held_out_ids] == 0).all()


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("cmc", ("model", "split"), None, "model.split"),
        ("simclr", ("model", "split"), "lab", "model.split"),
        ("infomin", ("model", "jigsaw"), None, "jigsaw"),
        ("simclr", ("export", "weights"), "target", "export.weights"),
        ("simclr", ("method", "momentum"), 0.9, "momentum"),
        ("ir", ("method", "pools", "bank", "momentum"), 1.5, "at most 1"),
        ("ir", ("method", "terms", 0, "positive"), "rwo", "did you mean 'row'"),
        ("ir", ("method", "terms", 0, "support", "of", "kind"), "cave", "has no 'lower'"),
        ("la", ("method", "pools", "bank", "clusters"), None, "has no clusters"),
        ("nnclr", ("method", "terms", 0, "look_up"), "keys", "look up a queue"),
        ("hard_simclr", ("method", "terms", 0, "support"), dict(kind="cave", lower=0.5, upper=0.9), "several"),
        ("dcl", ("method", "terms", 0, "form"), "decuopled", "did you mean 'decoupled'"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(name, path, value, said):
    config = rows.small(name)
    at = config
    for word in path[:-1]:
        at = at[word]
    at[path[-1]] = value
    with pytest.raises(UserError, match=said) as told:
        assemble.make_parts(assemble.check(config), 10, assemble.make_mesh())
    assert "\n" not in str(told.value)


@pytest.mark.nightly
@pytest.mark.parametrize("variant", ["cifar10_small", "cifar10", "cifar100", "stl10", "imagenet"])
def test_every_variant_of_every_row_fits_together(variant):
    from mi_contrast.core.config import load_config, to_plain_data

    for name in rows.ALL:
        config = to_plain_data(load_config(f"configs/{name}.py:{variant}")[0])
        digits = to_plain_data(load_config(f"configs/{name}.py:digits")[0])
        if name == "learned_views":
            config["generator"]["start_from"] = rows.generator()[1]
        assemble.make_parts(assemble.check(config), 10, assemble.make_mesh())
        kinds = lambda c: [(t["anchor"], t["positive"], t["support"]["kind"]) for t in c["method"]["terms"]]  # noqa: E731
        assert kinds(config) == kinds(digits)
    assert len(jax.devices()) >= 1
