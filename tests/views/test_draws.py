import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mi_contrast.views.colour import ORDERS
from mi_contrast.views.draws import COUNT, PLACES, STREAMS, centre_box, crop_box, draw_view
from mi_contrast.views.policies import infomin, moco_v1, moco_v2, moco_v3, simclr

COUNTED = 20_000
UNLIKELY = 1e-4  # the keys are fixed: a test below this is wrong, not unlucky


@cache
def drawn(policy, size, height, width, view="query"):
    ops = policy(size)[view]
    keys = jax.random.split(jax.random.key(7), COUNTED)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(lambda key: draw_view(ops, key, height, width)))(keys))


def boxes_by_the_law(count, height, width, area, aspect, seed=0):
    """Torchvision's get_params in numpy, line by line."""
    draws, out = np.random.default_rng(seed), []
    for _ in range(count):
        for _ in range(10):
            target = height * width * draws.uniform(*area)
            ratio = math.exp(draws.uniform(math.log(aspect[0]), math.log(aspect[1])))
            wide, tall = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < wide <= width and 0 < tall <= height:
                out.append((draws.integers(0, height - tall + 1), draws.integers(0, width - wide + 1), tall, wide))
                break
        else:
            wide, tall = width, height
            if width / height < aspect[0]:
                tall = round(wide / aspect[0])
            elif width / height > aspect[1]:
                wide = round(tall * aspect[1])
            out.append(((height - tall) // 2, (width - wide) // 2, tall, wide))
    return np.array(out)


def same_law(mine, theirs):
    """The largest distance of the two empirical distributions of each of: area, log aspect, top, left, both sides."""
    for pick in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: np.log(b[:, 3] / b[:, 2]),
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: b[:, 2],
        lambda b: b[:, 3],
    ):
        yield stats.ks_2samp(pick(mine), pick(theirs)).pvalue


@pytest.mark.parametrize("policy, area", [(moco_v2, (0.2, 1.0)), (simclr, (0.08, 1.0))])
@pytest.mark.parametrize("height, width", [(32, 32), (256, 256), (180, 320)])
def test_boxes_follow_the_law(policy, area, height, width):
    mine = drawn(policy, 32, height, width).box
    assert (mine == np.round(mine)).all() and (mine >= 0).all() and (mine[:, 2:] >= 1).all()
    assert (mine[:, 0] + mine[:, 2] <= height).all() and (mine[:, 1] + mine[:, 3] <= width).all()
    theirs = boxes_by_the_law(COUNTED, height, width, area, (3 / 4, 4 / 3))
    assert min(same_law(mine, theirs)) > UNLIKELY
    wrong = boxes_by_the_law(COUNTED, height, width, (area[0] + 0.05, 1.0), (3 / 4, 4 / 3))
    assert min(same_law(mine, wrong)) < UNLIKELY


def test_boxes_follow_torchvision(torchvision):
    import torch

    torch.manual_seed(0)
    image = torch.zeros(3, 96, 128)
    get = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([get(image, scale=(0.2, 1.0), ratio=(3 / 4, 4 / 3)) for _ in range(4000)])
    assert min(same_law(drawn(moco_v2, 32, 96, 128).box, theirs)) > UNLIKELY


@pytest.mark.parametrize("height, width", [(20, 200), (200, 20), (32, 32), (30, 45)])
def test_no_try_fits(torchvision, height, width):
    import torch

    ones = jnp.ones(10)
    area, aspect = (4.0, 4.0), (3 / 4, 4 / 3)  # four times the source never fits
    mine = crop_box(ones, ones, jnp.zeros(2), height, width, area, aspect)
    theirs = torchvision.transforms.RandomResizedCrop.get_params(torch.zeros(3, height, width), area, aspect)
    np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(mine, centre_box(height, width, aspect))


def test_the_first_try_that_fits_is_taken():
    aspect, half = (1.0, 1.0), jnp.full(10, 0.5)
    areas = jnp.array([4.0, 2.0, 0.25, 0.5] + [0.1] * 6) / 4  # of four sources: the third is the first that fits
    box = crop_box(areas, half, jnp.array([0.0, 0.999]), 40, 40, (1e-9, 4.0), aspect)
    np.testing.assert_array_equal(box, [0, 20, 20, 20])


def test_the_largest_uniform_number_stays_inside():
    last = jnp.full(2, 1.0 - 2.0**-24)
    for side in (1, 3, 32, 224, 4000):
        box = crop_box(jnp.zeros(10), jnp.zeros(10), last, side, side, (0.3, 1.0), (1.0, 1.0))
        assert box[0] + box[2] <= side and box[1] + box[3] <= side


@pytest.mark.parametrize(
    "policy, view, rates",
    [
        (moco_v1, "query", dict(flip=0.5, jitter=1.0, grey=0.2, blur=0.0, solarize=0.0)),
        (moco_v2, "query", dict(flip=0.5, jitter=0.8, grey=0.2, blur=0.5, solarize=0.0)),
        (simclr, "query", dict(flip=0.5, jitter=0.8, grey=0.2, blur=0.5, solarize=0.0)),
        (infomin, "key", dict(flip=0.5, jitter=0.8, grey=0.2, blur=0.5, solarize=0.0)),
        (moco_v3, "query", dict(flip=0.5, jitter=0.8, grey=0.2, blur=1.0, solarize=0.0)),
        (moco_v3, "key", dict(flip=0.5, jitter=0.8, grey=0.2, blur=0.1, solarize=0.2)),
    ],
)
def test_ops_apply_at_their_rates(policy, view, rates):
    made = drawn(policy, 32, 32, 32, view)
    for name, rate in rates.items():
        hits = int(getattr(made, name).sum())
        if rate in (0.0, 1.0):
            assert hits == rate * COUNTED
        else:
            assert stats.binomtest(hits, COUNTED, rate).pvalue > UNLIKELY
            assert stats.binomtest(hits, COUNTED, rate + 0.03).pvalue < UNLIKELY


@pytest.mark.parametrize(
    "policy, strengths",
    [(moco_v1, (0.4, 0.4, 0.4, 0.4)), (moco_v2, (0.4, 0.4, 0.4, 0.1)), (simclr, (0.8, 0.8, 0.8, 0.2))],
)
def test_strengths_are_uniform(policy, strengths):
    made = drawn(policy, 32, 32, 32)
    for factor, middle, strength in zip(made.factors.T, (1, 1, 1, 0), strengths, strict=True):
        assert stats.kstest(factor, stats.uniform(middle - strength, 2 * strength).cdf).pvalue > UNLIKELY
    if policy is moco_v2:
        assert stats.kstest(made.sigma, stats.uniform(0.1, 1.9).cdf).pvalue > UNLIKELY


def test_strengths_above_one_stop_at_zero():
    ops = {"jitter": dict(brightness=1.5, contrast=0.0, saturation=0.0, hue=0.0, p=1.0)}
    factors = jax.vmap(lambda key: draw_view(ops, key, 32, 32).factors)(jax.random.split(jax.random.key(0), COUNTED))
    assert stats.kstest(np.asarray(factors[:, 0]), stats.uniform(0.0, 2.5).cdf).pvalue > UNLIKELY
    np.testing.assert_array_equal(factors[:, 1:], np.broadcast_to([1.0, 1.0, 0.0], (COUNTED, 3)))


def test_every_order_is_as_likely():
    names = {tuple(order): at for at, order in enumerate(ORDERS)}
    counts = np.bincount([names[tuple(order)] for order in drawn(moco_v2, 32, 32, 32).order], minlength=24)
    assert stats.chisquare(counts).pvalue > UNLIKELY


def test_decisions_are_independent_of_each_other():
    made = drawn(moco_v2, 32, 32, 32)
    columns = [made.flip, made.jitter, made.grey, made.blur, made.sigma, *made.factors.T, *made.box.T[:2]]
    together = np.corrcoef(np.array(columns, np.float64))
    np.fill_diagonal(together, 0)
    together[-1, -2] = together[-2, -1] = 0  # corners of larger boxes are both nearer to the edge
    assert np.abs(together).max() < 5 / math.sqrt(COUNTED)


def test_no_two_keys_share_a_draw():
    made = drawn(moco_v2, 32, 256, 256)
    rows = np.concatenate([made.factors, made.sigma[:, None]], axis=1)
    assert len(np.unique(rows, axis=0)) == COUNTED


def test_places_do_not_overlap():
    numbers = [i for place in PLACES.values() for i in (range(COUNT)[place] if isinstance(place, slice) else [place])]
    assert sorted(numbers) == list(range(COUNT))


def test_streams_begin_above_the_places():
    assert min(STREAMS.values()) > COUNT and len(set(STREAMS.values())) == len(STREAMS)


def test_an_op_more_changes_no_other_decision():
    ops = moco_v2(32)["query"]
    fewer = {name: value for name, value in ops.items() if name != "blur"}
    more = {**ops, "randaugment": infomin(32)["query"]["randaugment"]}
    key = jax.random.key(3)
    many, some, few = jax.jit(lambda: [draw_view(each, key, 32, 32) for each in (more, ops, fewer)])()
    for name in some._fields:
        if name not in ("blur", "sigma"):
            np.testing.assert_array_equal(getattr(some, name), getattr(few, name))
        if name != "layers":
            np.testing.assert_array_equal(getattr(some, name), getattr(many, name))
