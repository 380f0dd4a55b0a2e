import numpy as np
import pytest

from mi_contrast.data import partners

RNG = np.random.default_rng(4)
P = 9
CENTRES = np.stack(np.meshgrid([4, 12, 20], [4, 12, 20], indexing="ij"), axis=-1).reshape(-1, 2)
WHERE = np.arange(P) != 8


def test_controls_are_what_a_loop_finds():
    patches = RNG.integers(100, 156, (P, 6, 6, 3)).astype(np.uint8)
    patches[5] = patches[0] // 2 + 130  # of another brightness and contrast, still most like patch 0
    may = partners.find_eligible(CENTRES, WHERE, 8)
    found = partners.choose_controls(CENTRES, patches, may, np.random.default_rng(0))
    pixels = patches.reshape(P, 36, 3).astype(float)
    pixels -= pixels.mean(axis=1, keepdims=True)
    for a in range(P - 1):
        others = [b for b in range(P - 1) if b != a]
        alike = [((pixels[a] - pixels[b]) ** 2).mean() for b in others]
        apart = [np.linalg.norm(CENTRES[a] - CENTRES[b]) for b in others]
        assert found["alike"][a] == others[int(np.argmin(alike))]
        assert found["near"][a] == others[int(np.argmin(apart))]
        assert found["random"][a] in others
    assert found["alike"][0] == 5
    assert all(of[8] == 8 and of.dtype == np.int32 for of in found.values())
    drawn = [partners.choose_controls(CENTRES, patches, may, np.random.default_rng(s))["random"][0] for s in range(300)]
    counts = np.bincount(drawn, minlength=P)
    assert counts[0] == counts[8] == 0 and counts[1:8].min() > 20  # 43 each, sd 6
    far = partners.choose_controls(CENTRES, patches, partners.find_eligible(CENTRES, WHERE, 9), RNG)["near"]
    assert np.abs(CENTRES - CENTRES[far]).max(axis=1).tolist() == [16] * 4 + [0] + [16] * 3 + [0]  # the middle has none


def test_shares_are_those_at_equal_distance():
    of = (CENTRES[:, 1] < 10).astype(np.int32)  # the left column is an object
    may = partners.find_eligible(CENTRES, WHERE, 1)
    twin = np.array([3, 0, 1, 0, 3, 4, 3, 6, 8])
    found = partners.same_object_shares(of, CENTRES, may, {"twin": twin})
    np.testing.assert_array_equal(found["twin"][:8], [1, 0, 1, 1, 0, 1, 1, 0])
    assert np.isnan(found["twin"][8]) and np.isnan(found["at_twin"][8])
    assert found["any"][0] == pytest.approx(2 / 7)
    # Patch 0's twin is 8 pixels off. Six others, by how near 8 they are: 1 (8), 4 (11.3), 2 and 6 (16), 5 and 7 (17.9):
    # of them 6 alone is of the object.
    assert found["at_twin"][0] == pytest.approx(1 / 6)


def test_a_partner_by_distance_alone_is_no_better_than_those_at_its_distance():
    """Negative control: on random objects, of random partners, both shares agree; of object-wise twins they do not."""
    centres = np.stack(np.meshgrid(np.arange(12) * 8, np.arange(12) * 8, indexing="ij"), axis=-1).reshape(-1, 2)
    of = (np.hypot(*(centres - 40).T) < 25).astype(np.int32)
    may = partners.find_eligible(centres, np.ones(144, bool), 8)
    draw = np.random.default_rng(0)
    blind = partners.argmin_allowed(draw.random(may.shape), may)
    seeing = partners.argmin_allowed(draw.random(may.shape) + (of != of[:, None]), may)
    same = partners.same_object_shares(of, centres, may, {"twin": blind, "seeing": seeing})
    on = of > 0
    assert abs(same["twin"][on].mean() - same["at_twin"][on].mean()) < 0.15
    assert same["seeing"][on].mean() == 1 and same["at_seeing"][on].mean() < 0.8
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1)
    for a in range(0, 144, 7):  # the nearest to the partner's distance, with those that tie for the last place
        off = np.abs(apart[a] - apart[a, blind[a]])
        others = np.flatnonzero(may[a] & (np.arange(144) != blind[a]))
        chosen = others[off[others] <= np.sort(off[others])[5]]
        assert same["at_twin"][a] == pytest.approx(np.mean(of[chosen] == of[a]))
    clips = np.arange(144) // 24
    groups = partners.summarise_shares(same, on, np.ones(144, bool), clips)
    assert groups["on_object"]["patches"] == on.sum() and groups["all"]["seeing"] == 1.0
    mean, low, high = groups["on_object"]["over"]["at_twin"]
    assert mean == pytest.approx((same["twin"] - same["at_twin"])[on].mean(), abs=1e-4) and low < 0 < high
    empty = partners.summarise_shares(same, np.zeros(144, bool), np.ones(144, bool), clips)["on_object"]
    assert empty == {"patches": 0, "over": {}}


@pytest.mark.nightly
def test_an_interval_is_over_clips_and_holds_the_truth_as_often_as_it_says():
    """100 times 20 clips of 5 to 15 patches each whose mean is the clip's; control: patches taken as independent."""
    draw, held, alone = np.random.default_rng(1), [], []
    for _ in range(100):
        clip = np.repeat(np.arange(20), draw.integers(5, 16, 20))
        values = draw.normal(size=20)[clip] + 0.3 * draw.normal(size=len(clip))
        values[0] = np.nan
        for of, into in ((clip, held), (np.arange(len(clip)), alone)):
            mean, low, high = partners.bootstrap_interval(values, of)
            assert mean == pytest.approx(np.nanmean(values), abs=1e-4)
            into.append(low <= 0 <= high)
    assert 0.85 < np.mean(held) < 0.98 and np.mean(alone) < 0.65
