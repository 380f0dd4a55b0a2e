import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.pairing import split_held_out
from mi_contrast.evaluation.twin import untrained
from mi_contrast.interchange import Loaded
from mi_contrast.models import representation, towers
from tests.evaluation.fake import image_set

MODEL = dict(backbone="tiny", width=8, stem="small")
CONFIG = dict(model=MODEL, seed=5, data=dict(batch=16))
PIXELS = dict(mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3), size=8)


def trained(tmp_path, config):
    tower = towers.build(MODEL)
    variables = tower.init(jax.random.key(99), (8, 8, 3))
    return Loaded(representation.from_tower(variables, MODEL, **PIXELS), tmp_path, 1, 300, config)


def test_the_twin_has_the_seed_s_weights_and_the_statistics_of_one_batch(tmp_path):
    backbone, images = trained(tmp_path, CONFIG), image_set(40)
    twin = untrained(backbone, images)
    assert twin.step == 0 and twin.representation.spec == backbone.representation.spec
    tower = towers.build(MODEL)
    born = tower.init(stream_rng(jax.random.key(5), "init"), (8, 8, 3))
    weights = twin.representation.variables["params"]
    assert jax.tree.all(jax.tree.map(np.array_equal, weights, born["params"]["backbone"]))
    batch = images.images(split_held_out(images)[0][:16])
    normalised = (batch / np.float32(255) - np.float32(PIXELS["mean"])) / np.float32(PIXELS["std"])
    as_training_sees_it = tower.encode(born, normalised.astype(np.float32), train=True).features
    np.testing.assert_allclose(twin.representation.encode(batch), as_training_sees_it, atol=0.05, rtol=0.05)
    as_born = representation.from_tower(born, MODEL, **PIXELS).encode(batch)
    assert np.abs(as_born - as_training_sees_it).max() > 0.2  # without the statistics it is another network


def test_the_seed_decides_the_twin(tmp_path):
    images = image_set(40)
    one, same, other = (untrained(trained(tmp_path, CONFIG | {"seed": s}), images) for s in (5, 5, 6))
    first, again, else_ = (jax.tree.leaves(t.representation.variables) for t in (one, same, other))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, else_, strict=True))


@pytest.mark.parametrize("missing", ["model", "seed", "data"])
def test_a_backbone_of_unknown_origin_has_no_twin(tmp_path, missing):
    config = {name: value for name, value in CONFIG.items() if name != missing}
    with pytest.raises(UserError, match=f"has no '{missing}' in its config; leave out --untrained"):
        untrained(trained(tmp_path, config), image_set(40))
