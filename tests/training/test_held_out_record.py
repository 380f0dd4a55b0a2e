"""What a run keeps of its held-out images: right values, small files, and never an end of training."""

import io
import json
import shutil

import numpy as np
import pytest
from jax.errors import JaxRuntimeError
from PIL import Image
from sklearn.decomposition import PCA

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory
from mi_contrast.training import held_out_record, loop
from mi_contrast.training.held_out_record import describe_features, make_thumbnails
from tests.training import small


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_neighbours_are_those_of_a_loop_and_components_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    features, bank = unit(rng.normal(size=(50, 8))), unit(rng.normal(size=(30, 8)))
    arrays = describe_features(features, features[:4], bank)
    for q in range(4):
        cosines = [sum(a * b for a, b in zip(features[q], row, strict=True)) for row in bank]
        nearest = sorted(range(30), key=lambda i: -cosines[i])[:5]
        assert arrays["neighbours"][q].tolist() == nearest
        np.testing.assert_allclose(arrays["similarities"][q], [cosines[i] for i in nearest], atol=1e-6)
    pca = PCA(8).fit(features)
    theirs = pca.transform(features)
    theirs *= np.sign((theirs * arrays["components"]).sum(axis=0))  # a component's sign is arbitrary
    np.testing.assert_allclose(arrays["components"], theirs, atol=2e-3)  # float16 of numbers up to 1
    np.testing.assert_allclose(arrays["explained"], pca.explained_variance_ratio_, atol=1e-6)


def test_two_images_have_components_and_neighbours_too():
    features = unit(np.random.default_rng(0).normal(size=(2, 8)))
    arrays = describe_features(features, features[:1], features[1:])
    assert arrays["components"].shape == (2, 2) and arrays["neighbours"].tolist() == [[0]]


def test_thumbnails_keep_colours_and_shrink_large_images():
    images = np.zeros((2, 96, 64, 3), np.uint8)
    images[0], images[1] = (200, 30, 90), (10, 250, 60)
    arrays = make_thumbnails(images)
    files = np.split(arrays["pictures"], arrays["ends"][:-1])
    for file, image in zip(files, images, strict=True):
        with Image.open(io.BytesIO(file.tobytes())) as opened:
            assert opened.format == "WEBP" and opened.size == (32, 48)
            assert np.abs(np.asarray(opened.convert("RGB")).astype(int) - image[0, 0]).max() <= 6


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out") / "run"
    config = small.config(steps=6, eval__every=3)
    loop.run(config, folder)
    return config, RunDirectory(folder)


def read(run, name):
    with np.load(run.held_out / f"{name}.npz") as arrays:
        return dict(arrays)


def test_a_run_keeps_its_images_before_and_after_in_little_space(finished):
    config, run = finished
    lines = [json.loads(line) for line in (run.held_out / "measurements.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert read(run, "before")["step"] == 0 and read(run, "after")["step"] == 6
    examples = read(run, "examples")
    assert len(examples["index"]) == len(examples["ends"]) == len(examples["labels"])
    assert sum(file.stat().st_size for file in run.held_out.iterdir()) < 1_000_000
    logged = {row["step"]: row for row in map(json.loads, run.metrics.read_text().splitlines()) if "knn_top1" in row}
    for line in lines:
        count = sum(line["queries"])
        for metric in ("knn_top1", "probe_top1"):
            assert sum(line["hits"][metric]) / count == pytest.approx(logged[line["step"]][metric], abs=1e-6)
        assert sum(line["similarities"]["positive"]) == config["eval"]["pairs"]
        assert line["ring"]["from"] <= line["ring"]["to"]


def test_neighbours_are_training_images_and_queries_are_not(finished):
    _, run = finished
    examples, after = read(run, "examples"), read(run, "after")
    held_out = set(examples["index"][examples["held_out"]].tolist())
    assert held_out.isdisjoint(after["neighbour_index"].reshape(-1).tolist())
    assert set(examples["index"][: int(examples["queries"])].tolist()) <= held_out


def test_a_resumed_run_drops_what_came_after_its_checkpoint(finished, tmp_path):
    _, run = finished
    shutil.copytree(run.root, tmp_path / "run")
    copy = RunDirectory(tmp_path / "run")
    record = held_out_record.HeldOutRecord(copy, None, print)
    record.begin(4)
    lines = [json.loads(line)["step"] for line in (copy.held_out / "measurements.jsonl").read_text().splitlines()]
    assert lines == [0, 3]
    assert not (copy.held_out / "after.npz").exists() and (copy.held_out / "before.npz").exists()
    record.begin(0)
    assert (copy.held_out / "measurements.jsonl").read_text() == "" and not list(copy.held_out.glob("*.npz"))


def test_a_failure_is_told_and_kept_and_training_goes_on(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise JaxRuntimeError("no room for\npictures")

    monkeypatch.setattr(held_out_record, "describe_features", fail)
    outcome = loop.run(small.config(steps=2, eval__every=2), tmp_path / "run")
    assert outcome.complete
    assert capsys.readouterr().err.count("the page will lack it: no room for pictures") == 2
    text = (tmp_path / "run" / "held_out" / "measurements.jsonl").read_text()
    assert text.count('"problem": "no room for pictures"') == 2 and text.count('"similarities"') == 2


@pytest.mark.parametrize(
    "error, is_caught",
    [
        (OSError("disk full"), True),
        (MemoryError("no room"), True),
        (np.linalg.LinAlgError("SVD did not converge"), True),
        (UserError("a picture is broken"), True),
        (ValueError("shapes do not match"), False),
        (RuntimeError("a mistake"), False),
        (KeyError("labels"), False),
    ],
)
def test_mistakes_in_the_program_are_not_taken_for_a_full_disk(tmp_path, error, is_caught):
    said = []

    def fail():
        raise error

    record = held_out_record.HeldOutRecord(RunDirectory(tmp_path), None, said.append)
    if is_caught:
        record._attempt(3, fail)
        assert len(said) == 1 and str(error).strip("'") in said[0]
        assert json.loads((tmp_path / "held_out" / "measurements.jsonl").read_text())["step"] == 3
    else:
        with pytest.raises(type(error)):
            record._attempt(3, fail)
        assert said == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"words"])
def test_a_damaged_file_of_held_out_images_is_removed(tmp_path, content):
    folder = RunDirectory(tmp_path).held_out
    folder.mkdir()
    (folder / "after.npz").write_bytes(content)
    np.savez(folder / "before.npz", step=np.array(0))
    held_out_record.HeldOutRecord(RunDirectory(tmp_path), None, print).begin(4)
    assert [path.name for path in folder.glob("*.npz")] == ["before.npz"]


def test_numbers_of_training_do_not_depend_on_the_record(finished, tmp_path, monkeypatch):
    config, run = finished
    monkeypatch.setattr(held_out_record.HeldOutRecord, "write", lambda *_: None)
    loop.run(config, tmp_path / "run")

    def numbers(root):
        rows = map(json.loads, (root / "metrics.jsonl").read_text().splitlines())
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]

    assert numbers(tmp_path / "run") == numbers(run.root)
