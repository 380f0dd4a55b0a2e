"""Runs that are stopped: by SIGTERM, by a time limit, by kill -9 at any moment."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mi_contrast.core import checkpoint
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training.metrics import read
from tests.training import small
from tests.training.test_resume import different

COMMAND = [
    sys.executable, "-m", "mi_contrast.main", "--config=configs/ring_moco.py", f"--config.data.dir={small.DATA}",
    "--config.data.batch=32", "--config.data.options.length=2", "--config.model.width=8", "--config.eval.pairs=16",
    "--config.eval.knn_bank=64", "--config.log.every=1", "--config.log.tensorboard=False",
    "--config.method.pools.queue.size=100",
]  # fmt: skip


def start(workdir, *changes):
    return subprocess.Popen(
        [*COMMAND, f"--workdir={workdir}", *changes], cwd=small.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"PYTHONPATH": str(small.ROOT)},
    )  # fmt: skip


def wait_for_step(process, workdir, step):
    run = RunDirectory(workdir)
    for _ in range(1200):
        rows = [row["step"] for row in read(run)]
        if rows and max(rows) >= step:
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("no progress")


@pytest.mark.nightly
def test_sigterm_saves_exits_75_and_the_same_command_goes_on(tmp_path):
    changes = ("--config.steps=400", "--config.eval.every=400")
    process = start(tmp_path / "run", *changes)
    wait_for_step(process, tmp_path / "run", 20)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 75, out
    saved = checkpoint.latest_step(RunDirectory(tmp_path / "run").checkpoints)
    assert saved is not None and saved >= 20
    assert f"stopped by SIGTERM at step {saved} of 400. The state is saved" in out
    again = start(tmp_path / "run", *changes)
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    assert f"resuming from step {saved}" in out
    whole = start(tmp_path / "whole", *changes)
    assert whole.wait(timeout=300) == 0
    whole.stdout.close()
    assert different(tmp_path / "run", tmp_path / "whole") == []
    finished = start(tmp_path / "run", *changes)
    out, _ = finished.communicate(timeout=120)
    assert finished.returncode == 0 and "was trained" in out


@pytest.mark.nightly
def test_kill_9_loses_at_most_the_steps_since_the_last_checkpoint(tmp_path):
    changes = ("--config.steps=300", "--config.eval.every=300", "--config.checkpoint.every=20")
    process = start(tmp_path / "run", *changes)
    wait_for_step(process, tmp_path / "run", 47)
    process.kill()
    process.communicate()
    reached = max(row["step"] for row in read(RunDirectory(tmp_path / "run")))
    saved = checkpoint.latest_step(RunDirectory(tmp_path / "run").checkpoints)
    assert saved is not None and saved > reached - 2 * 20  # one interval, and one that was being written
    again = start(tmp_path / "run", *changes)
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    steps = [row["step"] for row in read(RunDirectory(tmp_path / "run")) if "objective" in row]
    assert steps == sorted(set(steps)) == list(range(1, 301))


@pytest.mark.nightly
def test_a_time_limit_saves_and_exits_75(tmp_path):
    process = start(tmp_path / "run", "--config.steps=100000", "--config.checkpoint.time_limit=3")
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 75, out
    assert "stopped by the time limit" in out
