"""Every estimator from a square matrix, of all three files, against loops over its pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from tests.estimators import reference_matrices as loops

N = 5
RNG = np.random.default_rng(3)
EYE = np.eye(N, dtype=bool)
REAL = (1.5 * RNG.normal(size=(N, N)) + EYE).astype(np.float32)
LOG_A = RNG.normal(size=N).astype(np.float32)
ALPHAS = 0.0, 0.01, 0.5, 1.0


def changed(place, score):
    scores = REAL.copy()
    scores[place] = score
    return scores


REMOVED = np.where(RNG.random((N, N)) < 0.3, -np.inf, REAL)
REMOVED[1, 1], REMOVED[3] = -np.inf, np.where(np.arange(N) == 3, REAL[3], -np.inf)  # no positive; no crossed pair
KEPT = np.arange(N) < N - 2
SMALLER = np.where(KEPT & KEPT[:, None], REAL, -np.inf)
MATRICES = {
    "real": REAL,
    "ties": np.round(REAL),
    "low": REAL - 30,
    "removed": REMOVED,
    "half": np.asarray(jnp.asarray(REAL, jnp.bfloat16), np.float32),
    "large": REAL + 200,
    "far": np.where(np.arange(N) == 2, REAL + 80, REAL - 80),  # one score leads each row
    "smaller": SMALLER,
    "not smaller": np.where(np.isneginf(SMALLER), -1e4, SMALLER),
    "only joint": np.where(EYE, REAL, -np.inf),
    "only crossed": np.where(EYE, -np.inf, REAL),
    "nothing": np.full((N, N), -np.inf),
    "NaN joint": changed((0, 0), np.nan),
    "NaN crossed": changed((1, 3), np.nan),
    "infinite": changed((1, 3), np.inf),
}
MATRICES = {kind: scores.astype(np.float32) for kind, scores in MATRICES.items()}

PAST, DECAY = (2.0, 0.3), 0.9  # partitions of two earlier batches
EARLIER = mi.Partition(np.log(np.float32(0.1 * (DECAY * PAST[0] + PAST[1]))), np.int32(2))


def mine(scores):
    partition = jax.tree.map(lambda x: jnp.broadcast_to(x, scores.shape[:-2]), EARLIER)
    return mi.mine(scores, partition, decay=DECAY)[0]


def frozen(F):
    """The surrogate of `mine` at F: its average does not move with what is differentiated."""
    return functools.partial(loops.mine_surrogate, log_average=loops.corrected_average(PAST, F, DECAY))


def divergence(F):
    return loops.divergence


# name: what is called, the value's loop, and what gives the surrogate's loop at a matrix (None: the value's own)
FORMS = {
    "nwj": (mi.nwj, loops.nwj, None),
    "tuba": (lambda f: mi.tuba(f, LOG_A), lambda F: loops.tuba(F, LOG_A), None),
    "donsker_varadhan": (mi.donsker_varadhan, loops.donsker_varadhan, None),
    "mine": (mine, loops.donsker_varadhan, frozen),
    "jensen_shannon": (mi.jensen_shannon, loops.jensen_shannon, divergence),
    "smile": (lambda f: mi.smile(f, 1.0), lambda F: loops.smile(F, 1.0), divergence),
    "smile inf": (lambda f: mi.smile(f, np.inf), loops.donsker_varadhan, divergence),
    "club": (mi.club, loops.club, None),
    "leave_one_out": (mi.leave_one_out, loops.leave_one_out, None),
}
LOOPS = {name: loop for name, (_, loop, _) in FORMS.items()}
for alpha in ALPHAS:
    for strict in (False, True):
        name = f"interpolated {alpha} {strict}"
        LOOPS[name] = functools.partial(loops.interpolated, alpha=alpha, log_q=LOG_A, strict=strict)
# e^200 is no float32
OVERFLOWING = ("nwj", "tuba", "jensen_shannon", "interpolated 0.0 False", "interpolated 0.0 True")


def interpolated(scores, strict):
    each = [mi.interpolated(scores, a, log_baseline=LOG_A, strict=strict) for a in ALPHAS]
    return {f"interpolated {a} {strict}": value for a, value in zip(ALPHAS, each, strict=True)}


def of_each(scores):
    return {name: form(scores) for name, (form, *_) in FORMS.items()}


def values_and_slopes(scores):
    found = {name: jax.value_and_grad(form)(scores) for name, (form, *_) in FORMS.items()}
    for strict in (False, True):
        form = functools.partial(mi.interpolated, log_baseline=LOG_A, strict=strict)
        values, slopes = jax.vmap(jax.value_and_grad(form), (None, 0))(scores, jnp.array(ALPHAS))
        found |= {f"interpolated {a} {strict}": (values[i], slopes[i]) for i, a in enumerate(ALPHAS)}
    return found


@pytest.fixture(scope="module")
def found():
    """By kind of matrix and estimator, value and slopes: all of it one program."""
    together = jax.jit(jax.vmap(values_and_slopes))(np.stack(list(MATRICES.values())))
    together = jax.tree.map(np.asarray, together)
    return {kind: jax.tree.map(lambda x, i=i: x[i], together) for i, kind in enumerate(MATRICES)}


@pytest.mark.parametrize("kind", ["real", "ties", "low", "removed", "large", "far"])
def test_values_are_the_equations_and_gradients_those_of_the_surrogates(found, kind):
    F = MATRICES[kind].astype(np.float64)
    largest = abs(F[np.isfinite(F)]).max()
    for name, loop in LOOPS.items():
        value, slope = found[kind][name]
        expected = loop(F)
        if expected < np.finfo(np.float32).min:
            assert value == -np.inf and name in OVERFLOWING
        else:
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-5 + 1e-7 * largest), name
        surrogate = FORMS[name][2] if name in FORMS else None
        if abs(value) < 1e6 or surrogate:  # else differences see nothing beside the value
            step = 1e-6 * max(1, largest)
            expected = loops.slopes(surrogate(F) if surrogate else loop, F, step)
            np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=2e-5, err_msg=name)


def test_leading_axes_and_bfloat16(found):
    stack = jnp.asarray([[REAL], [REAL]], jnp.bfloat16)
    together = jax.jit(lambda s: of_each(s) | interpolated(s, True) | interpolated(s, False))(stack)
    for name, values in together.items():
        assert values.shape == (2, 1) and values.dtype == jnp.float32, name
        np.testing.assert_allclose(values, np.full((2, 1), found["half"][name][0]), rtol=1e-5, atol=1e-6, err_msg=name)
    assert jax.grad(mi.club)(stack[0, 0]).dtype == jnp.bfloat16


@pytest.mark.nightly
def test_without_jit(found):
    strict = functools.partial(mi.interpolated, alpha=0.5, log_baseline=LOG_A, strict=True)
    with jax.disable_jit():
        for name, form in {"mine": mine, "interpolated 0.5 True": strict}.items():
            assert form(MATRICES["removed"]) == pytest.approx(float(found["removed"][name][0]), rel=1e-5), name


def test_removed_rows_and_columns_leave_the_smaller_matrix(found):
    small = MATRICES["smaller"][KEPT][:, KEPT].astype(np.float64)
    for name, loop in LOOPS.items():
        if name != "tuba" and "interpolated" not in name:
            assert found["smaller"][name][0] == pytest.approx(loop(small), rel=1e-5, abs=1e-5), name
        assert (found["smaller"][name][1][~KEPT] == 0).all() and (found["smaller"][name][1][:, ~KEPT] == 0).all()
    expected = loops.interpolated(small, 0.5, LOG_A[KEPT], strict=True)
    assert found["smaller"]["interpolated 0.5 True"][0] == pytest.approx(expected, rel=1e-5)
    low = found["not smaller"]["donsker_varadhan"][0]  # the control: a low score still counts
    assert abs(low - found["smaller"]["donsker_varadhan"][0]) > 0.5


@pytest.mark.parametrize("kind", ["only joint", "only crossed", "nothing"])
def test_nothing_left_is_no_information(found, kind):
    for name, (value, slope) in found[kind].items():
        assert value == 0 and (slope == 0).all(), name


def test_neither_a_nan_nor_an_infinity_is_a_silent_number(found):
    for name in LOOPS:
        assert np.isnan(found["NaN joint"][name][0]) and np.isnan(found["NaN crossed"][name][0]), name
        expected = loops.smile(MATRICES["infinite"], 1.0) if name == "smile" else -np.inf
        assert found["infinite"][name][0] == pytest.approx(expected), name


def test_interpolation_ends_at_infonce_and_nwj():
    rows = mi.info_nce(np.diagonal(REAL), np.where(EYE, -np.inf, REAL)).mean()
    traced = {s: jax.jit(functools.partial(mi.interpolated, strict=s)) for s in (False, True)}
    assert traced[False](REAL, 1.0) == pytest.approx(float(rows), abs=1e-6)
    for strict, most in ((False, N), (True, N - 1)):
        assert traced[strict](REAL, 0.0) == pytest.approx(float(mi.nwj(REAL)), abs=1e-6)
        ceiling = float(mi.ceiling(most))
        assert traced[strict](REAL + 50 * np.eye(N, dtype=np.float32), 1.0) == pytest.approx(ceiling, abs=1e-5)
        assert np.isnan(traced[strict](REAL, np.nan))
    each = mi.interpolated(np.stack([REAL, REAL]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(each, [mi.nwj(REAL), rows], rtol=1e-6)


def test_baselines_carry_gradient_and_alpha_does_not():
    def value(log_a, alpha):
        return mi.tuba(REAL, log_a) + mi.interpolated(REAL, alpha, log_baseline=log_a, strict=True)

    def loop(log_a):
        return loops.tuba(REAL, log_a) + loops.interpolated(REAL.astype(float), 0.4, log_a, strict=True)

    to_baseline, to_alpha = jax.jit(jax.grad(value, argnums=(0, 1)))(LOG_A, 0.4)
    np.testing.assert_allclose(to_baseline, loops.slopes(loop, LOG_A.astype(float)), rtol=1e-4, atol=1e-5)
    assert to_alpha == 0


def test_a_baseline_as_large_as_the_scores():
    F = MATRICES["large"].astype(np.float64)
    assert mi.tuba(MATRICES["large"], 200.0) == pytest.approx(loops.tuba(F, 200.0), rel=1e-4)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.nwj(REAL[:, :-1]),
        lambda: mi.club(REAL[0]),
        lambda: mi.jensen_shannon(REAL[0, 0]),
        lambda: mi.donsker_varadhan(REAL[:1, :1]),
        lambda: mi.leave_one_out(np.zeros((3, 0, 0))),
        lambda: mi.tuba(REAL, LOG_A[:-1]),
        lambda: mi.tuba(REAL, REAL),
        lambda: mi.interpolated(REAL, 1.5),
        lambda: mi.interpolated(REAL, np.nan),
        lambda: mi.smile(REAL, 0.0),
        lambda: mi.smile(REAL, np.nan),
        lambda: mi.mine(REAL, mi.Partition.first(), decay=1.0),
        lambda: mi.mine(np.stack([REAL, REAL]), mi.Partition.first()),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)
