"""A study that two processes run: they share each run, and everything is written and said once."""

import json
import os
import subprocess

import pytest

from tests.training import small

CONFIG = f"""
from ml_collections import ConfigDict

def get_config():
    changes = {{
        "steps": 6, "data.dir": {str(small.DATA)!r}, "data.batch": 32, "data.options.length": 2, "model.width": 8,
        "eval.pairs": 16, "eval.knn_bank": 64, "eval.every": 100, "log.tensorboard": False,
        "method.pools.queue.size": 100,
    }}
    return ConfigDict(dict(
        question="", data_dir=None, steps=None, reference="ring", columns=("mi_nats",), figure=("knn",),
        evaluate=(dict(config="configs/evaluate/knn.py", changes={{"task.k": 20}}),),
        runs=(dict(label="ring", config="configs/ring_moco.py", changes=changes, seeds=(0,)),),
    ))
"""


@pytest.mark.nightly
def test_two_processes_run_a_study(tmp_path):
    (tmp_path / "mine.py").write_text(CONFIG)
    command = ["bash", "launch/local.sh", "2", f"--config={tmp_path / 'mine.py'}", f"--workdir={tmp_path / 'study'}"]
    environment = os.environ | {"PYTHONPATH": str(small.ROOT), "JOB": "study"}
    for _ in range(2):  # the second time it is finished
        done = subprocess.run(
            command, cwd=small.ROOT, env=environment, capture_output=True, text=True, timeout=1000, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("1 of 1 runs are done, 0 failed. The study is finished.") == 1
    run = tmp_path / "study" / "runs" / "ring-seed0"
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert [start["processes"] for start in starts] == [2]
    assert sorted(path.name for path in (run / "results").iterdir()) == [
        "knn-moving_digits-untrained.json", "knn-moving_digits.json",
    ]  # fmt: skip
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps.count(6) <= 2
    assert (run / "output.txt").read_text().count("knn on moving_digits (digit): top-1") == 1
