"""One command trains on a folder of pictures, and what it prints at the end judges the run."""

import json
import re
import shlex

import jax
import numpy as np
import pytest
from PIL import Image

from mi_contrast import __main__ as door
from mi_contrast import main
from mi_contrast.core.config import parse, set_short_flags
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.core.legacy import complete
from mi_contrast.core.paths import set_field
from mi_contrast.interchange import load
from mi_contrast.training.starts import claim_config


def write_pictures(root, labelled=True, count=20):
    rng = np.random.default_rng(0)
    for number in range(2 * count):
        label = ("cats", "dogs")[number % 2]
        folder = root / label if labelled else root
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (40, 48, 3)) + np.array((100, 0, 0)) * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{label}_{number}.png")
    return root


@pytest.mark.parametrize(
    "words, flags",
    [
        (["simclr", "photos/"], ["--config=simclr:folder", "--config.data.name=folder:photos"]),
        (["moco:folder", "a b"], ["--config=moco:folder", "--config.data.name=folder:a b"]),
        (
            ["simclr", "x.zip", "--labels=l.csv"],
            ["--config=simclr:folder", "--config.data.name=folder:x.zip", "--labels=l.csv"],
        ),
        (["simclr", "l.txt"], ["--config=simclr:folder", "--config.data.name=list:l.txt"]),
        (["simclr", "a.npz"], ["--config=simclr:folder", "--config.data.name=arrays:a.npz"]),
        (["simclr", "hf:beans"], ["--config=simclr:folder", "--config.data.name=hf:beans"]),
        (["simclr"], ["--config=simclr"]),
    ],
)
def test_two_words_name_a_method_and_pictures(words, flags):
    assert door.expand(door.JOBS["train"], words) == flags


NAMES = {
    "folder:photos": "runs/simclr-photos",
    "folder:/x/my photos/": "runs/simclr-my photos",
    "folder:/x/set.zip": "runs/simclr-set",
    "folder:day.1": "runs/simclr-day.1",
    "hf:user/beans": "runs/simclr-beans",
    "photos": "runs/simclr-photos",
}


@pytest.mark.parametrize("name, workdir", NAMES.items())
def test_the_run_directory_is_called_after_the_pictures(name, workdir):
    call = parse(["--config=simclr:folder", f"--config.data.name={name}"], main.FLAGS)
    assert str(main._choose_workdir(call)) == workdir


def test_the_word_none_is_a_word_of_labels():
    call = parse(["--config=simclr:folder", "--config.data.labels=none", "--config.data.group=7"], main.FLAGS)
    assert call.config.data.labels == "none" and call.config.data.group == "7"
    call = parse(["--config=simclr:folder", "--labels=none", "--group=folder"], main.FLAGS)
    config = set_short_flags(call)
    assert config.data.labels == "none" and config.data.group == "folder"


FEW = ["--config.steps=3", "--config.views.size=32", "--config.model.width=8", "--config.log.tensorboard=False"]


def check_counts(said, progress):
    """The lines at the start agree on how many pictures are trained on, and how often."""
    train, held_out, test = map(
        int, re.search(r"pictures: (\d+) to train on, (\d+) held out .*, (\d+) to test on", said).groups()
    )
    assert train + held_out + test == 40 and held_out == (train + held_out) // 5
    assert f"data.batch = {2 ** int(np.log2(0.75 * train))}: {train} pictures are trained on" in said
    assert f"eval.pairs = {held_out}: {held_out} pictures are held out" in said
    batch = int(re.search(r"data\.batch = (\d+)", said)[1])
    epochs, images = re.search(r"each of \d+ images, ([\d.]+) epochs of (\d+) images in all", progress).groups()
    assert int(images) == train and float(epochs) == pytest.approx(3 * batch / train, rel=0.005)


def check_that_few_images_tell_nothing(said, progress, run):
    assert "7 images are held out to measure training, and fewer than 16 are too few" in progress
    assert "(of 7 images, too few to tell)" in progress
    assert "7 images are held out to measure training, too few to tell what was learned" in said
    assert "nats trained" not in said and "% trained" not in said
    page = (run / "report.html").read_text()
    assert "too few to tell what was learned" in page and "<h3>kNN accuracy</h3>" not in page


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [True, False])
def test_a_folder_trains_and_the_printed_line_judges(tmp_path, monkeypatch, capsys, labelled):
    write_pictures(tmp_path / "photos", labelled)
    monkeypatch.chdir(tmp_path)
    door.start(["train", "simclr", "photos/", *FEW])
    said, progress = capsys.readouterr()
    check_counts(said, progress)
    assert "40 pictures: 40 PNG" in said and "to test on" in said and "views.mean = (" in said
    run = tmp_path / "runs" / "simclr-photos"
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["steps"] == 3 and config["data"]["test_share"] == (0.2 if labelled else 0.1)
    assert config["data"]["labels"] == ("folders" if labelled else "none")
    assert np.abs(np.array(config["views"]["mean"]) - (0.43, 0.23, 0.23)).max() < 0.03
    program, *words = shlex.split(re.search(r"judge it: (.*)", said)[1])
    assert program == "mi-contrast"
    door.start(words)
    judged = capsys.readouterr().out
    test = len([line for line in [judged] if f"{'linear' if labelled else 'diagnostics'} on " in line])
    assert test == 1 and list((run / "results").glob("*.json"))
    check_that_few_images_tell_nothing(said, progress, run)

    door.start(["train", "simclr", "photos/", *FEW])  # the same command, whose open fields are those of the run
    again = capsys.readouterr().out
    assert "was trained before" in again and "settled for this run" not in again
    program, *words = shlex.split(re.search(r"for more: (.*)", again)[1])
    assert (program, words[:3]) == ("mi-contrast", ["train", "simclr", "photos"])
    door.start(words)  # the command for more steps works as it is printed
    more = capsys.readouterr().out
    assert f"{run.relative_to(tmp_path)} is trained" in more and "nothing was trained" not in more
    assert "goes on to 6 steps, 3 were planned before" in more and "resuming from step 3" in more
    assert json.loads((run / "export" / "manifest.json").read_text())["step"] == 6
    door.start(["train", "simclr", "photos/", *FEW[1:]])  # without steps, those of the run are taken
    assert "it has all its 6 steps" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"holds a run of another config: data\.batch"):
        door.start(["train", "simclr", "photos/", *FEW, "--config.data.batch=8"])


@pytest.mark.slow
def test_training_starts_from_an_export(tmp_path, monkeypatch, capsys):
    write_pictures(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    door.start(["train", "simclr", "photos/", "--workdir=one", *FEW])
    capsys.readouterr()
    flags = [
        "--config.checkpoint.start_from=one/export",
        "--config.steps=1",
        "--config.optim.lr=0.0",
        "--config.optim.weight_decay=0.0",
    ]
    door.start(["train", "simclr", "photos/", "--workdir=two", *flags])
    said = capsys.readouterr().out
    assert re.search(r"weights of one/export: \d+ of \d+ tensors loaded, those of the backbone; new: head", said)
    assert "model.width = 8: that of the weights the run starts from" in said
    first, second = (load(tmp_path / name / "export") for name in ("one", "two"))
    pairs = zip(jax.tree.leaves(first.variables["params"]), jax.tree.leaves(second.variables["params"]), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs) and first.spec["mean"] == second.spec["mean"]


def test_one_folder_has_two_spellings(tmp_path, monkeypatch):
    config = complete({"data": {"name": "folder:photos", "dir": None}, "steps": 3})
    monkeypatch.chdir(tmp_path)
    folder = RunDirectory(tmp_path / "run")
    folder.root.mkdir()
    claim_config(folder, config, "simclr", "folder")
    claim_config(folder, set_field(config, "data.name", f"folder:{tmp_path}/photos"), "simclr", "folder")
    for other in ("folder:pictures", "list:photos", "cifar10"):
        with pytest.raises(UserError, match=r"data\.name differ"):
            claim_config(folder, set_field(config, "data.name", other), "simclr", "folder")
