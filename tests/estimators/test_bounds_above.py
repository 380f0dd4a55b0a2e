import numpy as np
import pytest

from mi_contrast import estimators as mi

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(6, 6)).astype(np.float32)


@pytest.mark.parametrize("bound", [mi.club, mi.leave_one_out])
def test_a_function_of_y_cancels_and_one_of_x_does_not(bound):
    shift = RNG.normal(size=6).astype(np.float32)
    assert bound(SCORES + shift) == pytest.approx(float(bound(SCORES)), abs=1e-5)
    if bound is mi.leave_one_out:
        assert abs(bound(SCORES + shift[:, None]) - bound(SCORES)) > 0.05


def test_leave_one_out_is_infonce_over_columns_without_the_positive():
    others = np.where(np.eye(6, dtype=bool), -np.inf, SCORES).T.astype(np.float64)
    expected = np.mean([np.log(np.exp(SCORES[i, i]) / (np.exp(others[i]).sum() / 5)) for i in range(6)])
    assert mi.leave_one_out(SCORES) == pytest.approx(expected, rel=1e-5)


def test_the_own_y_is_not_among_clubs_others():
    with_own = np.mean(np.diagonal(SCORES)) - SCORES.mean()  # the released form
    assert with_own == pytest.approx(float(mi.club(SCORES)) * 5 / 6, rel=1e-4)
