"""Adaptive schedules: their levels against a plain model, and in a step and a run."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.core.errors import UserError
from mi_contrast.core.schedules import adaptive, linear
from mi_contrast.data import sets
from mi_contrast.methods import method as methods
from mi_contrast.training import adaptive as levels
from mi_contrast.training import assemble, loop
from mi_contrast.training import optimiser as optimisers
from tests.training import rows, small


def method(lower, upper):
    found = small.config()["method"]
    found["terms"][0]["support"] |= dict(lower=lower, upper=upper)
    return found


class Plain:
    """The level as its description says it, in Python's numbers."""

    def __init__(self, every, by, window):
        self.every, self.by, self.window = every, by, window
        self.level, self.since, self.past = 0.0, [], []

    def step(self, step, value):
        self.since.append(value)
        if (step + 1) % self.every == 0:
            now = sum(self.since) / len(self.since)
            if self.past:
                before = sum(self.past[-self.window :]) / len(self.past[-self.window :])
                self.level += self.by * ((now > before) - (now < before))
                self.level = min(max(self.level, 0.0), 1.0)
            self.past.append(now)
            self.since = []


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 4),
    st.sampled_from([0.125, 0.25, 0.5, 1.0]),
    st.integers(1, 3),
    st.lists(st.integers(-8, 8), min_size=1, max_size=24),
)
def test_levels_are_those_of_a_plain_model(every, by, window, values):
    template = methods.build(method(0.0, adaptive(1.0, 0.5, every=every, by=by, window=window)))
    plain, carried = Plain(every, by, window), levels.init_levels(template)
    (name,) = carried
    for step, value in enumerate(values):
        plain.step(step, float(value))
        carried = levels.update_levels(template, carried, jnp.int32(step), jnp.float32(value))
        assert float(carried[name].level) == pytest.approx(plain.level, abs=1e-6)
        support = levels.resolve(template, carried).terms[0].support
        assert float(support["upper"]) == pytest.approx(1.0 - 0.5 * plain.level, abs=1e-6)


def test_schedules_of_one_pace_move_together_and_others_alone():
    lower, upper, apart = adaptive(0.0, 0.9), adaptive(0.9, 0.99), adaptive(0.2, 0.1, on="mi_nats")
    given = method(lower, upper)
    given["terms"][0]["temperature"] = apart
    template = methods.build(given)
    assert sorted(levels.init_levels(template)) == [
        "level_on_mi_nats_every_100_by_0.05_of_5",
        "level_on_objective_every_100_by_0.05_of_5",
    ]


@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (adaptive(0.0, 0.9), 0.8, "may come to lower 0.9 >= upper 0.8"),
        (adaptive(0.0, 0.9), adaptive(0.5, 0.95, every=7), "may come to lower 0.9 >= upper 0.5"),
        (adaptive(0.0, 0.9), adaptive(1.0, 0.9), "may come to lower 0.9 >= upper 0.9"),
        (adaptive(0.0, 0.5), linear(1.0, 0.4), "may come to lower 0.5 >= upper 0.4"),
        (adaptive(0.0, 0.5, on="loss"), 1.0, "'loss'"),
        (adaptive(0.0, 0.5, every=0), 1.0, "every 0"),
        (adaptive(0.0, 0.5, by=2.0), 1.0, "by 2.0"),
    ],
)
def test_a_band_that_could_close_is_refused(lower, upper, said):
    with pytest.raises(UserError, match=said):
        methods.build(method(lower, upper))


def test_rates_do_not_adapt():
    with pytest.raises(UserError, match="lr is adaptive"):
        optimisers.build(small.config()["optim"] | dict(lr=adaptive(0.1, 0.01)), 10)


@pytest.mark.nightly
def test_a_step_moves_the_ring_at_fixed_steps_only():
    config = rows.small("ring_moco")
    config["method"]["terms"][0]["support"] |= dict(lower=adaptive(0.0, 0.8, every=2, by=0.25), upper=1.0)
    _, state, scalars = rows.train(config, 7)
    lower = np.array([found["lower"] for found in scalars])
    assert lower[:4].tolist() == [0.0] * 4  # after the first two moves' means there is something to compare
    assert lower[4] == lower[5] and set(np.round(np.unique(lower), 6)) <= {0.0, 0.2, 0.4}
    (level,) = (x for name, x in state.carried.items() if name.startswith("level"))
    means = [np.mean([found["objective"] for found in scalars[i : i + 2]]) for i in (0, 2, 4)]
    np.testing.assert_allclose(level.past[:3], means[::-1], rtol=1e-5)


@pytest.mark.nightly
def test_a_run_that_follows_a_measurement_resumes_bit_for_bit(tmp_path):
    from tests.training.test_resume import different

    config = rows.whole("moco")
    config["method"]["terms"][0]["temperature"] = adaptive(0.2, 0.1, on="knn_top1", every=2, by=0.5)
    config["eval"]["every"] = 1
    whole = loop.run(config, tmp_path / "whole")
    loop.run(config, tmp_path / "parts", stop_at=3)
    loop.run(config, tmp_path / "parts")
    assert different(tmp_path / "whole", tmp_path / "parts") == []
    assert whole.complete


def test_what_is_not_measured_is_not_followed(monkeypatch):
    config = rows.whole("moco")
    config["method"]["terms"][0]["temperature"] = adaptive(0.2, 0.1, on="knn_top1")
    load = sets.load
    monkeypatch.setattr(sets, "load", lambda *a, **k: replace(load(*a, **k), labels={}, classes={}))
    with pytest.raises(UserError, match="no labels"):
        assemble.build(config)
