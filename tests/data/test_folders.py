"""Class folders of images, against the files themselves."""

import hashlib
import importlib.util
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import sets


def picture(seed, shape=(6, 5)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def fill(root, classes, count=12, kind="png"):
    """root/<class>/<i>.<kind>; returns {path below root: pixels}."""
    written = {}
    for c, label in enumerate(classes):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = picture(100 * c + i)
            Image.fromarray(image).save(root / label / f"{i:02d}.{kind}")
            written[f"{label}/{i:02d}.{kind}"] = image
    return written


def test_class_folders_are_train(tmp_path):
    written = fill(tmp_path, ("cat", "dog", "eel"))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._00.png").write_text("no image either")
    images = sets.load(f"folder:{tmp_path}", "train")
    order = sorted(written, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert len(images) == 36 and images.image_shape == (6, 5, 3)
    assert np.array_equal(images.images(np.arange(36)), np.stack([written[name] for name in order]))
    assert [images.classes["label"][i] for i in images.labels["label"]] == [name.split("/")[0] for name in order]
    assert images.classes == {"label": ("cat", "dog", "eel")} and images.labels["label"].dtype == np.int32


def test_a_sub_split_mixes_the_classes(tmp_path):
    fill(tmp_path, ("cat", "dog", "eel"))
    whole, first, rest = (sets.load(f"folder:{tmp_path}", s) for s in ("train", "train[:75%]", "train[75%:]"))
    assert (len(first), len(rest)) == (27, 9)
    both = np.concatenate([first.images(np.arange(27)), rest.images(np.arange(9))])
    assert np.array_equal(both, whole.images(np.arange(36)))
    assert set(first.labels["label"]) == {0, 1, 2}  # in the order of names, the last class would be missing


def test_split_folders_share_their_classes(tmp_path):
    fill(tmp_path / "train", ("cat", "dog"), 4)
    fill(tmp_path / "val", ("dog", "eel"), 3, "bmp")
    (tmp_path / "empty").mkdir()
    train, val = (sets.load(f"folder:{tmp_path}", split) for split in ("train", "val"))
    assert train.classes == val.classes == {"label": ("cat", "dog", "eel")}
    assert sorted(train.labels["label"]) == [0] * 4 + [1] * 4 and sorted(val.labels["label"]) == [1] * 3 + [2] * 3
    both = sets.load(f"folder:{tmp_path}", "train+val[:2]")
    assert len(both) == 10 and np.array_equal(both.images([8, 9]), val.images([0, 1]))
    with pytest.raises(UserError, match=r"unknown split of folder:.* 'vall'; did you mean 'val'"):
        sets.load(f"folder:{tmp_path}", "vall")
    with pytest.raises(UserError, match="'empty'"):
        sets.load(f"folder:{tmp_path}", "empty")
    with pytest.raises(UserError, match="is empty"):
        sets.load(f"folder:{tmp_path}", "train[2:2]")


@pytest.mark.parametrize("options, is_asked", [({}, False), ({"labels": "folders"}, True)])
def test_a_start_asks_for_no_file_of_another_split(tmp_path, monkeypatch, options, is_asked):
    fill(tmp_path / "train", ("cat", "dog"), 4)
    fill(tmp_path / "val", ("cat", "dog"), 3)
    asked, stat = set(), Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **words: asked.add(path) or stat(path, **words))
    images = sets.load(f"folder:{tmp_path}", "train", **options)
    files = {path.relative_to(tmp_path).parts[0] for path in asked if path.suffix == ".png"}
    assert len(images) == 8 and files == ({"train", "val"} if is_asked else {"train"})


def test_examples_have_the_names_of_their_files(tmp_path):
    written = fill(tmp_path, ("cat", "dog"), 4)
    (tmp_path / "cat" / "broken.png").write_bytes(b"no picture")
    for options in ({}, {"labels": "folders"}, {"labels": "none"}):
        images = sets.load(f"folder:{tmp_path}", "train", broken=0.2, **options)
        assert sorted(images.names) == sorted(written)
        shown = images.images(np.arange(8))
        assert all(np.array_equal(shown[i], written[name]) for i, name in enumerate(images.names))
    assert sets.load(f"folder:{tmp_path}", "train", broken=0.2, options={"tile": 4}).names is None
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4, 3), np.uint8))
    assert sets.load(f"arrays:{tmp_path}/a.npz", "train").names is None


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder; give data.name='folder:PATH'"):
        sets.load(f"folder:{tmp_path}/nowhere", "train")


def test_a_folder_without_images(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match="contains no images; lay them out as PATH/<class>/<image>"):
        sets.load(f"folder:{tmp_path}", "train")


def test_broken_and_unequal_images_are_named(tmp_path):
    fill(tmp_path, ("cat", "dog"), 3)
    images = sets.load(f"folder:{tmp_path}", "train")
    bad = tmp_path / "dog" / "01.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:50])
    with pytest.raises(UserError, match=r"dog/01.png: not a readable image"):
        images.images(np.arange(6))
    bad.unlink()
    with pytest.raises(UserError, match=r"dog/01.png can't be read \(No such file"):
        images.images(np.arange(6))
    Image.fromarray(picture(0, (7, 5))).save(bad)
    with pytest.raises(UserError, match=r"dog/01.png: 5 x 7 pixels, where .* 5 x 6 pixels; give data.size"):
        images.images(np.arange(6))
    assert sets.load(f"folder:{tmp_path}", "train", size=4).images(np.arange(6)).shape == (6, 4, 4, 3)


HEIC_HEADER = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def mixed(tmp_path):
    """A folder of a PNG and a HEIC: a header of HEIC, and a PNG that stands for what only a reader of HEIC knows."""
    for name, seed in (("a.png", 0), ("b.HEIC", 1)):
        Image.fromarray(picture(seed)).save(tmp_path / name, "PNG")
    heic = tmp_path / "b.HEIC"
    heic.write_bytes(HEIC_HEADER + heic.read_bytes())
    return tmp_path


def test_heic_without_its_reader_is_refused_with_the_command(mixed, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"holds 1 HEIC images, such as b.HEIC; pip install pillow-heif") as caught:
        sets.load(f"folder:{mixed}", "train")
    assert "\n" not in str(caught.value)
    (mixed / "b.HEIC").unlink()
    assert len(sets.load(f"folder:{mixed}", "train")) == 1, "control: without such files nothing is asked for"


def test_heic_is_read_where_its_reader_is_installed(mixed, monkeypatch):
    def register():
        def read(file, _):
            return Image.open(io.BytesIO(file.read()[len(HEIC_HEADER) :]))

        Image.register_open("HEIF", read, lambda start: start[4:12] == b"ftypheic")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    images = sets.load(f"folder:{mixed}", "train")
    shown = images.images(np.arange(2))
    order = sorted(("a.png", "b.HEIC"), key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert np.array_equal(shown[order.index("b.HEIC")], picture(1))
    assert np.array_equal(shown[order.index("a.png")], picture(0))


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="pillow-heif is not installed")
def test_heic_by_pillow_heif(tmp_path):
    import pillow_heif

    image = np.repeat(np.repeat(picture(3, (8, 8)), 8, axis=0), 8, axis=1)
    pillow_heif.from_pillow(Image.fromarray(image)).save(tmp_path / "a.heic", quality=100)
    shown = sets.load(f"folder:{tmp_path}", "train").images([0])[0]
    assert np.abs(shown.astype(int) - image).mean() < 12
