"""Independent motions read nothing that isn't there, and motions in common are found; figures are of 40 frames."""

import jax
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from mi_contrast.estimators.pairwise import shifted_pairs

RNG = np.random.default_rng(11)


def steps(count, samples=39, phi=0.0, size=2, warm=60):
    """Steps [count, samples, size] of unit variance, each phi of the one before."""
    made = RNG.normal(size=(count, samples + warm, size))
    for t in range(1, samples + warm):
        made[:, t] = phi * made[:, t - 1] + np.sqrt(1 - phi**2) * made[:, t]
    return made[:, warm:]


def tracks(of_steps):
    """Positions whose differences are these steps."""
    return np.cumsum(np.pad(of_steps, ((0, 0), (1, 0), (0, 0))), axis=1)


def test_series_of_tracks_are_the_equations():
    made = tracks(steps(3, phi=0.6))
    np.testing.assert_allclose(mi.displacements(made), np.diff(made, axis=1), atol=1e-5)
    np.testing.assert_allclose(mi.second_differences(made), np.diff(made, n=2, axis=1), atol=1e-5)
    moved = np.diff(made, axis=1)
    order = 3
    found = np.asarray(mi.prewhitened(made, order))
    assert found.shape == (3, 39 - order, 2)
    for track in range(3):
        for axis in range(2):
            x = moved[track, :, axis]
            lags = np.stack([np.ones(39 - order), *(x[order - lag : 39 - lag] for lag in range(1, order + 1))], 1)
            weights = np.linalg.lstsq(lags, x[order:], rcond=None)[0]
            np.testing.assert_allclose(found[track, :, axis], x[order:] - lags @ weights, atol=1e-4)
    unit = np.asarray(mi.of_unit_size(moved))
    np.testing.assert_allclose(unit, moved / np.sqrt(moved.var(axis=1).sum(axis=-1))[:, None, None], rtol=1e-5)
    assert np.abs(mi.prewhitened(np.zeros((1, 20, 2)))).max() == 0
    with pytest.raises(UserError, match="smaller order"):
        mi.prewhitened(made, 19)


def test_twins_are_those_of_a_loop_over_shifts():
    series = steps(7)
    series[4] = series[1] + 0.2 * series[4]
    where = np.arange(7) != 5
    shifts = (3, 8, 20, 36, 31, 12, 17, 25, 33, 5, 6, 10, 14, 19, 22, 28, 30, 34, 35)
    found = mi.twins(series, shifts=shifts, where=where)
    nats = np.where(where & where[:, None], shifted_pairs(series, np.array([0, *shifts])), -np.inf)
    most = nats.max(axis=2)  # each shift by itself, no opposite taken from another's columns
    there = np.flatnonzero(where)
    p = (1 + (most[1:] >= most[0]).sum(axis=0)) / (1 + len(shifts))
    np.testing.assert_array_equal(np.asarray(found.partner)[there], nats[0].argmax(axis=1)[there])
    np.testing.assert_allclose(np.asarray(found.nats)[there], most[0][there], atol=1e-6)
    np.testing.assert_allclose(np.asarray(found.null)[there], most[1:].mean(axis=0)[there], atol=1e-5)
    np.testing.assert_allclose(np.asarray(found.p)[there], p[there], atol=1e-6)
    assert found.partner[1] == 4 and found.partner[4] == 1 and found.accepted[1] and found.accepted[4]
    assert (found.partner[5], found.p[5], found.accepted[5]) == (5, 1.0, False) and np.isnan(found.nats[5])
    apart = np.asarray(mi.twins(series, where=np.abs(np.subtract.outer(np.arange(7), np.arange(7))) < 3).partner)
    assert (np.abs(apart - np.arange(7)) < 3).all() and apart[1] != 4
    alone = mi.twins(series, where=np.arange(7) == 2)
    np.testing.assert_array_equal(alone.partner, np.arange(7))
    assert not alone.accepted.any()


def test_shifts_are_distinct_and_within_reach():
    for samples in (39, 40, 25):
        for count in (19, 20, 1):
            shifts = mi.spread_shifts(samples, count)
            assert len(set(shifts)) == count and min(shifts) >= 3 and max(shifts) <= samples - 3
    drawn = mi.spread_shifts(39, 19, jax.random.key(0))
    assert len(set(drawn)) == 19 and min(drawn) >= 3 and max(drawn) <= 36 and drawn != mi.spread_shifts(39, 19)
    assert mi.spread_shifts(39, 34) == tuple(range(3, 37))


@pytest.mark.nightly
def test_motions_without_memory_are_accepted_at_the_level_and_positions_are_not():
    """The largest of 31 partners: as often below .05 as it says; a test of each pair would fire nearly always."""
    rates, raw, any_pair = [], [], []
    for _ in range(12):
        made = tracks(steps(32))
        series = mi.displacements(made)
        rates.append(float(np.mean(mi.twins(series).accepted)))
        raw.append(float(np.mean(mi.twins(mi.SERIES["raw"](made)[:, 1:]).accepted)))
    of_shift = np.asarray(shifted_pairs(series, np.array([0, *mi.spread_shifts(39, 19)])))
    any_pair = ((1 + (of_shift[1:] >= of_shift[0]).sum(axis=0)) / 20 <= 0.05).sum(axis=1) > 0  # of 31: 80 %
    # 384 anchors, not quite independent: spread about .011 for white steps (.0135 measured).
    assert 0.01 <= np.mean(rates) <= 0.05 + 3 * 0.0135
    assert np.mean(raw) > 0.1 and any_pair.mean() > 0.6


def test_what_autocorrelation_makes_of_nothing_and_prewhitening_of_that():
    """400 independent pairs in the plane at 40 frames: means have a spread of sd / 20."""
    read = {}
    for phi in (0.0, 0.9):
        x, y = tracks(steps(400, phi=phi)), tracks(steps(400, phi=phi))
        for word in ("raw", "displacement", "second_difference", "prewhitened"):
            # the same number of samples for all: one program
            series = (mi.SERIES[word](z)[:, -38:] for z in (x, y))
            read[word, phi] = float(mi.ksg(*series, errors=False).nats.mean())
    expected = {
        ("raw", 0.0): (0.76, 0.08),
        ("raw", 0.9): (1.60, 0.08),
        ("displacement", 0.0): (0.0, 0.02),
        ("displacement", 0.9): (0.43, 0.06),
        ("second_difference", 0.9): (0.0, 0.02),
        ("prewhitened", 0.9): (0.0, 0.05),
    }
    for case, (value, within) in expected.items():
        assert read[case] == pytest.approx(value, abs=within), case


def test_a_true_partner_is_found_as_often_as_its_correlation_says():
    """Partners in pairs of correlation c an axis: right 94 % and accepted 79 % at .7, all at .9, few at .5."""
    found = {}
    for c in (0.5, 0.7, 0.9):
        right = []
        for _ in range(3):
            series = steps(32)
            series[16:] = c * series[:16] + np.sqrt(1 - c**2) * series[16:]
            twins = mi.twins(series)
            right.append((np.asarray(twins.partner) == (np.arange(32) + 16) % 32) & np.asarray(twins.accepted))
        found[c] = np.mean(right)
    assert found[0.5] < 0.45 < 0.6 < found[0.7] and found[0.9] == 1


def test_groups_that_move_together_are_ranked_first_by_steps_and_not_by_positions():
    """Eight groups of eight, two of one correlate by .7 along each axis: the ROC curve's area is .99 and .77."""
    group = np.repeat(np.arange(8), 8)
    upper = np.triu_indices(64, 1)
    same = (group[:, None] == group)[upper]
    made = tracks(np.sqrt(0.7) * np.repeat(steps(8), 8, axis=0) + np.sqrt(0.3) * steps(64))
    area = {}
    for word in ("displacement", "raw"):
        nats = np.asarray(mi.all_pairs(mi.SERIES[word](made)[:, -39:]))[upper]
        area[word] = np.mean(nats[same][:, None] > nats[~same])
    assert area["displacement"] >= 0.95 and area["raw"] < 0.9


def test_a_shaking_camera_is_information_until_its_median_step_is_taken_out():
    """Own steps and a jitter twice as large: 1.02 nats in truth, .8 as read at 80 frames, 0 less the median of 64."""
    shaken = steps(64, 79) + 2 * steps(1, 79)
    upper = np.triu_indices(64, 1)
    as_seen, less = (np.asarray(mi.all_pairs(s))[upper].mean() for s in (shaken, shaken - np.median(shaken, axis=0)))
    assert as_seen == pytest.approx(0.81, abs=0.12) and abs(less) < 0.02


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: mi.twins(s, shifts=9), "give 19 shifts or more"),
        (lambda s: mi.twins(s, shifts=40), "give 1 to 34"),
        (lambda s: mi.twins(s, shifts=[3, 3] * 10), "distinct"),
        (lambda s: mi.twins(s, shifts=range(2, 30)), "from 3 to 36"),
        (lambda s: mi.twins(s, estimator="3kl"), "three_kl"),
        (lambda s: mi.twins(s, where=np.ones(4, bool)), "for 3 series"),
    ],
)
def test_mistakes_are_said(call, said):
    with pytest.raises(UserError, match=said):
        call(np.zeros((3, 39, 2)))
