"""Training from Python: names, variants, fields and own data, and how mistakes in them are answered."""

import numpy as np
import pytest

import mi_contrast
from mi_contrast import front, main
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.fields import change_fields, find_path

IMAGES = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What would be trained: (config, workdir, name, variant)."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        main, "train", lambda config, workdir, *, name, variant, **more: found.append((config, workdir, name, variant))
    )
    return found


def test_a_name_a_variant_a_path_and_a_config_are_the_same_config(calls):
    config, _, _ = load_config("simclr:digits")
    for given in ("simclr:digits", "configs/simclr.py:digits", config, to_plain_data(config)):
        run = mi_contrast.train(given, "runs/x", steps=7)
        trained, workdir, name, variant = calls[-1]
        assert to_plain_data(trained) == to_plain_data(change_fields(config, {"steps": 7}))
        assert str(workdir) == str(run) == "runs/x"
        assert (name, variant) == (("simclr", "digits") if isinstance(given, str) else ("", None))


def test_the_run_directory_is_named_by_method_and_variant(calls):
    assert str(mi_contrast.train("simclr:digits")) == "runs/simclr-digits"
    with pytest.raises(UserError, match="no workdir"):
        mi_contrast.train(load_config("simclr:digits")[0])


def test_fields_are_set_by_plain_and_dotted_names_and_sections():
    config, _, _ = load_config("simclr:digits")
    changed = change_fields(config, {"steps": 9, "batch": 64, "eval.every": 3, "optim": {"lr": 0.5, "clip": 1.0}})
    assert (changed.steps, changed.data.batch, changed["eval"].every) == (9, 64, 3)
    assert (changed.optim.lr, changed.optim.clip, changed.optim.kind) == (0.5, 1.0, config.optim.kind)
    assert config.steps != 9  # the one that was given is unchanged
    schedule = {"kind": "linear", "a": 0.0, "b": 1.0, "start": 0.0, "end": 1.0}
    assert change_fields(config, {"lr": schedule}).optim.lr.to_dict() == schedule
    assert change_fields(config, {"options": {"size": 32, "length": 2}}).data.options.length == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"stepz": 1}, "no field 'stepz' in the config; did you mean 'steps'"),
        ({"optim.rl": 1}, "did you mean 'optim.lr'"),
        ({"optim": {"momentm": 1}}, "no field 'momentm' in config.optim; did you mean 'momentum'"),
        ({"every": 1}, "3 fields are called 'every'; give one of .*eval.every"),
        ({"steps": "many"}, "config.steps takes a int"),
    ],
)
def test_wrong_fields_are_refused_with_the_nearest_right_one(fields, says):
    with pytest.raises(UserError, match=says):
        change_fields(load_config("simclr:digits")[0], fields)


def test_a_plain_name_stands_for_its_only_field():
    tree = {"steps": 1, "data": {"batch": 2, "name": "x"}, "model": {"name": "y"}}
    assert find_path(tree, "batch") == "data.batch" and find_path(tree, "data.name") == "data.name"


def test_an_array_is_kept_with_the_run_and_not_mixed_with_another(tmp_path):
    labels = ["a", "b"] * 4
    name = front.place_data(IMAGES, labels, tmp_path)
    assert name == f"arrays:{(tmp_path / 'data.npz').resolve()}"
    with np.load(tmp_path / "data.npz") as kept:
        np.testing.assert_array_equal(kept["images"], IMAGES)
        assert kept["labels"].tolist() == labels
    assert front.place_data(IMAGES, labels, tmp_path) == name
    for other, those in ((IMAGES[::-1], labels), (IMAGES, None), (IMAGES, labels[::-1])):
        with pytest.raises(FileError, match="has other images"):
            front.place_data(other, those, tmp_path)


def test_a_list_of_files_is_kept_with_the_run(tmp_path):
    name = front.place_data(["a.png", tmp_path / "b.png"], None, tmp_path)
    assert name == f"list:{(tmp_path / 'files.txt').resolve()}"
    assert (tmp_path / "files.txt").read_text().splitlines()[1] == str(tmp_path / "b.png")
    with pytest.raises(FileError, match="lists other files"):
        front.place_data(["c.png"], None, tmp_path)


def test_a_folder_is_named_whole_and_a_set_stays_a_name(tmp_path):
    assert front.place_data(tmp_path, None, tmp_path) == f"folder:{tmp_path.resolve()}"
    assert front.place_data("tfds:cifar10", None, tmp_path) == "tfds:cifar10"
    assert str(front.choose_workdir("simclr", "folder", tmp_path / "my photos")) == "runs/simclr-my photos"
    assert str(front.choose_workdir("simclr", "folder", IMAGES)) == "runs/simclr-arrays"


@pytest.mark.parametrize(
    ("data", "labels", "says"),
    [
        (IMAGES / 255.0, None, r"data is float64 \[8, 16, 16, 3\]; give uint8"),
        (IMAGES[0], None, r"data is uint8 \[16, 16, 3\]"),
        (IMAGES, [1, 2], r"labels are \[2\] for 8 images"),
        (IMAGES, np.ones(8), "labels are float64"),
        ([], None, "an empty list"),
    ],
)
def test_data_of_another_kind_are_refused(tmp_path, data, labels, says):
    with pytest.raises(UserError, match=says):
        front.place_data(data, labels, tmp_path)
    assert not list(tmp_path.iterdir())


def test_labels_without_an_array_and_configs_of_another_kind_are_refused(calls):
    with pytest.raises(UserError, match="labels are given without an array"):
        mi_contrast.train("simclr:digits", labels=[1, 2])
    with pytest.raises(UserError, match="config is a int"):
        mi_contrast.train(3, "runs/x")
    with pytest.raises(UserError, match="did you mean 'simclr'"):
        mi_contrast.train("simlcr:digits")


@pytest.mark.slow
def test_an_array_with_labels_and_a_list_of_files_train_and_go_on(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    colours, numbers = rng.integers(40, 215, (3, 1, 1, 3)), np.arange(60) % 3
    images = np.clip(colours[numbers] + rng.normal(0, 25, (60, 24, 24, 3)), 0, 255).astype(np.uint8)
    small = dict(batch=8, width=8, steps=2)
    words = [("red", "green", "blue")[i] for i in numbers]
    run = mi_contrast.train("simclr", "runs/array", data=images, labels=words, **small)
    assert run.content.step == 2 and set(run.content.held_out.classes) == {"red", "green", "blue"}
    assert (
        mi_contrast.train("simclr", "runs/array", data=images, labels=words, **small) == run
    )  # finished: nothing to do
    files = []
    for i, image in enumerate(images):
        files.append(tmp_path / f"{i:02}.png")
        Image.fromarray(image).save(files[-1])
    listed = mi_contrast.train("simclr", "runs/list", data=files, **small)
    assert listed.content.step == 2 and "knn_top1" not in listed.content.curves
    assert len(listed.neighbours(files[0], k=3).index) == 3 and listed.report.is_file()
