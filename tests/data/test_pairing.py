"""Pairs and hold-outs against rules written out in plain Python."""

from collections import Counter

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mi_contrast.core.errors import UserError
from mi_contrast.data.pairing import draw_partner, make_distinct_pairs, make_pairing, split_held_out
from tests.data.toys import toy_set

N, MEMBERS, DRAWS = 24, 20, 64  # of fixed size, so that one compilation serves every example
FACTORS = ("digit", "place", "clip")
draw = jax.jit(jax.vmap(jax.vmap(draw_partner, (None, None, 0)), (None, 0, None)))


@st.composite
def paired(draw):
    """A set with random factors, some of its members, and factors to share."""
    columns = {name: np.array(draw(st.lists(st.integers(0, 3), min_size=N, max_size=N)), np.int32) for name in FACTORS}
    members = np.sort(np.array(draw(st.permutations(range(N)))[:MEMBERS], np.int32))
    shared = tuple(draw(st.lists(st.sampled_from(FACTORS), unique=True)))
    return toy_set(N, factors=columns), members, shared


def allowed(images, members, shared, index):
    """Who may be the partner of an example, by the rule in words."""
    if not shared:
        return {index}
    same = [m for m in members if m != index and all(images.factors[f][m] == images.factors[f][index] for f in shared)]
    if "clip" not in shared:
        other = [m for m in same if images.factors["clip"][m] != images.factors["clip"][index]]
        same = other or same
    return set(same) or {index}


@settings(deadline=None, max_examples=30)
@given(paired())
def test_a_partner_shares_what_is_asked_and_comes_from_another_clip(case):
    images, members, shared = case
    found = np.asarray(draw(make_pairing(images, members, shared), members, jax.random.split(jax.random.key(0), DRAWS)))
    for index, partners in zip(members, found, strict=True):
        may = allowed(images, members, shared, index)
        assert set(partners.tolist()) <= may
        assert len(may) > 4 or set(partners.tolist()) == may  # each is drawn in 64 draws, but once in a million


@settings(deadline=None, max_examples=30)
@given(paired(), st.integers(0, 5))
def test_distinct_pairs_are_distinct_on_both_sides(case, seed):
    images, members, shared = case
    lonely = sum(bool(shared) and allowed(images, members, shared, m) == {m} for m in members)
    pairs = make_distinct_pairs(images, members, MEMBERS - lonely, shared, seed)
    assert pairs.shape == (MEMBERS - lonely, 2 if shared else 1) and pairs.dtype == np.int32
    assert all(
        len(set(side.tolist())) == len(pairs) and set(side.tolist()) <= set(members.tolist()) for side in pairs.T
    )
    for anchor, other in pairs if shared else ():
        assert anchor != other and all(images.factors[f][anchor] == images.factors[f][other] for f in shared)
    for several in clips_that_can_all_be_left(images, members, shared):
        assert all(images.factors["clip"][a] != images.factors["clip"][b] for a, b in pairs if a in several)
    with pytest.raises(
        UserError, match=f"has {len(pairs)} distinct pairs among 20 held-out examples, not {len(pairs) + 1}"
    ):
        make_distinct_pairs(images, members, len(pairs) + 1, shared, seed)


def clips_that_can_all_be_left(images, members, shared):
    """The sets of members with equal shared factors in which no clip has more than half of them."""
    if not shared or "clip" in shared:
        return []
    sets = {}
    for m in members:
        sets.setdefault(tuple(images.factors[f][m] for f in shared), []).append(m)
    clip = images.factors["clip"]
    return [set(s) for s in sets.values() if 2 * max(Counter(clip[m] for m in s).values()) <= len(s)]


def test_partners_are_uniform():
    digit = np.repeat(np.arange(3, dtype=np.int32), 8)
    images = toy_set(N, factors={"digit": digit, "clip": np.arange(N, dtype=np.int32) // 2})
    pairing = make_pairing(images, np.arange(N), ("digit",))
    drawn = np.asarray(draw(pairing, np.array([11]), jax.random.split(jax.random.key(1), 6000)))[0]
    counts = np.bincount(drawn, minlength=N)
    assert counts[[10, 11]].sum() == 0 == counts[digit != 1].sum()  # neither its clip nor another digit
    assert stats.chisquare(counts[[8, 9, 12, 13, 14, 15]]).pvalue > 1e-3


def test_sharing_the_digit_leaves_background_and_place_to_chance(digits_dir):
    from mi_contrast.data import sets

    images = sets.load("moving_digits", "train", data_dir=digits_dir, options={"size": 32, "length": 2})
    members = np.arange(len(images), dtype=np.int32)
    keys = jax.random.split(jax.random.key(0), len(images))
    found = np.asarray(
        jax.jit(jax.vmap(draw_partner, (None, 0, 0)))(make_pairing(images, members, ("digit",)), members, keys)
    )
    same = {name: (of[found] == of).mean() for name, of in images.factors.items()}
    assert same["digit"] == 1 and same["clip"] == 0
    assert abs(same["background"] - 1 / 12) < 0.03 and abs(same["position"] - 1 / 9) < 0.03
    # Control: any other frame of the instance, its own clip included, gives the background away.
    naive = members.reshape(-1, 4)[:, ::-1].reshape(-1)
    own = np.where(np.arange(len(members)) % 3 == 0, members ^ 1, naive)
    assert (images.factors["background"][own] == images.factors["background"]).mean() > 0.3
    # The instance is shared, never the label alone.
    assert np.array_equal(images.labels["digit"][found], images.labels["digit"])
    assert (images.groups[found] == images.groups).all()


def test_frames_of_a_clip_are_pairs(digits):
    """shared=('clip',): the two frames of one take, over the same background, the digit elsewhere."""
    members = np.arange(len(digits), dtype=np.int32)
    keys = jax.random.split(jax.random.key(2), len(digits))
    drawn = jax.jit(jax.vmap(draw_partner, (None, 0, 0)))(make_pairing(digits, members, ("clip",)), members, keys)
    fixed = make_distinct_pairs(digits, members, len(members), ("clip",), 0)
    for one, other in ((members, np.asarray(drawn)), fixed.T):
        np.testing.assert_array_equal(other, one ^ 1)  # a clip's two frames lie side by side
        for name in ("digit", "background", "clip"):
            np.testing.assert_array_equal(digits.factors[name][one], digits.factors[name][other])
        moved = (digits.images(one) != digits.images(other)).any(axis=(1, 2, 3))
        assert moved.mean() > 0.95
    # Control: frames that share the digit alone are never of one clip.
    apart = make_distinct_pairs(digits, members, 50, ("digit",), 0)
    assert (apart[:, 0] // 2 != apart[:, 1] // 2).all()


@pytest.mark.parametrize("entry", ["make_pairing", "distinct_pairs"])
def test_an_unknown_factor_is_one_line(entry):
    def call(images, shared):
        if entry == "make_pairing":
            make_pairing(images, np.arange(N), shared)
        else:
            make_distinct_pairs(images, np.arange(N), 2, shared, 0)

    images = toy_set(N, factors={"digit": np.zeros(N, np.int32)})
    with pytest.raises(UserError, match="unknown factor of toy 'digits'; did you mean 'digit'"):
        call(images, ("digits",))
    with pytest.raises(UserError, match=r"toy has no factor 'digit' to share; give --config.data.shared='\(\)'"):
        call(toy_set(N), ("digit",))


def test_pairs_differ_by_seed_and_repeat():
    images = toy_set(N, factors={"digit": np.arange(N, dtype=np.int32) % 2, "clip": np.arange(N, dtype=np.int32)})
    one, again, other = (make_distinct_pairs(images, np.arange(N), 20, ("digit",), seed) for seed in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.99))
def test_a_hold_out_takes_whole_groups(groups, fraction):
    images = toy_set(len(groups), groups=np.array(groups, np.int32))
    if len(set(groups)) == 1:
        with pytest.raises(UserError, match="is one group"):
            split_held_out(images, fraction)
        return
    kept, held = split_held_out(images, fraction)
    assert sorted([*kept, *held]) == list(range(len(groups)))
    assert kept.dtype == held.dtype == np.int32 and (np.diff(kept) > 0).all() and (np.diff(held) > 0).all()
    inside, outside = ({groups[i] for i in side} for side in (held, kept))
    assert not inside & outside and inside and outside
    wanted = round(fraction * len(inside | outside))
    assert len(inside) == min(max(wanted, 1), len(inside | outside) - 1)


def test_a_twentieth_is_held_out_for_good(digits):
    kept, held = split_held_out(toy_set(1000))
    assert len(held) == 50 and np.array_equal(held, split_held_out(toy_set(1000))[1])
    assert held[:4].tolist() == PINNED  # a change here changes what every run has not seen
    assert abs(held.mean() - 500) < 120  # from all over the set
    kept, held = split_held_out(digits)
    assert not set(digits.groups[kept]) & set(digits.groups[held]) and len(held) == 4 * 4


def test_two_examples_are_held_out_of_few():
    """One makes no pair to measure. A larger set, and whoever asks for no number, is divided as before."""
    assert [len(split_held_out(toy_set(n), least=2)[1]) for n in (3, 10, 24, 40, 1000)] == [2, 2, 2, 2, 50]
    assert [len(split_held_out(toy_set(n))[1]) for n in (3, 10, 24)] == [1, 1, 1]
    groups = np.repeat(np.arange(5, dtype=np.int32), 3)
    assert len(split_held_out(toy_set(15, groups=groups), least=2)[1]) == 3  # a group has enough


PINNED = [48, 74, 89, 96]


def test_a_set_may_choose_partners_itself():
    chosen = {"twin": (np.arange(N) + 1) % N, "self": np.arange(N)}
    images = toy_set(N, partners={name: x.astype(np.int32) for name, x in chosen.items()})
    members = np.arange(4, N, dtype=np.int32)[::-1]
    for word in ("self", "twin"):
        within = members[1:] if word == "self" else np.setdiff1d(members, [N - 1])
        if word == "twin":  # the last one's twin is 0, which is no member
            message = f"the partner of example {N - 1} of toy train is not a training example"
            with pytest.raises(UserError, match=message):
                make_pairing(images, members, (), word)
            images = toy_set(N, partners={"twin": np.where(np.arange(N) == N - 2, N - 2, chosen["twin"])})
        found = draw(make_pairing(images, within, (), word), within, jax.random.split(jax.random.key(0), 4))
        expected = within if word == "self" else np.where(within == N - 2, within, within + 1)
        np.testing.assert_array_equal(found, expected[:, None].repeat(4, axis=1))  # whatever is drawn
    for asked, said in (
        ((images, members, (), "twim"), "unknown partner of toy 'twim'; did you mean 'twin'"),
        ((images, members, ("digit",), "twin"), "both choose the second image: 'twin' and digit"),
        ((toy_set(N), members, (), "twin"), "toy has no partners to choose from; give --config.data.name=pairs:FOLDER"),
    ):
        with pytest.raises(UserError, match=said):
            make_pairing(*asked)
