"""Stopping and going on changes nothing: k steps, a restart and k more equal 2k steps, bit for bit."""

import json
import subprocess
import sys

import flax.serialization
import numpy as np
import pytest

from mi_contrast.core import checkpoint
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training import loop, trainer
from mi_contrast.training.metrics import read
from tests import devices
from tests.training import small


def leaves(workdir):
    step, tree = checkpoint.read(RunDirectory(workdir).checkpoints)
    return step, checkpoint.flatten(tree)


def different(a, b):
    (step_a, flat_a), (step_b, flat_b) = leaves(a), leaves(b)
    assert step_a == step_b and set(flat_a) == set(flat_b)
    return [name for name in flat_a if np.asarray(flat_a[name]).tobytes() != np.asarray(flat_b[name]).tobytes()]


def objectives(workdir):
    return {row["step"]: row["objective"] for row in read(RunDirectory(workdir)) if "objective" in row}


def whole_and_parts(folder, **changes):
    config = small.config(**changes)
    loop.run(config, folder / "whole")
    loop.run(config, folder / "parts", stop_at=6)
    outcome = loop.run(config, folder / "parts")
    assert outcome.step == 12 and outcome.complete
    return folder / "whole", folder / "parts"


@pytest.mark.slow
def test_k_and_k_equal_2k_bit_for_bit(tmp_path):
    whole, parts = whole_and_parts(tmp_path)
    assert different(whole, parts) == []
    assert objectives(whole) == objectives(parts)
    names = set(leaves(whole)[1])
    networks = [f"{network}.{kind}" for network in ("online", "target") for kind in ("params", "batch_stats")]
    queue = ["pools.queue.rows", "pools.queue.ids", "pools.queue.pointer"]
    for part in (*networks, *queue, "optimiser", "probe.params", "step", "guard"):
        assert any(name.startswith(part) for name in names), part
    starts = json.loads(RunDirectory(parts).starts.read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 6]


@pytest.mark.nightly
def test_control_a_checkpoint_without_its_queue_is_seen(tmp_path, monkeypatch):
    def forgetful(like, tree):
        state = flax.serialization.from_state_dict(like, tree)
        import jax

        return state.replace(pools=jax.tree.map(lambda x: x * 0, state.pools))

    monkeypatch.setattr(loop, "from_tree", forgetful)
    whole, parts = whole_and_parts(tmp_path)
    assert "pools.queue.rows" in different(whole, parts)
    assert objectives(whole) != objectives(parts)


@pytest.mark.slow
def test_a_fresh_start_and_a_resumed_one_compile_one_program_each(tmp_path, monkeypatch):
    made = []
    real = trainer.make_step
    monkeypatch.setattr(trainer, "make_step", lambda parts: made.append(real(parts)) or made[-1])
    whole_and_parts(tmp_path)
    assert [step._cache_size() for step in made] == [1, 1, 1]


def on_devices(count, code, *arguments):
    environment = devices.environment(count)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=small.ROOT)
    assert out.returncode == 0, out.stderr[-3000:]


RESUMED = """
import sys; from pathlib import Path
from tests.training.test_resume import whole_and_parts, different, objectives
import jax; assert len(jax.devices()) == 8
whole, parts = whole_and_parts(Path(sys.argv[1]))
assert different(whole, parts) == [] and objectives(whole) == objectives(parts)
"""

CONTINUED = """
import sys; from mi_contrast.training import loop; from tests.training import small
loop.run(small.config(), sys.argv[1], stop_at=int(sys.argv[2]))
"""


@pytest.mark.nightly
def test_eight_devices_resume_bit_for_bit_and_agree_with_one(tmp_path):
    on_devices(8, RESUMED, tmp_path)
    loop.run(small.config(), tmp_path / "one")
    ceilings = {r["step"]: r["objective_ceiling"] for r in read(RunDirectory(tmp_path / "one")) if "objective" in r}
    one, eight = objectives(tmp_path / "one"), objectives(tmp_path / "whole")
    assert one[1] == eight[1] == 0.0  # the queue is still empty
    for step in range(2, 6):
        assert one[step] == pytest.approx(eight[step], abs=2e-4 * max(1.0, ceilings[step]))
    # a checkpoint of eight goes on with two, within the same tolerances
    on_devices(8, CONTINUED, tmp_path / "moved", 6)
    on_devices(2, CONTINUED, tmp_path / "moved", 12)
    moved = objectives(tmp_path / "moved")
    for step in range(1, 12):
        assert moved[step] == pytest.approx(eight[step], abs=2e-4 * max(1.0, ceilings[step]))
    loop.run(small.config(), tmp_path / "one5", stop_at=5)
    on_devices(8, CONTINUED, tmp_path / "eight5", 5)
    (_, a), (_, b) = leaves(tmp_path / "one5"), leaves(tmp_path / "eight5")
    params = [name for name in a if name.startswith("online.params")]
    gap = np.sqrt(sum(((a[n] - b[n]) ** 2).sum() for n in params) / sum((b[n] ** 2).sum() for n in params))
    assert gap < 1e-3
