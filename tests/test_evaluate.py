import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.checkpoint import Checkpoints
from mi_contrast.core.errors import run_job
from mi_contrast.core.layout import RunDirectory, write_json
from mi_contrast.data import sets
from mi_contrast.evaluate import main
from mi_contrast.interchange import load, write_export
from mi_contrast.models import towers
from tests.evaluation.fake import image_set

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "tfds"
MODEL = dict(backbone="tiny", width=8, stem="small", head=dict(kind="linear", dim=16))
CONFIG = dict(
    seed=2,
    model=MODEL,
    views=dict(kind="two_crops", size=8, mean=(0.5,) * 3, std=(0.25,) * 3),
    data=dict(name="blobs", dir=None, split="train", test_split="test", options={}, label=None, batch=32),
    export=dict(weights="online"),
)
KNN = ["--config=configs/evaluate/knn.py", "--config.task.k=9"]


@pytest.fixture
def run(tmp_path):
    """A run directory of a tiny network at step 40, and its export."""
    folder = RunDirectory(tmp_path / "run")
    write_json(folder.config, {"name": "moco", "variant": None, "config": CONFIG})
    tower = towers.build(MODEL)
    state = jax.tree.map(np.asarray, tower.init(jax.random.key(1), (8, 8, 3)))
    checkpoints = Checkpoints(folder.checkpoints, keep=1)
    checkpoints.save(40, {"online": state, "target": state}, {}, wait=True)
    checkpoints.close()
    write_export(folder.export, load(folder.root), config=CONFIG, commit=None, step=40)
    return folder


@pytest.fixture
def blobs(monkeypatch):
    def open_set(name, split, **_):
        return image_set(300 if split == "train" else 120, split, name=name)

    monkeypatch.setattr(sets, "load", open_set)


def results(folder):
    return {path.name: json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))}


def test_a_run_and_its_export_are_judged_alike(run, blobs, tmp_path, capsys):
    for task in (KNN, ["--config=configs/evaluate/linear.py", "--config.task.epochs=5"]):
        assert run_job(main, [*task, f"--backbone={run.root}"]) == 0
        assert run_job(main, [*task, f"--backbone={run.export}", f"--workdir={tmp_path / 'out'}"]) == 0
    of_run, of_export = results(run.root), results(tmp_path / "out")
    assert list(of_run) == list(of_export) == ["knn-blobs.json", "linear-blobs.json"]
    for name, result in of_run.items():
        assert result["top1"] == of_export[name]["top1"] > 0.5
        assert result["step"] == of_export[name]["step"] == 40
        assert result["backbone"] == str(run.root) and len(of_export[name]["backbone"]) == 64
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 12 and said[0].startswith("loaded ") and "top-1" in said[1]
    assert "judge the untrained network by the same command with --untrained" in said[2] and said[2] == said[5]


def test_the_untrained_twin_is_judged_by_the_same_command(run, blobs, capsys):
    for more in ([], ["--untrained"]):
        assert run_job(main, [*KNN, f"--backbone={run.root}", *more]) == 0
        assert ("to see what training gained" in capsys.readouterr().out) == (not more)
    found = results(run.root)
    trained, twin = found["knn-blobs.json"], found["knn-blobs-untrained.json"]
    assert (trained["untrained"], trained["step"]) == (False, 40)
    assert (twin["untrained"], twin["step"]) == (True, 0)
    assert trained["settings"] == twin["settings"]


def test_the_config_on_the_command_line_reaches_the_task(run, blobs):
    arguments = [*KNN, f"--backbone={run.root}", "--config.data.label=dark", "--config.task.temperature=.5"]
    assert run_job(main, arguments) == 0
    (result,) = results(run.root).values()
    assert result["label"] == "dark" and result["settings"]["temperature"] == 0.5 and result["settings"]["k"] == 9


def test_weights_that_were_not_all_loaded_are_never_judged(run, blobs, capsys):
    other = CONFIG | {"model": MODEL | {"width": 16}}
    write_json(run.config, {"name": "moco", "variant": None, "config": other})
    assert run_job(main, [*KNN, f"--backbone={run.root}"]) == 2
    assert "0 of 15 tensors" in capsys.readouterr().err and results(run.root) == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no --config"),
        (KNN, "no --backbone"),
        ([*KNN, "--backbone=absent"], "absent does not exist"),
        ([*KNN, "--backbone={run}", "--untraned"], "did you mean '--untrained'?"),
        ([*KNN, "--backbone={run}", "--config.task.kk=3"], "no field 'kk'"),
        ([*KNN, "--backbone={run}", "--config.task.k=301"], "k is 301 and the bank has 300 rows"),
        ([*KNN, "--backbone={run}", "--config.data.label=color"], "did you mean 'colour'?"),
        ([*KNN, "--backbone={run}", "--config.data.test_split=train"], "fit on one split, test on another"),
        ([*KNN, "--backbone={run}/export"], "say where results go with --workdir"),
        (["--config=configs/evaluate/liner.py", "--backbone={run}"], "did you mean 'configs/evaluate/linear.py'?"),
        (["--config=configs/evaluate/linear.py:moko", "--backbone={run}"], "did you mean 'moco'?"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(run, blobs, capsys, arguments, says):
    assert run_job(main, [a.format(run=run.root) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("mi_contrast: error: ") and said.count("\n") == 1
    assert results(run.root) == {}


def test_k_that_is_not_set_fits_the_images_and_is_said(run, monkeypatch, capsys):
    counts = {"train": 90, "test": 60}
    monkeypatch.setattr(sets, "load", lambda name, split, **_: image_set(counts[split], split, name=name))
    knn = ["--config=configs/evaluate/knn.py", f"--backbone={run.root}"]
    assert run_job(main, knn) == 0
    said = capsys.readouterr().out
    (result,) = results(run.root).values()
    assert result["settings"]["k"] == 9 and "k 9, a tenth of the fitting images, for 90 are fewer than 200" in said
    assert run_job(main, [*knn, "--config.task.k=9"]) == 0
    (again,) = results(run.root).values()
    assert again["top1"] == result["top1"] and "fewer than" not in capsys.readouterr().out
    assert run_job(main, [*knn, "--config.task.k=91"]) == 2, "a k that the user set is never bent"
    assert "k is 91 and the bank has 90 rows" in capsys.readouterr().err
    counts["train"] = 200
    assert run_job(main, knn) == 0
    assert "fewer than" not in capsys.readouterr().out
    (paper,) = results(run.root).values()
    assert paper["settings"]["k"] == 200, "as in the paper, and as before"


def test_a_folder_without_labels_says_how_they_are_given_and_takes_a_table(run, tmp_path, capsys):
    images = image_set(80, "train")
    (tmp_path / "photos").mkdir()
    rows = ["file,label"]
    for i, pixels in enumerate(images.images(np.arange(80))):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
        rows.append(f"{i}.png,{images.classes['colour'][images.labels['colour'][i]]}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows))
    own = dict(name=f"folder:{tmp_path / 'photos'}", labels="none", group="image", test_share=0.3)
    write_json(run.config, {"name": "moco", "variant": None, "config": CONFIG | {"data": CONFIG["data"] | own}})
    task = ["--config=configs/evaluate/linear.py", "--config.task.epochs=3", f"--backbone={run.root}"]
    for each in (task, [*KNN, f"--backbone={run.root}"]):
        assert run_job(main, each) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "give --labels=labels.csv, a table with the columns file,label" in said
    assert run_job(main, [*task, f"--labels={table}"]) == 0
    (result,) = results(run.root).values()
    assert result["classes"] == 4 and result["fit"]["examples"] + result["test"]["examples"] == 80


@pytest.mark.nightly
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real image sets are not here")
def test_a_real_set_on_disk(run, capsys):
    data = ["name=cifar10", f"dir={SHARED}", "split=train[:600]", "test_split=test[:300]"]
    arguments = [*KNN, f"--backbone={run.root}", *(f"--config.data.{d}" for d in data)]
    assert run_job(main, arguments) == 0
    (result,) = results(run.root).values()
    assert (result["dataset"], result["classes"], result["test"]["examples"]) == ("cifar10", 10, 300)
    assert result["settings"]["size"] == 8 and 0.0 < result["top1"] < 1.0


@pytest.fixture
def squares(tmp_path):
    """A folder of images: two splits of four colours."""
    for split, count in (("train", 60), ("test", 40)):
        images = image_set(count, split)
        for i, pixels in enumerate(images.images(np.arange(count))):
            place = tmp_path / "squares" / split / images.classes["colour"][images.labels["colour"][i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i}.png")
    return tmp_path / "squares"


@pytest.mark.nightly
def test_the_job_runs_from_an_export_alone_with_training_and_methods_not_even_there(run, squares, tmp_path):
    package = Path(__file__).parents[1]
    alone, work = tmp_path / "alone", tmp_path / "work"
    shutil.copytree(
        package / "mi_contrast",
        alone / "mi_contrast",
        ignore=shutil.ignore_patterns("training", "methods", "__pycache__"),
    )
    shutil.copytree(package / "configs" / "evaluate", alone / "configs" / "evaluate")
    work.mkdir()
    shutil.copytree(run.export, work / "export")
    shutil.rmtree(run.root)
    command = [sys.executable, "-m", "mi_contrast.evaluate", "--config=configs/evaluate/linear.py:logistic"]
    command += ["--backbone=export", "--workdir=out", f"--config.data.name=folder:{squares}"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(alone)}
    found = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    (result,) = results(work / "out").values()
    assert result["classes"] == 4 and result["top1"] > 0.5 and result["step"] == 40
    assert sorted(p.name for p in (work / "out").iterdir()) == ["features", "results"]


@pytest.mark.nightly
def test_transfer_from_the_command_line_has_its_tables_and_figure(run, squares, capsys):
    sets_given = ({"name": "folder:squares", "classes": 4}, {"name": "folder:absent", "classes": 2})
    arguments = ["--config=configs/evaluate/transfer.py", f"--backbone={run.root}"]
    arguments += [f"--config.data.dir={squares.parent}", f"--config.task.sets={sets_given!r}"]
    assert run_job(main, arguments) == 2
    assert "1 of 2 sets can't be read" in capsys.readouterr().err and results(run.root) == {}
    assert run_job(main, [*arguments, "--config.task.missing=skip"]) == 0
    names = sorted(p.name for p in run.results.iterdir())
    assert [n for n in names if n.startswith("transfer")] == [
        f"transfer-linear.{s}" for s in ("csv", "json", "md", "svg")
    ]
    assert "linear-squares.json" in names and "linear-squares-untrained.safetensors" in names
    assert "squares" in (run.results / "transfer-linear.md").read_text()
