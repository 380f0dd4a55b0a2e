"""Methods with a transformer: what does not learn stays, parts of a batch are the batch, stopping changes nothing."""

import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import load
from mi_contrast.models.vit import EMBEDDING
from mi_contrast.training import loop
from mi_contrast.training.state import to_tree
from mi_contrast.training.step import make_step
from tests.training import matrix, rows
from tests.training.test_resume import different

DECAYING = dict(kind="sgd", lr=0.1, weight_decay=0.1, momentum=0.9, decay_all=True, warmup=0, clip=None)


def vit(name, **optim):
    config = rows.without_head_norm(rows.small(f"{name}:vit"))
    config["optim"] |= DECAYING | optim
    return config


def moved(config, steps=2):
    """Whether each number of the patch embedding, and of the rest of the backbone, moved in the steps; the state."""
    parts, state, tables = rows.begin(config)
    before, step = jax.tree.map(np.array, state.online["params"]["backbone"]), make_step(parts)
    for at in range(steps):
        state, scalars = step(state, rows.batch(at), tables)
    assert scalars["bad_steps"] == 0 and scalars["grad_norm"] > 0
    apart = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, state.online["params"]["backbone"])
    found = [(EMBEDDING in jax.tree_util.keystr(p), x) for p, x in jax.tree_util.tree_leaves_with_path(apart)]
    return [x for own, x in found if own], [x for own, x in found if not own], state


@pytest.mark.nightly
def test_the_patch_embedding_stays_bit_for_bit_and_all_else_moves():
    """Under decay of every parameter, with momentum."""
    embedding, rest, state = moved(vit("simclr"))
    assert embedding == [False, False] and all(rest)
    assert not jax.tree.leaves(state.online["batch_stats"])


@pytest.mark.nightly
def test_a_batch_in_parts_is_the_batch_where_nothing_normalises_over_it():
    (_, whole, _), (_, parts, _) = (rows.train(vit("ring_moco", lr=0.01, microbatches=n), 2) for n in (1, 2))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), to_tree(parts), to_tree(whole))


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["adamw", "lars"])
def test_no_optimiser_moves_it(kind):
    embedding, rest, _ = moved(vit("simclr", kind=kind, clip=1.0))
    assert not any(embedding) and all(rest)


@pytest.mark.nightly
def test_it_learns_where_asked():
    config = vit("simclr", weight_decay=0.0)
    config["model"]["patch_embed"] = "trained"
    assert moved(config)[0] == [True, True]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["ring_moco", "la", "ring_cmc", "pirl", "moco_v3", "infoaug_ir"])
def test_rows_of_every_kind_train_with_one(name):
    embedding, rest, _ = moved(rows.small(f"{name}:vit"))
    assert not any(embedding) and any(rest)


@pytest.mark.nightly
def test_eight_devices_do_what_one_does():
    names = ["ring_moco:vit", "simclr:vit"]
    one, eight = (matrix.on_devices(count, names, 3) for count in (1, 8))
    for name in names:
        for apart, allowed in matrix.differences(one[name], eight[name]):
            assert apart <= allowed, name


@pytest.mark.nightly
def test_stopping_and_going_on_changes_nothing_and_the_export_is_the_run(tmp_path):
    config = rows.whole("ring_moco:vit")
    loop.run(config, tmp_path / "whole")
    loop.run(config, tmp_path / "parts", stop_at=3)
    assert loop.run(config, tmp_path / "parts").complete
    assert different(tmp_path / "whole", tmp_path / "parts") == []
    exported, run = load(tmp_path / "whole" / "export"), load(tmp_path / "whole")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(exported.encode(pixels), run.encode(pixels))
    assert exported.dim == 16 and exported.spec == run.spec


def test_a_batch_that_a_projector_normalises_is_not_cut():
    config = vit("simclr", microbatches=2)
    config["model"]["head"] = dict(kind="mlp_bn", dim=8, hidden=8)
    with pytest.raises(UserError, match="batch statistics are of the whole batch"):
        rows.begin(config)
