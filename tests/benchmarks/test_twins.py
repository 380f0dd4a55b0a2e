import numpy as np
import pytest

from mi_contrast.benchmarks import twins


def test_motions_have_the_memory_and_the_correlation_that_is_said():
    draw = np.random.default_rng(0)
    moved = twins.make_steps(draw, 300, 60, 0.7)
    assert moved.shape == (300, 59, 2) and moved.std() == pytest.approx(1, abs=0.03)
    assert np.mean(moved[:, 1:] * moved[:, :-1]) == pytest.approx(0.7, abs=0.03)
    np.testing.assert_allclose(np.diff(twins.make_paths(moved), axis=1), moved, atol=1e-9)
    grouped = np.concatenate([twins.make_group_steps(draw, 400, 0.0, 0.6) for _ in range(2)], axis=1)
    same = np.mean(grouped[0] * grouped[1])
    assert same == pytest.approx(0.6, abs=0.1) and np.mean(grouped[0] * grouped[8]) == pytest.approx(0, abs=0.1)


@pytest.mark.nightly
def test_groups_are_found_by_steps_and_not_by_positions(monkeypatch):
    """One row of the bench, of two scenes."""
    monkeypatch.setattr(twins, "CLIPS", (("white, c .7", 0.0, 0.7, 0.0),))
    (row,) = twins.measure_groups(np.random.default_rng(1), 4).values()
    assert min(row[word] for word in ("displacement", "second_difference", "prewhitened")) >= 0.95
    assert max(row["raw"], row["three_kl_raw"]) < 0.9
    assert row["random"] == pytest.approx(0.5, abs=0.1) and row["accepted_right"] > 0.95


@pytest.mark.nightly
def test_the_clip_is_twenty_times_faster_than_a_loop_over_trees():
    found = twins.time_twins(np.random.default_rng(0), 2)
    assert found["ours_over_trees"]["median"] > 20 and found["ours_seconds"]["median"] < 5
    assert found["largest_difference"] < 1e-5


def test_all_tables_are_said():
    row = {"a": {"mean": 0.5, "sd": 1.0}}
    found = {"what": "64 patches", "case": "twins", "walks": row, "speed": {"ours": 1}}
    assert "0.500" in twins.format_figures(found) and "ours: 1" in twins.format_figures(found)
