import errno
import json
import os

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


def test_a_bad_line_in_the_middle_costs_itself_alone(tmp_path, capsys):
    run = RunDirectory(tmp_path)
    lines = [json.dumps({"step": step}) for step in range(205)]
    lines[100] = '{"step": 1\x00'
    lines[150] = '{"objective": 2.0}'
    lines[160] = '{"step": "4"}'
    run.metrics.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    left = [step for step in range(205) if step not in (100, 150, 160)]
    assert [row["step"] for row in read(run)] == left
    cut_back(run, 202)
    assert [row["step"] for row in read(run)] == [step for step in left if step <= 202]
    aside = tmp_path / "metrics.jsonl.bad"
    assert aside.read_bytes().splitlines() == [
        lines[100].encode(),
        lines[150].encode(),
        lines[160].encode(),
        b"\xff\xfe",
    ]
    assert "4 lines can't be read; moved to metrics.jsonl.bad" in capsys.readouterr().out
    cut_back(run, 202)
    assert len(aside.read_bytes().splitlines()) == 4 and capsys.readouterr().out == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_row_that_the_disk_refuses_is_absent(tmp_path, monkeypatch, number):
    run = RunDirectory(tmp_path)
    log = Log(run, config(tensorboard=True))
    log.write(1, 0.5, {"objective": 1.0})

    def fail(_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match=r"can't write .*metrics\.jsonl"):
            log.write(2, 0.6, {"objective": 1.0})
    log.close()
    assert [row["step"] for row in read(run)] == [1]
    assert run.metrics.read_bytes().endswith(b"}\n")
