"""Decoded pixels against Pillow and torchvision; unreadable images end in one line that names them."""

import io

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data.decoding import decode, square, stack


def pixels(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image, kind="PNG", **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "how"), [("PNG", {}), ("WEBP", {"lossless": True}), ("BMP", {})])
def test_lossless_kinds_come_back(kind, how):
    image = pixels()
    assert np.array_equal(decode(encoded(Image.fromarray(image), kind, **how), "x"), image)


def test_grey_palette_and_transparency_become_rgb():
    grey = pixels()[..., 0]
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), "x"), np.repeat(grey[..., None], 3, -1))
    flat = Image.fromarray(pixels()).quantize(16)
    assert np.array_equal(decode(encoded(flat), "x"), np.asarray(flat.convert("RGB")))
    rgba = np.concatenate([pixels(), pixels(seed=1)[..., :1]], -1)
    assert np.array_equal(decode(encoded(Image.fromarray(rgba)), "x"), rgba[..., :3])


@pytest.mark.parametrize("broken", [b"", b"not an image", encoded(Image.fromarray(pixels()))[:-600]])
def test_a_broken_image_is_named(broken):
    with pytest.raises(UserError, match="example 7 of birds: not a readable image") as caught:
        decode(broken, "example 7 of birds")
    assert "\n" not in str(caught.value)


def test_sixteen_bits_are_refused():
    deep = encoded(Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257))
    with pytest.raises(UserError, match="x: an image of mode I;16"):
        decode(deep, "x")


def test_square_of_its_size_is_itself():
    image = Image.fromarray(pixels(24, 24))
    assert square(image, 24) is image


@pytest.mark.parametrize(("height", "width", "size"), [(20, 30, 16), (31, 20, 16), (20, 20, 33), (9, 200, 8)])
def test_square_is_torchvisions(height, width, size, torchvision):
    transforms = torchvision.transforms
    theirs = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    image = Image.fromarray(pixels(height, width))
    assert np.array_equal(np.asarray(square(image, size)), np.asarray(theirs(image)))


@pytest.fixture(scope="module")
def torchvision():
    torch = pytest.importorskip("torch", reason="needs torch")
    try:
        library = torch.library.Library("torchvision", "DEF")  # the CPU build lacks the operators' schemas
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    except RuntimeError:
        library = None
    module = pytest.importorskip("torchvision", reason="needs torchvision")
    module.kept = library
    return module


def test_unequal_images_are_named():
    with pytest.raises(UserError, match=r"b: 30 x 21 pixels, where the first image has 30 x 20 pixels; give data.size"):
        stack([pixels(), pixels(21)], ["a", "b"], (20, 30, 3))
    assert stack([pixels()], ["a"], (20, 30, 3)).shape == (1, 20, 30, 3)
    assert stack([], [], (20, 30, 3)).shape == (0, 20, 30, 3)
