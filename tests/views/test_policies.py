import copy

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from mi_contrast.core.errors import UserError
from mi_contrast.views import policies

POLICIES = (policies.moco_v1, policies.moco_v2, policies.simclr)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_every_policy_at_every_size(policy, size):
    views = policies.build(policy(size))
    sources = jax.ShapeDtypeStruct((4, 1, 40, 50, 3), jnp.uint8)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
    made = jax.eval_shape(views, sources, keys)
    assert set(made) == set(views.names)
    assert all(view.shape == (4, size, size, 3) and view.dtype == jnp.float32 for view in made.values())


def test_orders_are_those_of_the_released_code():
    assert policies.moco_v1(32)["query"]["order"] == ("crop", "grey", "jitter", "flip")
    assert policies.moco_v2(32)["query"]["order"] == ("crop", "jitter", "grey", "blur", "flip")
    assert policies.simclr(32)["key"]["order"] == ("crop", "flip", "jitter", "grey", "blur")
    assert policies.simclr(32, blur=0.0)["key"]["order"] == ("crop", "flip", "jitter", "grey")


def test_simclr_scales_its_jitter_and_leaves_images_in_their_range():
    half = policies.simclr(32, strength=0.5)
    assert half["query"]["jitter"] == dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)
    assert (half["mean"], half["std"]) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_plain_data_that_a_config_holds(policy):
    made = policy(32)
    assert ConfigDict(made).to_dict() == made
    policies.check(ConfigDict(made).to_dict())
    lists = {**made, "mean": list(made["mean"])}  # as JSON gives them back
    policies.check(lists)


def changed(path, value):
    policy = copy.deepcopy(policies.moco_v2(32))
    *sections, field = path.split(".")
    inside = policy
    for section in sections:
        inside = inside[section]
    if value is None:
        del inside[field]
    else:
        inside[field] = value
    return policy


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("kind", "two_crop", "did you mean 'two_crops'"),
        ("siez", 32, "did you mean 'size'"),
        ("size", 0, "views.size is 0"),
        ("size", 32.0, "views.size is 32.0"),
        ("std", (1.0, 1.0, 0.0), "three numbers above 0"),
        ("mean", (0.5, 0.5), "3 numbers"),
        ("query", None, "has no field 'query'"),
        ("query", 3, "views.query is 3"),
        ("query.jiter", {}, "did you mean 'jitter'"),
        ("query.order", None, "has no field 'order'"),
        ("query.order", ("crop", "jitter", "gray", "blur", "flip"), "did you mean 'grey'"),
        ("query.order", ("jitter", "crop", "grey", "blur", "flip"), "crop first"),
        ("query.order", ("crop", "jitter", "grey", "flip"), "name each of"),
        ("query.order", ("crop", "jitter", "jitter", "grey", "blur", "flip"), "once"),
        ("key.flip", 1.5, "views.key.flip is 1.5"),
        ("key.flip", True, "views.key.flip is True"),
        ("key.grey", float("nan"), "views.key.grey is nan"),
        ("key.crop.area", (0.5, 0.2), "0 < low <= high"),
        ("key.crop.area", (0.0, 1.0), "0 < low <= high"),
        ("key.crop.area", (0.2, 1.5), "from 0 to 1"),
        ("key.crop.aspect", 1.0, "2 numbers"),
        ("key.crop.ratio", (1.0, 1.0), "unknown field of views.key.crop"),
        ("key.jitter.hue", 0.6, "from 0 to 0.5"),
        ("key.jitter.brightnes", 0.6, "did you mean 'brightness'"),
        ("key.jitter.contrast", -0.1, "of 0 or more"),
        ("key.jitter.p", None, "has no field 'p'"),
        ("key.blur.sigma", (0.0, 2.0), "0 < low <= high"),
        ("key.blur.sigma", (0.1, float("inf")), "2 numbers"),
        ("key.blur", 0.5, "it is a section"),
    ],
)
def test_a_mistake_is_named(path, value, says):
    with pytest.raises(UserError) as caught:
        policies.build(changed(path, value))
    assert says in str(caught.value)


def test_the_unchanged_policy_is_right():
    policies.check(changed("size", 32))


def test_the_two_views_share_no_dict():
    config = ConfigDict(policies.moco_v2(32))
    config.query.jitter.p = 0.1
    assert config.key.jitter.p == 0.8
