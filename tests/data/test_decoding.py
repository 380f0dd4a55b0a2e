"""Decoded pixels against Pillow and torchvision; unreadable images end in one line that names them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from mi_contrast.core.errors import UserError
from mi_contrast.data import decoding
from mi_contrast.data.decoding import crop_square, decode, stack_images


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_image_as_pillow_does(orientation):
    image = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, how in (("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})):
        file = encoded(image, kind, exif=exif, **how)
        wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(file)))
        assert np.array_equal(decode(file, "x"), np.asarray(wanted.convert("RGB")))


def sixteen_bit_png(values):
    """A PNG of 16 bits a channel, uint16 [H, W, 3] or [H, W], written by hand: Pillow writes no such RGB."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 16, 2 if values.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_are_scaled_alike_and_said_once(capsys):
    decoding._print_deep.cache_clear()
    grey = np.random.default_rng(0).integers(0, 2**16, (7, 5), dtype=np.uint16)
    rgb = np.repeat(grey[..., None], 3, -1)
    wanted = (rgb // 256).astype(np.uint8)
    tiff = encoded(Image.fromarray(grey), "TIFF")
    for file in (sixteen_bit_png(grey), sixteen_bit_png(rgb), tiff):
        assert np.array_equal(decode(file, "x"), wanted)
        with pytest.raises(UserError, match="x: an image of 16 bits a channel"):
            decode(file, "x", deep=False)  # a mask's values would be lost
    assert capsys.readouterr().err.count("16 bits a channel") == 1


def test_eight_bits_are_not_called_sixteen(capsys):
    decoding._print_deep.cache_clear()
    decode(encoded(Image.fromarray(pixels())), "x", deep=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="x: an image of mode F"):
        decode(encoded(Image.fromarray(np.ones((3, 3), np.float32)), "TIFF"), "x")


def test_a_huge_image_is_refused_by_name():
    rows = zlib.compress(b"\0" * (1673 * 13376))

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 13376, 13376, 1, 0, 0, 0, 0))
    huge = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(UserError, match=r"huge.png: .*more than the 89,478,485 pixels that are read") as caught:
        decode(huge, "huge.png")
    assert "\n" not in str(caught.value)


def test_errors_carry_no_addresses():
    with pytest.raises(UserError) as caught:
        decode(b"no image", "x.png")
    assert "0x" not in str(caught.value) and "cannot identify image file" in str(caught.value)


def test_square_of_its_size_is_itself():
    image = Image.fromarray(pixels(24, 24))
    assert crop_square(image, 24) is image


@pytest.mark.parametrize(("height", "width", "size"), [(20, 30, 16), (31, 20, 16), (20, 20, 33), (9, 200, 8)])
def test_square_is_torchvisions(height, width, size, torchvision):
    transforms = torchvision.transforms
    theirs = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size)])
    image = Image.fromarray(pixels(height, width))
    assert np.array_equal(np.asarray(crop_square(image, size)), np.asarray(theirs(image)))


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
        stack_images([pixels(), pixels(21)], ["a", "b"], (20, 30, 3))
    assert stack_images([pixels()], ["a"], (20, 30, 3)).shape == (1, 20, 30, 3)
    assert stack_images([], [], (20, 30, 3)).shape == (0, 20, 30, 3)
