"""Tiles of images in folders, against slices of the files' own pixels."""

import hashlib
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageOps

from mi_contrast.core.errors import UserError
from mi_contrast.data import decoding, sets, tiles
from mi_contrast.data.imageset import cache_in_memory
from mi_contrast.data.pairing import split_held_out

SIDES = {"a.png": (20, 31), "b.png": (33, 20), "c.png": (24, 24), "d.png": (20, 20)}  # height, width


def fill(folder, named=SIDES):
    """Random pictures in a folder: {name: pixels}, in the order of the set."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, sides in named.items():
        rng = np.random.default_rng(list(name.encode()))
        written[name] = rng.integers(0, 256, (*sides, 3), dtype=np.uint8)
        Image.fromarray(written[name]).save(folder / name)
    order = sorted(written, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return {name: written[name] for name in order}


def tiles_of(pixels, tile, stride):
    high, wide, _ = pixels.shape
    corners = product(range(0, high - tile + 1, stride), range(0, wide - tile + 1, stride))
    return [pixels[y : y + tile, x : x + tile] for y, x in corners]


@pytest.mark.parametrize("tile, stride", [(20, 1), (16, 4), (7, 5), (8, None)])
def test_every_tile_is_a_square_of_its_image(tmp_path, tile, stride):
    written = fill(tmp_path)
    options = {"tile": tile} if stride is None else {"tile": tile, "stride": stride}
    images = sets.load(f"folder:{tmp_path}", "train", options=options)
    wanted = [tiles_of(pixels, tile, stride or tile) for pixels in written.values()]
    flat = np.stack([cut for of_image in wanted for cut in of_image])
    assert len(images) == len(flat) and images.image_shape == (tile, tile, 3)
    assert np.array_equal(images.images(np.arange(len(images))), flat)
    mixed = np.random.default_rng(0).permutation(len(images))
    assert np.array_equal(images.images(mixed), flat[mixed])
    assert np.array_equal(images.groups, np.repeat(np.arange(4), [len(of_image) for of_image in wanted]))
    assert np.array_equal(images.factors["image"], images.groups)
    assert images.labels == {} and images.classes == {}
    assert np.array_equal(cache_in_memory(images).images(mixed), flat[mixed])


def test_size_keeps_the_aspect(tmp_path):
    written = fill(tmp_path)
    images = sets.load(f"folder:{tmp_path}", "train", size=10, options={"tile": 10, "stride": 2})
    small = [Image.fromarray(p) for p in written.values()]
    small = [i.resize((10 * i.width // min(i.size), 10 * i.height // min(i.size)), Image.BILINEAR) for i in small]
    wanted = [cut for image in small for cut in tiles_of(np.asarray(image), 10, 2)]
    assert len(wanted) == 3 + 4 + 1 + 1  # of 15, 16, 10 and 10 pixels
    assert np.array_equal(images.images(np.arange(len(images))), np.stack(wanted))


def test_both_orientations_have_as_many_tiles(tmp_path):
    fill(tmp_path, {f"{i}.png": (128, 192) if i % 2 else (192, 128) for i in range(2)})
    images = sets.load(f"folder:{tmp_path}", "train", size=64, options={"tile": 56, "stride": 2})
    assert len(images) == 2 * 5 * 21


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, 10])
def test_tiles_of_a_turned_photo_are_those_of_the_upright_one(tmp_path, orientation, size):
    pixels, exif = np.random.default_rng(1).integers(0, 256, (24, 40, 3), dtype=np.uint8), Image.Exif()
    exif[0x0112] = orientation
    for folder in ("turned", "upright"):
        (tmp_path / folder).mkdir()
    Image.fromarray(pixels).save(tmp_path / "turned" / "a.png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "turned" / "a.png"))
    Image.fromarray(np.asarray(upright)).save(tmp_path / "upright" / "a.png")
    assert upright.size == ((24, 40) if orientation > 4 else (40, 24))
    assert tiles.read_sides(tmp_path / "turned" / "a.png", None) == upright.size
    read = lambda folder: sets.load(  # noqa: E731
        f"folder:{tmp_path / folder}", "train", size=size, options={"tile": 8, "stride": 5}
    )
    turned, right = read("turned"), read("upright")
    assert len(turned) == len(right) > 1
    assert np.array_equal(turned.images(np.arange(len(turned))), right.images(np.arange(len(right))))


def test_an_image_is_decoded_once(tmp_path, monkeypatch):
    fill(tmp_path)
    decoded = []
    monkeypatch.setattr(
        decoding, "decode", lambda *a, given=decoding.decode, **k: decoded.append(a[1]) or given(*a, **k)
    )
    images = sets.load(f"folder:{tmp_path}", "train", options={"tile": 16, "stride": 1})
    assert decoded == []
    for _ in range(3):
        images.images(np.arange(0, len(images), 5))
    assert len(decoded) == len(SIDES)


def test_tiles_have_the_class_of_their_image_and_splits_count_images(tmp_path):
    for label in ("cat", "dog"):
        fill(tmp_path / label)
    options = {"tile": 20, "stride": 1}
    whole = sets.load(f"folder:{tmp_path}", "train", options=options)
    first, rest = (sets.load(f"folder:{tmp_path}", part, options=options) for part in ("train[:3]", "train[3:]"))
    assert (len(set(first.groups)), len(set(rest.groups)), len(whole)) == (3, 5, len(first) + len(rest))
    assert whole.classes == {"label": ("cat", "dog")} and len(whole.labels["label"]) == len(whole)
    for group in range(8):
        assert len(set(whole.labels["label"][whole.groups == group])) == 1
    assert np.bincount(whole.labels["label"]).tolist() == [12 + 14 + 25 + 1] * 2
    assert np.array_equal(whole.images(np.arange(len(first), len(whole))), rest.images(np.arange(len(rest))))


def test_a_hold_out_takes_whole_images_unless_tiles_are_their_own(tmp_path):
    fill(tmp_path)
    by_image, by_tile = (
        sets.load(f"folder:{tmp_path}", "train", options={"tile": 16, "stride": 1, "groups": groups})
        for groups in ("image", "tile")
    )
    kept, held = split_held_out(by_image)
    assert len(set(by_image.groups[held])) == 1 and not set(by_image.groups[held]) & set(by_image.groups[kept])
    kept, held = split_held_out(by_tile)
    assert by_tile.groups is None and len(held) == round(len(by_tile) / 20)
    assert set(by_tile.factors["image"][kept]) == {0, 1, 2, 3}


def test_images_without_classes_are_a_set_without_labels(tmp_path):
    written = fill(tmp_path, {"b.png": (6, 5), "a.png": (6, 5)})
    images = sets.load(f"folder:{tmp_path}", "train")
    assert np.array_equal(images.images([0, 1]), np.stack(list(written.values())))
    assert images.labels == {} and images.classes == {} and images.groups is None
    with pytest.raises(UserError, match=r"unknown split of folder:.* 'test'"):
        sets.load(f"folder:{tmp_path}", "test")


def test_a_path_is_below_the_data_folder_where_that_is_given(tmp_path, monkeypatch):
    fill(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for name, data_dir in (("photos", None), ("photos", tmp_path), (tmp_path / "photos", "/nowhere")):
        assert len(sets.load(f"folder:{name}", "train", data_dir=data_dir, size=8)) == 4
    with pytest.raises(UserError, match="/nowhere/photos is not a folder"):
        sets.load("folder:photos", "train", data_dir="/nowhere")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tile": 21}, r"[abd].png: \d+ x \d+ pixels, smaller than a tile of 21; give data.options.tile=20 or less"),
        ({"tile": 8, "stride": 0}, "data.options.stride is 0; give a whole number of pixels, 1 or more"),
        ({"tile": 8.0}, "data.options.tile is 8.0"),
        ({"tile": True}, "data.options.tile is True"),
        ({"stride": 8}, "data.options has stride but no tile; give"),
        ({"tiles": 8}, "unknown option of a folder 'tiles'; did you mean 'tile'"),
        ({"tile": 8, "groups": "images"}, "unknown data.options.groups 'images'; did you mean 'image'"),
    ],
)
def test_mistakes_are_one_line(tmp_path, options, said):
    fill(tmp_path)
    with pytest.raises(UserError, match=said) as caught:
        sets.load(f"folder:{tmp_path}", "train", options=options)
    assert "\n" not in str(caught.value)


def test_a_broken_image_is_named(tmp_path):
    fill(tmp_path)
    images = sets.load(f"folder:{tmp_path}", "train", options={"tile": 16})
    (tmp_path / "c.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"1 of 4 images .* c.png: cannot identify"):
        sets.load(f"folder:{tmp_path}", "train", options={"tile": 16})
    (tmp_path / "c.png").unlink()
    with pytest.raises(UserError, match=r"c.png can't be read"):
        images.images(np.arange(len(images)))
