"""A second branch of twins: what it changes of a run, what it leaves alone, and which head each pool belongs to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mi_contrast
from mi_contrast.core import checkpoint as checkpoints
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.core.mesh import make_mesh
from mi_contrast.core.schedules import step as steps_at
from mi_contrast.data import pair_sets
from mi_contrast.pools.bank import Bank
from mi_contrast.training import assemble, loop
from mi_contrast.training.metrics import read
from mi_contrast.training.state import abstract, from_tree, placement, to_tree
from mi_contrast.training.step import make_step
from tests.training import rows

OVER = {"infoaug": "ring_moco", "infoaug_simclr": "simclr", "infoaug_ir": "ir"}
PLAIN_SGD = dict(kind="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0, clip=None)


def turned(name):
    """The method, small: for two steps of four the first branch alone weighs anything, then the second alone."""
    config = rows.small(name)
    config["steps"], config["optim"] = 4, config["optim"] | PLAIN_SGD
    for term in config["method"]["terms"]:
        ends = (0.0, term["weight"]) if term.get("head") == "twin" else (term["weight"], 0.0)
        term["weight"] = steps_at(ends, (0.5,))
    if config["model"]["twin"]:
        config["model"]["twin"]["dim"] = 24  # of another size than the first's: no pool can be taken for another
    return config


def batch(at, *, sources=2, partners=0):
    """The batch of a step, of the first source alone, or with other partners than usual."""
    found, other = rows.batch(at), rows.batch(at + partners)
    mixed = [jnp.concatenate([x[:, :1], y[:, 1:]], axis=1)[:, :sources] for x, y in zip(found, other, strict=True)]
    return found._replace(sources=mixed[0], index=mixed[1])


def largest(a, b):
    return max(float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(OVER))
def test_each_branch_trains_its_own_head_and_the_one_backbone(name, tmp_path):
    parts, state, tables = rows.begin(turned(name))
    step, first = make_step(parts), jax.tree.map(np.array, state)
    begin = lambda: loop.place(jax.tree.map(jnp.asarray, first), placement(parts.method, parts.mesh))  # noqa: E731
    other, born = begin(), first.online["params"]
    for at in range(2):
        state, scalars = step(state, batch(at), tables)
        other, _ = step(other, batch(at, partners=50), tables)
    learned = jax.tree.map(np.array, state.online["params"])

    # While the second branch weighs nothing, other partners change nothing to the last bit: not even which rows are
    # candidates of the first branch. Nor does the branch itself: the run is the method's.
    jax.tree.map(np.testing.assert_array_equal, learned["twin"], born["twin"])
    jax.tree.map(np.testing.assert_array_equal, other.online["params"], learned)
    assert min(largest(born[part], learned[part]) for part in ("backbone", "head")) > 1e-4
    if name == "infoaug":
        alone_parts, alone, _ = rows.begin(turned(OVER[name]))
        alone_step = make_step(alone_parts)
        for part in ("backbone", "head"):
            jax.tree.map(np.testing.assert_array_equal, born[part], alone.online["params"][part])
        for at in range(2):
            alone, _ = alone_step(alone, batch(at, sources=1), tables)
        for part in ("backbone", "head"):
            assert largest(alone.online["params"][part], learned[part]) < 1e-6

    # Pools are of their own head; the second queue alone knows of twins, the second bank takes queries.
    index = np.concatenate([batch(at).index for at in range(2)])
    for pool_name, pool in state.pools.items():
        second = pool_name.startswith("twins_")
        assert pool.rows.shape[1] == (24 if second else 128)
        moved = not np.array_equal(pool.rows, other.pools[pool_name].rows)
        assert moved == (second and not isinstance(pool, Bank))
        if not isinstance(pool, Bank):
            np.testing.assert_array_equal(pool.ids[: len(index)], index[:, int(second)])

    # Then the second branch alone: its gradient reaches its head and the backbone, not the first head.
    kept = checkpoints.Checkpoints(tmp_path, keep=1)
    kept.save(2, to_tree(state), {"step": 2})
    kept.wait()
    for at in range(2, 4):
        state, scalars = step(state, batch(at), tables)
    after = state.online["params"]
    jax.tree.map(np.testing.assert_array_equal, after["head"], learned["head"])
    assert min(largest(after[part], learned[part]) for part in ("backbone", "twin")) > 1e-4
    count = len(parts.method.terms)
    for i in range(count // 2, count):
        assert float(scalars[f"term_{i}"]) <= float(scalars[f"ceiling_{i}"]) + 1e-6
        assert np.isfinite(scalars[f"term_{i}"]) and float(scalars[f"ceiling_{i}"]) > 0

    # A checkpoint has all of it: from there on the same again, by the same program.
    wanted = abstract(jax.eval_shape(lambda: first), placement(parts.method, parts.mesh))
    _, tree = kept.restore(to_tree(wanted))
    kept.close()
    again = from_tree(wanted, tree)
    for at in range(2, 4):
        again, _ = step(again, batch(at), tables)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert step._cache_size() == 1


def write_set(folder, clips=8, each=8):
    """A pair set of noise: in each clip every patch's twin is the next, its nearest the one after, two not accepted."""
    count = clips * each
    place, clip = np.arange(count), np.arange(count) // each
    around = {word: clip * each + (place + by) % each for word, by in (("twin", 1), ("near", 2), ("random", 3))}
    columns = {
        **around, "alike": around["near"], "clip": clip, "row": place, "column": place, "state": np.zeros(count),
        **dict.fromkeys(("nats", "null", "p", "distance"), np.ones(count)), "accepted": place % each > 1,
        "label_digit": clip % 3,
    }  # fmt: skip
    patches = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), np.uint8)
    pair_sets.write(folder, patches, columns, {"classes": {"digit": ["0", "1", "2"]}}, {})


def of_pairs(name, folder):
    """The method as a whole run of six steps over a pair set."""
    config = rows.whole(name)
    config["data"] |= dict(name=f"pairs:{folder}", dir=None, options={}, batch=16)
    config["eval"] |= dict(pairs=4)
    return config


@pytest.mark.nightly
def test_a_run_over_a_pair_set_is_a_run_as_any(tmp_path):
    write_set(tmp_path / "pairs")
    loop.run(of_pairs("infoaug_ir", tmp_path / "pairs"), tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    logged = read(run)
    assert any("mi_nats" in row and "knn_top1" in row for row in logged)  # of two views of a patch, by the first head
    assert all({"term_0", "term_1", "weight_1"} <= set(row) for row in logged if "objective" in row)
    assert (run.pictures / "pairs.png").is_file()
    assert mi_contrast.load(run.root).encode(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 8)


def test_pairs_are_asked_for_where_there_are_some(tmp_path):
    write_set(tmp_path / "pairs")
    job = assemble.build(of_pairs("infoaug_simclr", tmp_path / "pairs"))
    with job.open() as reader:
        index = np.asarray(reader.batch(0).index)
    assert (index[:, 1] // 8 == index[:, 0] // 8).all()
    np.testing.assert_array_equal(index[:, 1] == index[:, 0], index[:, 0] % 8 < 2)  # its own where none was accepted

    for changes, said in (
        (dict(data__partner="twins"), "unknown partner of pairs:.* 'twins'; did you mean 'twin'"),
        (dict(data__shared=("clip",)), "both choose the second image: 'twin' and clip"),
        (dict(data__partner=None), "data.partner is None, and the method has terms of the second head"),
        (dict(model__twin=None), "no second head"),
        (dict(data__name="pairs:nowhere"), "nowhere is not a folder; make it with python -m mi_contrast.pairs"),
        (dict(data__options={"size": 32}), "takes no data.options"),
        (dict(data__name="moving_digits", data__dir=str(rows.small_run.DATA), data__options={"size": 32, "length": 2}),
         "moving_digits has no partners.*pairs:FOLDER"),
    ):  # fmt: skip
        config = of_pairs("infoaug_simclr", tmp_path / "pairs")
        for path, value in changes.items():
            section, field = path.split("__")
            config[section][field] = value
        with pytest.raises(UserError, match=said) as told:
            assemble.build(config)
        assert "\n" not in str(told.value)
    plain = rows.whole("simclr")
    plain["data"]["partner"] = "twin"
    with pytest.raises(UserError, match="the method has no terms of the second head"):
        assemble.make_parts(assemble.check(plain), 10, make_mesh())
