"""Which files are images of a set, against a plain walk; what no user meant is left out or refused by name."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import sets
from mi_contrast.data.listing import SUFFIXES, find_images, list_images, list_images_as_0_1_0


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names_of(root):
    return {
        split: sorted(p.relative_to(root).as_posix() for _, p in files) for split, files in list_images(root).items()
    }


def test_hidden_folders_and_files_are_left_out(tmp_path):
    put(tmp_path, "cat/1.jpg", "dog/2.JFIF", "dog/3.heic", "cat/.4.jpg", "cat/.DS_Store")
    for hidden in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "cat/@eaDir", "cat/.ipynb_checkpoints"):
        put(tmp_path, f"{hidden}/9.jpg")
    assert names_of(tmp_path) == {"train": ["cat/1.jpg", "dog/2.JFIF", "dog/3.heic"]}
    assert {label for label, _ in list_images(tmp_path)["train"]} == {"cat", "dog"}


def test_images_beside_an_empty_hidden_folder_are_a_set_without_labels(tmp_path):
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "notes").mkdir()
    for i in range(3):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    images = sets.load(f"folder:{tmp_path}", "train")
    assert len(images) == 3 and images.labels == {}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("train/cat/1.jpg", "val/cat/3.jpg", "train/stray.jpg"), "train/stray.jpg and train/cat/1.jpg"),
        (("1.jpg", "2.jpg", "thumbs/1.jpg"), "1.jpg and thumbs/1.jpg"),
        (("1.jpg", "train/cat/1.jpg"), "1.jpg and train/cat/1.jpg"),
    ],
)  # fmt: skip
def test_two_depths_are_refused_by_name(tmp_path, names, said):
    put(tmp_path, *names)
    with pytest.raises(UserError, match=f"holds images at two depths: {said}; move or remove") as caught:
        sets.load(f"folder:{tmp_path}", "train")
    assert "\n" not in str(caught.value)


def test_real_paths_count_once(tmp_path):
    put(tmp_path, *(f"cat/{i}.jpg" for i in range(5)), "outside/y.jpg")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "cat" / "again.jpg").symlink_to(tmp_path / "cat" / "3.jpg")
    root = tmp_path / "set"
    (tmp_path / "outside").rename(tmp_path / "kept")
    root.mkdir()
    (tmp_path / "cat").rename(root / "cat")
    (root / "cat" / "loop").unlink()
    (root / "cat" / "loop").symlink_to(root, target_is_directory=True)
    (root / "cat" / "again.jpg").unlink()
    (root / "cat" / "again.jpg").symlink_to(root / "cat" / "3.jpg")
    (root / "dog").symlink_to(tmp_path / "kept", target_is_directory=True)
    assert names_of(root) == {"train": [*(f"cat/{i}.jpg" for i in range(5)), "dog/y.jpg"]}


NAME = st.sampled_from(["a", "b", ".h", "@eaDir", "__MACOSX", "c"])
LEAF = st.sampled_from(["1.jpg", "2.png", ".3.png", "n.txt", "4.TIF", "5.jfif"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.sets(st.tuples(st.lists(NAME, max_size=3), LEAF).map(lambda f: "/".join([*f[0], f[1]])), max_size=12))
def test_the_listing_is_a_plain_walks(tmp_path_factory, files):
    root = tmp_path_factory.mktemp("walk")
    put(root, *files)
    wanted = set()
    for where, _, names in os.walk(root):
        for name in names:
            path = Path(where, name).relative_to(root)
            hidden = any(part[0] == "." or part in ("@eaDir", "__MACOSX") for part in path.parts)
            if not hidden and path.suffix.lower() in SUFFIXES:
                wanted.add(path)
    assert {path.relative_to(root) for path in find_images(root)} == wanted


@pytest.mark.parametrize(
    "names", [("cat/1.jpg", "dog/in/2.png"), ("1.jpg", "2.jpg"), ("train/a/1.jpg", "val/b/c/2.jpg")]
)
def test_tidy_folders_are_listed_as_0_1_0_did(tmp_path, names):
    put(tmp_path, *names)
    if "dog/in/2.png" in names:
        put(tmp_path, "dog/3.png")
        (tmp_path / "dog/in/2.png").unlink()
    assert list_images(tmp_path) == list_images_as_0_1_0(tmp_path)
