"""Broken images: all named at once, left out up to a share, and replaced by the next good one if they break later."""

import errno

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError, cannot_write
from mi_contrast.data import broken, imageset, sets


def fill(root, count=20):
    """Class folders of `count` pictures; the files in the order of the set."""
    for i in range(count):
        file = root / ("cat" if i % 2 else "dog") / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(file)
    return sorted(root.rglob("*.png"))


def spoil(file):
    """The file with its pixels spoiled, of the same size."""
    whole = file.read_bytes()
    file.write_bytes(whole[:45] + bytes(len(whole) - 45))


def pixels(file):
    return np.asarray(Image.open(file))


def test_all_broken_files_are_named_at_once(tmp_path):
    files = fill(tmp_path)
    for file in files[3:6]:
        spoil(file)
    with pytest.raises(UserError, match=r"3 of 20 images of .* can't be read") as caught:
        sets.load(f"folder:{tmp_path}", "train")
    assert all(file.name in str(caught.value) for file in files[3:6]) and "data.broken=0.15" in str(caught.value)
    with pytest.raises(UserError, match="3 of 20"):
        sets.load(f"folder:{tmp_path}", "train", broken=0.149)
    assert len(sets.load(f"folder:{tmp_path}", "train", broken=0.15)) == 17


@pytest.mark.parametrize("can_write", [True, False])
def test_a_long_list_is_whole_in_a_file_and_else_in_the_message(tmp_path, monkeypatch, can_write):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    if not can_write:

        def refuse(*_):
            raise cannot_write("x", errno.EROFS)

        monkeypatch.setattr(broken, "write_text", refuse)
    files = fill(tmp_path / "photos", 40)
    for file in files[5:35]:
        spoil(file)
    with pytest.raises(UserError, match="30 of 40 images") as caught:
        sets.load(f"folder:{tmp_path / 'photos'}", "train")
    text, listed = str(caught.value), folder / "broken_images.txt"
    assert "\n" not in text and listed.exists() == can_write
    if can_write:
        assert f"all are listed in {listed};" in text
        text = listed.read_text()
        assert len(text.splitlines()) == 31
    assert sum(file.relative_to(tmp_path / "photos").as_posix() in text for file in files) == 30
    assert all(file.relative_to(tmp_path / "photos").as_posix() in text for file in files[5:35])


def test_the_scan_shows_its_progress(tmp_path, monkeypatch, capsys):
    fill(tmp_path)
    make = imageset.tqdm
    monkeypatch.setattr(imageset, "tqdm", lambda *a, **how: make(*a, **{**how, "delay": 0, "mininterval": 0}))
    sets.load(f"folder:{tmp_path}", "train", size=8)
    shown = capsys.readouterr().err
    assert f"looking for broken images in {tmp_path}" in shown and "20/20" in shown
    sets.load(f"folder:{tmp_path}", "train", size=8, known_broken=())
    assert capsys.readouterr().err == "", "control: without a scan there is none"


def test_truncated_jpegs_are_found(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("a.jpg", "b.jfif"):
        image.save(tmp_path / name, "JPEG")
    (tmp_path / "b.jfif").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"1 of 2 images .* b.jfif"):
        sets.load(f"folder:{tmp_path}", "train")


def test_broken_files_get_no_index(tmp_path):
    files = fill(tmp_path)
    whole = sets.load(f"folder:{tmp_path}", "train")
    shown = whole.images(np.arange(20))
    spoil(files[7])
    left = sets.load(f"folder:{tmp_path}", "train", broken=0.1)
    at = next(i for i, image in enumerate(shown) if np.array_equal(image, np.asarray(pixels_of(7))))
    keep = np.delete(np.arange(20), at)
    assert np.array_equal(left.images(np.arange(19)), shown[keep])
    assert np.array_equal(left.labels["label"], whole.labels["label"][keep])
    assert left.fingerprint["broken"] == [files[7].relative_to(tmp_path).as_posix()]


def pixels_of(place):
    """The picture that `fill` wrote as the file of this place by name: cats (odd numbers) come first."""
    number = [*range(1, 20, 2), *range(0, 20, 2)][place]
    return np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("resident", [False, True])
def test_one_that_breaks_later_is_replaced_by_the_next(tmp_path, resident, capsys):
    files = fill(tmp_path)
    images = sets.load(f"folder:{tmp_path}", "train", broken=0.2)
    shown = images.images(np.arange(20))
    index = {f: next(i for i in range(20) if np.array_equal(shown[i], pixels(f))) for f in files}
    for file in files:
        if index[file] in (4, 5, 19):
            spoil(file)
    again = sets.load(
        f"folder:{tmp_path}", "train", broken=0.2, known_broken=()
    )  # a restart, with what the scan had found
    if resident:
        again = sets.cache_in_memory(again)
    wanted = [6 if i in (4, 5) else 0 if i == 19 else i for i in range(20)]
    assert np.array_equal(again.images(np.arange(20)), shown[wanted])
    for indices in ([5, 4], [19], [3, 19, 5]):  # whoever else is in the batch
        assert np.array_equal(images.images(indices), shown[[wanted[i] for i in indices]])
    assert "the next image stands in for it" in capsys.readouterr().err
    with pytest.raises(UserError, match="not a readable image"):
        sets.load(f"folder:{tmp_path}", "train", known_broken=()).images(np.arange(20))


@pytest.mark.parametrize("share", [-0.1, 1.0, True, "a"])
def test_a_wrong_share_is_one_line(tmp_path, share):
    fill(tmp_path, 4)
    with pytest.raises(UserError, match=r"data.broken is"):
        sets.load(f"folder:{tmp_path}", "train", broken=share)
