"""Class folders of images, against the files themselves."""

import hashlib

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
