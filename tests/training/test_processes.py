"""Runs that several processes share: they equal those of one device, and stopping and going on changes nothing."""

import json

import pytest

from mi_contrast.core.layout import RunDirectory
from tests.training import equality
from tests.training.equality import FOUR, ONE, TWO, Work


@pytest.mark.slow
def test_two_processes_train_as_one_device_does(tmp_path):
    names = ("ring_moco", "ring_ir")  # a queue that is replicated, a bank that is cut over the processes
    for layout in (ONE, TWO):
        equality.train(layout, [Work(name, str(tmp_path / str(layout) / name)) for name in names])
    for name in names:
        one, two = (equality.read_numbers(tmp_path / str(layout) / name) for layout in (ONE, TWO))
        found = equality.differences(one, two)
        assert {what for what, (apart, allowed) in found.items() if not apart <= allowed} == set(), found
        assert any(one.objectives.values()) and one.leaves.keys() == two.leaves.keys()
    run = RunDirectory(tmp_path / str(TWO) / "ring_moco")
    assert [start["processes"] for start in json.loads(run.starts.read_text())["starts"]] == [2]
    assert run.export.is_dir() and not list(run.root.glob(".*"))
    # control: another method's run is too far apart
    other = equality.read_numbers(tmp_path / str(ONE) / "ring_moco")
    other.leaves.update({name: 1.01 * leaf for name, leaf in other.leaves.items() if name.startswith("online.params")})
    found = equality.differences(equality.read_numbers(run.root), other)
    assert found["parameters"][0] > found["parameters"][1]


@pytest.mark.nightly
def test_all_methods_in_all_layouts(tmp_path, capsys):
    bad = equality.compare(tmp_path, equality.METHODS, (equality.EIGHT, TWO, FOUR), equality.STEPS)
    assert bad == 0, capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["ring_moco", "ring_ir"])
def test_two_processes_resume_bit_for_bit_and_in_other_layouts(tmp_path, capsys, method):
    assert equality.compare_resumed(tmp_path, method, 6) == 0, capsys.readouterr().out
