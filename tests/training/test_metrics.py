import json

import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training.metrics import Log, cut_back, read


def config(**log):
    return {"log": {"tensorboard": False, "wandb": None, **log}}


def test_rows_survive_and_are_cut_back(tmp_path):
    run = RunDirectory(tmp_path)
    log = Log(run, config())
    for step in (0, 1, 2, 3):
        log.write(step, 0.5, {"objective": float("nan") if step == 3 else 1.0})
    log.close()
    with open(run.metrics, "a", encoding="utf-8") as file:
        file.write('{"step": 4, "obj')  # a kill in the middle of a line
    assert [row["step"] for row in read(run)] == [0, 1, 2, 3]
    cut_back(run, 2)
    assert [row["step"] for row in read(run)] == [0, 1, 2]
    assert all(json.loads(line) for line in run.metrics.read_text().splitlines())


def test_nothing_logged_yet(tmp_path):
    assert read(RunDirectory(tmp_path)) == []


def test_tensorboard_without_tensorflow(tmp_path):
    run = RunDirectory(tmp_path)
    log = Log(run, config(tensorboard=True))
    log.write(1, 0.1, {"objective": 1.0, "bad": float("inf")})
    log.close()
    assert [p for p in run.tensorboard.iterdir() if "tfevents" in p.name]


def test_wandb_that_is_not_installed_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Log(RunDirectory(tmp_path), config(wandb="project"))


def test_a_wandb_runs_id_survives_a_resume(tmp_path, monkeypatch):
    import sys
    import types

    seen = []

    class Run:
        id = "abc"

        def log(self, numbers, step):
            seen.append((step, numbers))

        def finish(self):
            seen.append("finished")

    def init(**given):
        seen.append(given["id"])
        return Run()

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    log = Log(RunDirectory(tmp_path), config(wandb="project"), "abc")
    log.write(3, 0.1, {"objective": 1.0})
    log.close()
    assert log.wandb_id == "abc"
    assert seen == ["abc", (3, {"objective": 1.0}), "finished"]
