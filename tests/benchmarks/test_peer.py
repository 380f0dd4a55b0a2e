import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mi_contrast import bench
from mi_contrast.benchmarks import peer, peers
from mi_contrast.core.errors import run_job

SETS = Path(__file__).parents[3] / "shared" / "data" / "tfds"
HAS_LIGHTLY = importlib.util.find_spec("lightly") is not None


class Stub:
    """Trains at a fixed speed; its features are the steps it has taken."""

    seconds_before = 1.0

    def __init__(self, name, seconds_a_step, calls):
        self.name, self.each, self.calls, self.steps = name, seconds_a_step, calls, 0

    def train(self, start, count):
        assert start == self.steps  # no step is left out or taken twice
        self.calls.append((self.name, start, count))
        self.steps += count
        return self.each * count

    def features(self, images):
        return np.full((len(images), 1), self.steps)


def judge(knn_at):
    return lambda features: knn_at.get(int(features(np.zeros(1))[0, 0]), 0.0)


SIZES = peer.Sizes(batch=10, steps=10, turn=4)


def test_turns_alternate_until_both_have_reached_the_goal():
    calls = []
    contenders = {"ours": Stub("ours", 1.0, calls), "lightly": Stub("lightly", 2.0, calls)}
    found = peer.race(contenders, judge({4: 0.4, 8: 0.5}), SIZES)
    assert calls == [("ours", 0, 4), ("lightly", 0, 4)]
    assert (found["ours"]["seconds_to_goal"], found["lightly"]["seconds_to_goal"]) == (4.0, 8.0)


def test_a_goal_that_is_never_reached_is_none_and_the_last_turn_is_short():
    calls = []
    found = peer.race({"ours": Stub("ours", 1.0, calls), "lightly": Stub("lightly", 2.0, calls)}, judge({}), SIZES)
    assert [count for name, _, count in calls if name == "ours"] == [4, 4, 2]
    assert found["ours"]["seconds_to_goal"] is None
    figures = peer.summarise([found], SIZES)
    assert figures["ours"]["images_per_second"] == {"min": 10.0, "median": 10.0, "max": 10.0}
    assert figures["ours_over_lightly"]["median"] == 2.0 and figures["ours_over_lightly_to_goal"] is None
    assert "in 0 of 1 races" in peer.format_figures(figures)


def test_races_are_summed_up():
    races = [
        peer.race({"ours": Stub("a", s, []), "lightly": Stub("b", 1.0, [])}, judge({8: 0.4}), SIZES) for s in (0.5, 1.0)
    ]
    figures = peer.summarise(races, SIZES)
    assert figures["ours"]["seconds_to_goal"] == {"min": 4.0, "median": 6.0, "max": 8.0}
    assert figures["ours_over_lightly_to_goal"] == {"min": 1.0, "median": 1.5, "max": 2.0}
    said = peer.format_figures(figures)
    assert "6 (4 to 8) s to 40 % kNN in 2 of 2 races" in said and "1.50 (1.00 to 2.00) x its images/s" in said


def test_an_absent_lightly_is_said_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(peer, "find_missing", lambda names, extra: peers.find_missing(("no_such_peer",), extra))
    arguments = ["--case=peer", "--small", f"--out={tmp_path}"]
    assert run_job(bench.main, arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "pip install 'mi-contrast[reference]'" in said[0]


@pytest.mark.nightly
@pytest.mark.skipif(not HAS_LIGHTLY, reason="lightly is not installed (extra [reference], Python 3.11)")
@pytest.mark.skipif(not SETS.is_dir(), reason="cifar10 is not in ../shared/data")
def test_one_race_runs_and_is_written(tmp_path, capsys):
    bench.main(["--case=peer", "--small", "--repeats=1", f"--data={SETS}", f"--out={tmp_path}"])
    found = json.loads((tmp_path / "peer.json").read_text())
    for name in ("ours", "lightly"):
        assert found[name]["images_per_second"]["min"] > 0 and found[name]["seconds_before"]["min"] > 0
        assert all(0 <= knn <= 1 for knn in found["races"][0][name]["knn_top1"])
    assert found["ours_over_lightly"]["median"] > 0
    assert "ours over lightly" in capsys.readouterr().out


@pytest.mark.skipif(not HAS_LIGHTLY, reason="lightly is not installed (extra [reference], Python 3.11)")
def test_lightlys_policy_has_our_numbers():
    peers.import_torchvision()
    from lightly.transforms import MoCoV2Transform

    from mi_contrast.views import policies

    ours = policies.moco_v2(32)["query"]
    (low, high), jitter = ours["crop"]["area"], ours["jitter"]
    crop, flip, _, _, jittered, grey, blur, *_ = MoCoV2Transform(input_size=32).transforms[0].transform.transforms
    assert (*crop.scale, *crop.ratio) == (low, high, *ours["crop"]["aspect"])
    assert (flip.p, grey.p, jittered.p, blur.prob) == (ours["flip"], ours["grey"], jitter["p"], ours["blur"]["p"])
    (ops,) = jittered.transforms
    for name in ("brightness", "contrast", "saturation"):
        assert getattr(ops, name) == (1 - jitter[name], 1 + jitter[name])
    assert ops.hue == (-jitter["hue"], jitter["hue"]) and tuple(blur.sigmas) == ours["blur"]["sigma"]
