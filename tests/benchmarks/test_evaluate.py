import pytest

from mi_contrast.benchmarks import evaluate


@pytest.mark.nightly
def test_the_probes_of_one_run_are_those_of_ten():
    found = evaluate.time_probes(600, 64, 2, 1)
    assert found["one_run"]["top1"] == pytest.approx(found["ten_runs"]["top1"], abs=0.01)
    assert found["one_run"]["top1"] > 0.2 and found["ten_runs_over_one"]["median"] > 0


@pytest.mark.nightly
def test_encode_has_its_figures_with_torch_or_without(monkeypatch):
    monkeypatch.setattr(evaluate, "find_missing", lambda: "torch is not installed")
    found = evaluate.time_encoding(64, 2, 1)
    assert found["torchvision"] == "torch is not installed" and found["ours"]["median"] > 0
    figures = {"what": "x", "encode": {"64px": found}, "linear_probe": evaluate.time_probes(300, 8, 1, 1)}
    assert "encode  64px" in evaluate.format_figures(figures)
