"""Two processes judge a backbone: each encodes a share, and the result is written once and is one process's."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.training.small import ROOT

EXPORT = ROOT / "tests" / "fixtures" / "v0_1_0" / "moco_export"


@pytest.fixture
def photos(tmp_path):
    """Folders of two classes of noise, one of them brighter, of an odd number of images in all."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 21), ("test", 11)):
        for i in range(count):
            folder = tmp_path / "photos" / split / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = draws.integers(0, 120, (32, 32, 3)) + 100 * (i % 2) * (draws.random() < 0.8)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def judge(task, photos, workdir, *more):
    """Judges in one process or, by the launcher, in two. Returns exit code, output and results by file name."""
    job = [sys.executable, "-m", "mi_contrast.evaluate"] if not more else ["bash", "launch/local.sh", *more]
    command = [
        *job, f"--config=configs/evaluate/{task}.py", f"--backbone={EXPORT}", f"--workdir={workdir}",
        f"--config.data.name=folder:{photos}", "--config.batch_size=4",
        *(["--config.task.k=5"] if task == "knn" else ["--config.task.epochs=2"]),
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JOB": "evaluate"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    results = {path.name: json.loads(path.read_text()) for path in (workdir / "results").glob("*.json")}
    return done.returncode, done.stdout + done.stderr, results


@pytest.mark.slow
def test_two_processes_judge_as_one_does(photos, tmp_path):
    for task in ("knn", "linear"):
        code, text, one = judge(task, photos, tmp_path / "one")
        assert code == 0, text
        code, text, two = judge(task, photos, tmp_path / "two", "2")
        assert code == 0, text
        name = f"{task}-photos.json"
        assert two[name]["top1"] == one[name]["top1"] and two[name]["test"] == one[name]["test"] == {
            "split": "test", "examples": 11,
        }  # fmt: skip
        assert sum(line.startswith(f"{task} on ") for line in text.splitlines()) == 1
    features = [sorted((tmp_path / folder / "features").glob("*.npz")) for folder in ("one", "two")]
    assert [path.name for path in features[0]] == [path.name for path in features[1]] and len(features[0]) == 2
    for one_file, two_file in zip(*features, strict=True):
        a, b = (np.load(path)["values"] for path in (one_file, two_file))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
    assert not list((tmp_path / "two").rglob(".*"))
