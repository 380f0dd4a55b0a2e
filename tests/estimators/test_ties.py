import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.estimators.registry import tied_sides
from mi_contrast.estimators.ties import most_copies, spread_ties


def test_spread_values_keep_their_order_and_can_be_read_off():
    rng = np.random.default_rng(0)
    x = np.stack([rng.integers(-30, 30, 900) * 0.1, rng.normal(size=900), np.full(900, 7.0)], axis=1)
    spread = spread_ties(x, 3, rng)
    assert most_copies(spread) == 1 and (spread[:, 1:] == x[:, 1:]).all(), "columns without ties stay as they are"
    values = np.unique(x[:, 0])
    assert (values[np.searchsorted(values, spread[:, 0] + 1e-12, side="right") - 1] == x[:, 0]).all()
    assert spread_ties(x[:, 1:], 3, rng) is not None and np.shares_memory(spread_ties(x[:, 1:], 3, rng), x)


@pytest.mark.parametrize("step", [0.1, 0.3])
def test_neighbours_among_spread_values_read_the_truth(step):
    """Rounding to `step` standard deviations takes at most .02 nats away; as they are, rounded values read far off."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 1))
    y = 0.8 * x + 0.6 * rng.normal(size=(1500, 1))
    truth = -0.5 * np.log(1 - 0.8**2)
    rounded = np.round(np.concatenate([x, y], axis=1) / step) * step
    spread = spread_ties(rounded, 3, rng)
    assert float(mi.ksg(spread[:, 0], spread[:, 1], normal_scores=True).nats) == pytest.approx(truth, abs=0.06)
    with pytest.warns(UserWarning, match="a value repeats"):
        tied = float(mi.ksg(rounded[:, 0], rounded[:, 1], normal_scores=True).nats)
    assert not abs(tied - truth) < 0.1, "too much by .1 or more, or NaN"


def test_labels_and_pairs_that_are_all_copies_are_no_tied_numbers():
    rng = np.random.default_rng(0)
    rounded, label, number = (
        rng.normal(size=(400, 1)).round(1),
        rng.integers(3, size=(400, 1)),
        rng.normal(size=(400, 1)),
    )
    assert tied_sides(rounded, number, 3) == (True, False) and tied_sides(label, rounded, 3) == (False, True)
    assert tied_sides(number, number[::-1], 3) == (False, False)
    grid = np.repeat(np.arange(16.0), 4)[:, None]
    assert tied_sides(grid, grid, 3) == (False, False)
