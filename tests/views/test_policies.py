import copy

import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from mi_contrast.core.errors import UserError
from mi_contrast.views import policies
from mi_contrast.views.augmentation import draw_batch

RELEASED = (  # of two crops, with the settings of released code
    policies.moco_v1,
    policies.moco_v2,
    policies.simclr,
    policies.moco_v3,
    policies.byol,
    policies.infomin,
    policies.pirl,
)
POLICIES = (
    *RELEASED,
    policies.strengths,
    lambda size: policies.patches(size, size),
    lambda size: policies.multi_crop(policies.moco_v2(size)),
    policies.cmc,
)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("size", [32, 224])
def test_every_policy_at_every_size(policy, size):
    views = policies.build(policy(size))
    sources = jax.ShapeDtypeStruct((4, 1, 2 * size, 500, 3), jnp.uint8)  # two patches side by side fit
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4))
    made = jax.eval_shape(views, sources, keys)
    assert views.names == tuple(views.source_index) == tuple(views.shapes) and set(made) == set(views.names)
    for name, view in made.items():
        assert view.shape == (4, *views.shapes[name]) and view.dtype == jnp.float32
        mean, std = views.channel_constants(name)
        assert len(mean) == len(std) == view.shape[-1]
    assert views.size == size and len(views.mean) == len(views.std) == 3


def test_orders_are_those_of_the_released_code():
    assert policies.moco_v1(32)["query"]["order"] == ("crop", "grey", "jitter", "flip")
    assert policies.moco_v2(32)["query"]["order"] == ("crop", "jitter", "grey", "blur", "flip")
    assert policies.simclr(32)["key"]["order"] == ("crop", "flip", "jitter", "grey", "blur")
    assert policies.simclr(32, blur=0.0)["key"]["order"] == ("crop", "flip", "jitter", "grey")

    assert policies.moco_v3(32)["query"]["order"] == ("crop", "jitter", "grey", "blur", "flip")
    assert policies.moco_v3(32)["key"]["order"] == ("crop", "jitter", "grey", "blur", "solarize", "flip")
    assert policies.infomin(32)["key"]["order"] == ("crop", "flip", "jitter", "blur", "randaugment", "grey")
    assert policies.pirl(32)["query"]["order"] == ("crop", "flip", "jitter", "grey")
    assert policies.cmc(32)["both"]["order"] == ("crop", "flip")
    assert policies.infomin(32)["jigsaw"]["order"] == ("crop", "flip")


def test_settings_are_those_of_the_released_code():
    blurs = [
        [policies.moco_v3(32)[view]["blur"]["p"] for view in ("query", "key")],
        policies.moco_v2(32)["key"]["blur"],
    ]
    assert blurs == [[1.0, 0.1], {"sigma": (0.1, 2.0), "p": 0.5}]
    assert policies.moco_v3(32)["key"]["solarize"] == {"threshold": 0.5, "p": 0.2}
    assert "solarize" not in policies.moco_v3(32)["query"]
    jitters = {policy.__name__: tuple(policy(32)["query"]["jitter"].values()) for policy in RELEASED}
    assert jitters == {
        "moco_v1": (0.4, 0.4, 0.4, 0.4, 1.0),
        "moco_v2": (0.4, 0.4, 0.4, 0.1, 0.8),
        "simclr": (0.8, 0.8, 0.8, 0.2, 0.8),
        "moco_v3": (0.4, 0.4, 0.2, 0.1, 0.8),
        "byol": (0.4, 0.4, 0.2, 0.1, 0.8),
        "infomin": (0.8, 0.8, 0.8, 0.2, 0.8),
        "pirl": (0.4, 0.4, 0.4, 0.4, 1.0),
    }
    least = {policy.__name__: policy(32)["query"]["crop"]["area"][0] for policy in RELEASED}
    assert least == dict(moco_v1=0.2, moco_v2=0.2, simclr=0.08, moco_v3=0.2, byol=0.08, infomin=0.2, pirl=0.08)
    assert policies.cmc(32)["both"]["crop"]["area"] == (0.2, 1.0)
    drawn = policies.infomin(32)["query"]["randaugment"]
    assert (drawn["layers"], drawn["magnitude"], drawn["std"], drawn["p"]) == (2, 10.0, 0.5, 0.5)


def test_simclr_scales_its_jitter_and_leaves_images_in_their_range():
    half = policies.simclr(32, strength=0.5)
    assert half["query"]["jitter"] == dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)
    assert (half["mean"], half["std"]) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_strengths_are_plain_numbers():
    half = policies.strengths(32, low=0.3, jitter=0.5)
    for name in ("query", "key"):
        assert half[name]["crop"] == {"area": (0.3, 1.0), "aspect": (3 / 4, 4 / 3)}
        assert half[name]["jitter"] == dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)
        assert half[name]["order"] == ("crop", "jitter", "grey", "blur", "flip")
    best = policies.strengths(224)  # InfoMin's sweet spots
    assert best["query"]["crop"]["area"][0] == 0.2 and best["query"]["jitter"]["hue"] == 0.2
    bare = policies.strengths(32, low=1.0, jitter=0.0, grey=0.0, blur=0.0, flip=0.0)
    assert bare["query"] == {"crop": policies.crop_op(1.0), "order": ("crop",)}
    for policy in (half, best, bare, policies.strengths(32, jitter=2.5)):
        policies.check(policy)
    for wrong, says in ((dict(jitter=2.6), "jitter.hue"), (dict(low=0.0), "crop.area"), (dict(grey=1.1), "query.grey")):
        with pytest.raises(UserError, match=says):
            policies.check(policies.strengths(32, **wrong))


def test_strengths_show_in_what_is_drawn():
    """A lower bound on the area, and factors within .8 x, as drawn."""
    keys = jax.random.split(jax.random.key(0), 4000)
    blank = jnp.zeros((4000, 64, 64, 1), jnp.uint8)
    for low, x in ((0.08, 0.25), (0.5, 1.0)):
        drawn = draw_batch(policies.strengths(32, low, x)["query"], 0, keys, blank)
        area = drawn.box[:, 2] * drawn.box[:, 3] / 64**2
        assert low - 0.02 < area.min() < low + 0.02
        assert abs(float(jnp.abs(drawn.factors[:, :3] - 1.0).max()) - 0.8 * x) < 0.01
        assert abs(float(jnp.abs(drawn.factors[:, 3]).max()) - 0.2 * x) < 0.01
        assert abs(float(drawn.jitter.mean()) - 0.8) < 0.03


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_plain_data_that_a_config_holds(policy):
    made = policy(32)
    assert ConfigDict(made).to_dict() == made
    policies.check(ConfigDict(made).to_dict())
    lists = {**made, "mean": list(made["mean"])}  # as JSON gives them back
    policies.check(lists)


def changed(path, value, base=policies.moco_v2):
    policy = copy.deepcopy(base(32))
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
        ("query", None, "has no 'query'"),
        ("query", 3, "views.query is 3"),
        ("query.jiter", {}, "did you mean 'jitter'"),
        ("query.order", None, "has no 'order'"),
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
        ("key.jitter.p", None, "has no 'p'"),
        ("key.blur.sigma", (0.0, 2.0), "0 < low <= high"),
        ("key.blur.sigma", (0.1, float("inf")), "2 numbers"),
        ("key.blur", 0.5, "give a dict with sigma, p"),
    ],
)
def test_a_mistake_is_named(path, value, says):
    with pytest.raises(UserError) as caught:
        policies.build(changed(path, value))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("jigsaw.patch", 13, "a patch is cut out of a cell"),
        ("jigsaw.grid", 0, "whole number of cells"),
        ("jigsaw.cell", None, "has no 'cell'"),
        ("jigsaw.ceil", 3, "did you mean 'cell'"),
        ("jigsaw.flip", 2.0, "views.jigsaw.flip is 2.0"),
        ("jigsaw.order", ("crop",), "name each of"),
        ("jigsaw", 3, "views.jigsaw is 3"),
        ("query.randaugment.layers", 0, "whole number of layers"),
        ("query.randaugment.magnitude", 11.0, "from 0 to 10"),
        ("query.randaugment.std", -1.0, "of 0 or more"),
        ("query.randaugment.p", 1.5, "from 0 to 1"),
        ("query.randaugment.fill", (124.0, 116.0), "3 numbers"),
        ("query.randaugment.fill", (124.0, 116.0, 300.0), "from 0 to 255"),
        ("query.randaugment.ops", ("rotate", "shear"), "unknown op in views.query.randaugment.ops"),
        ("query.randaugment.ops", ("equalise",), "did you mean 'equalize'"),
        ("query.randaugment.ops", (), "give some of"),
        ("query.randaugment.ops", "rotate", "give some of"),
        ("query.randaugment.ops", None, "has no 'ops'"),
        ("query.randaugment.magnitud", 3.0, "did you mean 'magnitude'"),
    ],
)
def test_a_mistake_of_infomin_is_named(path, value, says):
    with pytest.raises(UserError) as caught:
        policies.build(changed(path, value, policies.infomin))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("split", "labs", "did you mean 'lab'"),
        ("split", None, "has no 'split'"),
        ("both.flip", 2.0, "views.both.flip is 2.0"),
        ("both.order", ("crop",), "name each of"),
        ("query", {}, "unknown field of the views"),
        ("std", (0.0, 1.0, 1.0), "three numbers above 0"),
        ("mean", (0.0, float("nan"), 1.0), "3 numbers that are finite"),
        ("kind", "two_crops", "unknown field of the views"),
        ("kind", None, "has no 'kind'"),
    ],
)
def test_a_mistake_of_cmc_is_named(path, value, says):
    with pytest.raises(UserError) as caught:
        policies.build(changed(path, value, policies.cmc))
    assert says in str(caught.value)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_unchanged_policy_is_right(policy):
    policies.check(changed("size", 32, policy))


def test_the_two_views_share_no_dict():
    config = ConfigDict(policies.moco_v2(32))
    config.query.jitter.p = 0.1
    assert config.key.jitter.p == 0.8
