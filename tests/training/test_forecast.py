"""What a run says before its first step and after the first measured ones, beside counts of its files."""

import re
from pathlib import Path

import numpy as np
import pytest

from mi_contrast.core import checkpoint
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training import forecast, loop
from tests.training import small


def test_the_pace_is_the_median_of_ten_steps_after_those_that_compile():
    pace = forecast.Pace()
    told = [pace.add(seconds) for seconds in (60.0, 30.0, *[0.2] * 6, 9.0, 0.3, 0.4, 0.5, 7.0)]
    assert told == [None] * 11 + [pytest.approx(0.2)] + [None]
    assert pace.count == 10


def test_long_steps_are_told_after_twenty_seconds():
    pace = forecast.Pace()
    assert [pace.add(seconds) for seconds in (90.0, 12.0, 11.0, 13.0, 10.0)] == [None, None, None, 12.0, None]


def read_proc(name):
    return dict(line.split(":", 1) for line in Path("/proc", name).read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="Linux says the memory of a process there")
def test_the_memory_is_that_of_the_process():
    used, available = forecast.measure_memory()
    status = read_proc("self/status")
    assert used == pytest.approx(1024 * int(status["VmHWM"].split()[0]), rel=0.05)
    assert available == pytest.approx(1024 * int(read_proc("meminfo")["MemTotal"].split()[0]), rel=0.01)


@pytest.mark.slow
def test_a_run_says_three_lines(tmp_path, capsys):
    loop.run(small.config(steps=14), tmp_path / "run", name="ring_moco")
    lines = capsys.readouterr().err.splitlines()
    first, disk = (next(line for line in lines if word in line) for word in ("parameters;", "disk:"))
    _, state = checkpoint.read(RunDirectory(tmp_path / "run").checkpoints, subtree=("online", "optimiser", "target"))
    count = sum(np.size(leaf) for leaf in checkpoint.flatten(state["online"]["params"]).values())
    assert first.startswith(f"{count:,} parameters; 14 steps to take, each of 32 images")
    assert lines.index(first) + 1 == lines.index(disk) < lines.index(next(x for x in lines if x.startswith("step 0:")))
    assert f"at most in {tmp_path / 'run'}: a checkpoint of" in disk
    (pace,) = [line for line in lines if line.startswith("a step takes")]
    assert re.search(r"\(median of 10\): 0:0\d of steps to go; memory so far: .+ of ", pace), pace


def test_a_full_disk_is_said(tmp_path, monkeypatch):
    class Usage:
        free = 5

    state = type("State", (), {"online": {"params": np.zeros(10, np.float32)}})
    monkeypatch.setattr(forecast.jax.tree, "leaves", lambda tree: [np.zeros(10, np.float32)])
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda path: Usage)
    config = {"steps": 4, "data": {"batch": 2}, "checkpoint": {"keep": 2, "every": 100}}
    lines = list(forecast.describe_start(state, config, 2, 5, 50, tmp_path))
    assert lines[0] == "10 parameters; 2 of 4 steps to take, each of 2 images, 1.6 epochs of 5 images in all"
    assert lines[1].endswith("(NOT ENOUGH)") and "80\u202fB at most" in lines[1]


@pytest.mark.parametrize("held_out, is_few", [(2, True), (15, True), (16, False), (500, False)])
def test_too_few_held_out_images_are_told_in_a_line(tmp_path, held_out, is_few):
    state = type("State", (), {"online": {"params": np.zeros(10, np.float32)}})
    steps = {"steps": 538, "data": {"batch": 32}, "checkpoint": {"keep": 2, "every": 100}}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(forecast.jax.tree, "leaves", lambda tree: [np.zeros(10, np.float32)])
        lines = list(forecast.describe_start(state, steps, 538, 43, held_out, tmp_path))
    few = f"{held_out} images are held out to measure training, and fewer than 16 are too few: nats and accuracies"
    assert [line.startswith(few) for line in lines] == [False, False, True][: 3 if is_few else 2]
    assert "538 steps to take, each of 32 images, 400 epochs of 43 images in all" in lines[0]  # 538 * 32 / 43 = 400.4
