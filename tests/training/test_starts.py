"""The starts of one run: what may differ, what is recorded, and how Ctrl-C and a full disk end one."""

import contextlib
import errno
import json
import os
import shutil
import signal
from dataclasses import dataclass

import numpy as np
import pytest

import mi_contrast
from mi_contrast.core import checkpoint
from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training import loop, metrics, starts, trainer
from mi_contrast.training.metrics import read
from tests.training import small


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run stopped at step 4 of 12."""
    folder = tmp_path_factory.mktemp("starts") / "run"
    loop.run(small.config(), folder, stop_at=4)
    return folder


@dataclass(frozen=True)
class Networks:
    """The parts of a state that another run can give."""

    online: dict
    target: dict


def test_weights_that_are_not_finite_are_no_start(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "place", lambda state, _: state)
    first = Networks({"params": {"conv": {"kernel": np.zeros((2, 3), np.float32)}}}, {})
    for folder, value in (("good", 1.0), ("bad", np.nan)):
        theirs = {"params": {"conv": {"kernel": np.full((2, 3), 1.0, np.float32)}}}
        theirs["params"]["conv"]["kernel"][1, 2] = value
        saved = checkpoint.Checkpoints(RunDirectory(tmp_path / folder).checkpoints, 1)
        saved.save(7, {"online": theirs}, {}, wait=True)
        saved.close()
    started = loop._start_from(first, tmp_path / "good", None, {})
    assert np.array_equal(started.online["params"]["conv"]["kernel"], np.ones((2, 3)))
    said = r"step 7\): leaf 'online.params.conv.kernel' has 1 of 6 numbers that are NaN"
    with pytest.raises(UserError, match=said):
        loop._start_from(first, tmp_path / "bad", None, {})


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of it."""
    shutil.copytree(stopped, tmp_path / "run")
    return RunDirectory(tmp_path / "run")


def at_step(monkeypatch, number, act):
    """Calls `act` before the step of that number in this process."""
    make, count = trainer.make_step, 0

    def make_watched(parts):
        step = make(parts)

        def watched(*given):
            nonlocal count
            count += 1
            if count == number:
                act()
            return step(*given)

        return watched

    monkeypatch.setattr(trainer, "make_step", make_watched)


@pytest.mark.slow
def test_ctrl_c_saves_and_raises_keyboard_interrupt(run, monkeypatch):
    at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt, match=r"stopped by Ctrl-C at step 7 of 12\. The state is saved"):
        loop.run(small.config(), run.root)
    assert checkpoint.latest_step(run.checkpoints) == 7
    assert loop.run(small.config(), run.root, stop_at=8).step == 8


@pytest.mark.slow
def test_another_optimiser_is_refused_allowed_and_recorded(run):
    config = small.config(optim__lr=0.01, optim__weight_decay=0.001)
    with pytest.raises(UserError, match=r"optim\.lr"):
        loop.run(config, run.root)
    with pytest.raises(UserError, match=r"optim\.lr"):
        loop.run(config, run.root, allow=("eval",))
    before = json.loads(run.config.read_text())["config"]["optim"]
    loop.run(config, run.root, stop_at=5, allow=("optim",))
    last = json.loads(run.starts.read_text())["starts"][-1]
    assert last["from_step"] == 4 and last["allowed"]["optim.weight_decay"] == [0.05, 1e-3]
    assert json.loads(run.config.read_text())["config"]["optim"] == {**before, "lr": 0.01, "weight_decay": 0.001}
    loop.run(config, run.root, stop_at=6)  # the same command needs no flag again
    assert "allowed" not in json.loads(run.starts.read_text())["starts"][-1]


@pytest.mark.parametrize(
    ("section", "said"),
    [("optm", "did you mean 'optim'"), ("model", "unknown section"), ("log", "is not needed")],
)
def test_only_some_sections_can_be_allowed(section, said):
    with pytest.raises(UserError, match=said):
        starts.check_allowed([section])


@pytest.mark.slow
def test_bad_numbers_say_what_to_change(run):
    config = small.config(optim__lr=1e30, optim__patience=2)
    for _ in range(2):
        with pytest.raises(BadNumbersError, match=r"newest checkpoint is of step 4\. .*--allow=optim"):
            loop.run(config, run.root, allow=("optim",))
    assert loop.run(small.config(), run.root, allow=("optim",), stop_at=8).step == 8


@pytest.mark.slow
def test_a_broken_record_is_set_aside(run, capsys):
    run.starts.write_text('{"starts": [')
    loop.run(small.config(), run.root, stop_at=5)
    assert "kept as run.json.broken" in capsys.readouterr().out
    assert (run.root / "run.json.broken").read_text() == '{"starts": ['
    assert [start["from_step"] for start in json.loads(run.starts.read_text())["starts"]] == [4]


@pytest.mark.slow
def test_the_row_of_step_0_stands_once(tmp_path, monkeypatch):
    def die():
        raise RuntimeError("killed")

    run = RunDirectory(tmp_path / "run")
    for _ in range(2):
        with monkeypatch.context() as patched:
            at_step(patched, 2, die)
            with pytest.raises(RuntimeError, match="killed"):
                loop.run(small.config(), run.root)
    assert [row["step"] for row in read(run)].count(0) == 1


@pytest.mark.slow
def test_steps_below_what_is_reached_are_refused(run):
    before = run.config.read_bytes()
    with pytest.raises(UserError, match=r"steps is 3 and .* has reached step 4; give steps of 4 or more"):
        loop.run(small.config(steps=3), run.root)
    assert run.config.read_bytes() == before


@pytest.mark.slow
def test_a_full_disk_in_the_middle_is_one_line_and_goes_on(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "append", full)
        with pytest.raises(UserError, match=r"can't write .*metrics\.jsonl \(No space left on device\)"):
            loop.run(small.config(), run.root)
    assert checkpoint.latest_step(run.checkpoints) == 4
    assert [path.name for path in run.root.iterdir() if path.name.startswith(".")] == []
    assert loop.run(small.config(), run.root, stop_at=5).step == 5


FINGERPRINT = {"set": "photos", "files": 3, "sum": "00ff", "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("config", "data", "flags", "said"),
    [
        ({"optim": {"lr": 0.1}}, FINGERPRINT, {"stop_at": None}, None),
        (
            {"optim": {"lr": 0.2}},
            FINGERPRINT,
            {"stop_at": None},
            "process 1 has config.optim.lr 0.2, the first",
        ),
        ({"optim": {"lr": 0.1}}, FINGERPRINT, {"stop_at": 5}, "process 1 has flags.stop_at 5, the first process"),
        ({"optim": {"lr": 0.1}}, FINGERPRINT | {"files": 4}, {"stop_at": None}, "the data of process 1 differ"),
    ],
)
def test_several_processes_have_one_config_and_data(monkeypatch, config, data, flags, said):
    of_first = iter([
        {"version": mi_contrast.__version__, "config": {"optim": {"lr": 0.1}}, "flags": {"stop_at": None}}, FINGERPRINT,
    ])  # fmt: skip
    monkeypatch.setattr(starts.processes, "count", lambda: 2)
    monkeypatch.setattr(starts.processes, "index", lambda: 1)
    monkeypatch.setattr(starts.processes, "agree", lambda own: next(of_first))
    monkeypatch.setattr(starts.processes, "together", contextlib.nullcontext)
    if said is None:
        starts.check_same(config, data, flags)
        return
    with pytest.raises(UserError, match=said):
        starts.check_same(config, data, flags)
