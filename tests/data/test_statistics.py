"""Means and deviations of channels against a numpy loop in float64, in colour spaces by scikit-image."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from skimage import color

from mi_contrast.core.config import change
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.data import statistics
from mi_contrast.data.imageset import ImageSet
from mi_contrast.views import policies

COUNT, HEIGHT, WIDTH = 23, 6, 9
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8) // np.array([1, 2, 3], np.uint8)
BY_SCIKIT_IMAGE = {
    "rgb": lambda x: x,
    "lab": color.rgb2lab,
    "ydbdr": color.rgb2ydbdr,
    "ycbcr": color.rgb2ycbcr,
    "hsv": color.rgb2hsv,
}


def some(pixels=PIXELS):
    return ImageSet("toy", "train", len(pixels), pixels.shape[1:], lambda at: pixels[np.asarray(at)])


def by_a_loop(pixels, space):
    """Two passes over every pixel, in float64."""
    total, count = np.zeros(3), 0
    for image in pixels:
        for pixel in BY_SCIKIT_IMAGE[space](image / 255.0).reshape(-1, 3):
            total, count = total + pixel, count + 1
    mean, squares = total / count, np.zeros(3)
    for image in pixels:
        for pixel in BY_SCIKIT_IMAGE[space](image / 255.0).reshape(-1, 3):
            squares += (pixel - mean) ** 2
    return mean, np.sqrt(squares / count)


@pytest.mark.parametrize("space", BY_SCIKIT_IMAGE)
@pytest.mark.parametrize("block", [4, 256])  # 23 images: five blocks and three more, or a part of one
def test_both_are_a_loops(space, block, monkeypatch):
    monkeypatch.setattr(statistics, "PIXELS", block * HEIGHT * WIDTH)
    mean, std = statistics.compute_statistics(some(), space)
    expected = by_a_loop(PIXELS, space)
    scale = np.maximum(1.0, np.abs(expected[0]))
    np.testing.assert_allclose(mean, expected[0], atol=2e-6 * scale.max())
    np.testing.assert_allclose(std, expected[1], atol=2e-6 * scale.max())


def test_sums_don_t_lose_what_many_pixels_add():
    """Two million nearly equal pixels: sums in float32 would be off in the third digit of the deviation."""
    grey = np.full((2, 1024, 1024, 3), 200, np.uint8)
    grey[:, ::2] = 201
    mean, std = statistics.compute_statistics(some(grey))
    np.testing.assert_allclose(mean, 200.5 / 255, rtol=1e-6)
    np.testing.assert_allclose(std, 0.5 / 255, rtol=1e-5)
    values = (grey / np.float32(255)).reshape(-1, 3)  # control
    in_float32 = np.sqrt(np.mean(values**2, axis=0) - np.mean(values, axis=0) ** 2)
    assert np.abs(in_float32 / (0.5 / 255) - 1).max() > 1e-3


@pytest.mark.slow
def test_what_is_printed_is_what_a_config_takes(digits_dir, capsys):
    asked = ["moving_digits", f"--dir={digits_dir}", "--split=train[:20]", "--options={'size': 32, 'length': 2}"]
    statistics.main([*asked, "--space=ydbdr"])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    config = ConfigDict(dict(views=policies.cmc(32, "ydbdr")))
    for line in printed:
        name, _, value = line.removeprefix("--config.").partition("=")
        config = change(config, name, value.strip("'"))
    from mi_contrast.data import sets

    images = sets.load("moving_digits", "train[:20]", data_dir=digits_dir, options={"size": 32, "length": 2})
    values = color.rgb2ydbdr(images.images(np.arange(len(images))) / 255.0).reshape(-1, 3)
    np.testing.assert_allclose(config.views.mean, values.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(config.views.std, values.std(axis=0), rtol=1e-4)
    policies.check(config.views.to_dict())


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "no set is named"),
        (["--nam=cifar10"], "did you mean '--name'"),
        (["moving_digits", "--space=labs"], "did you mean 'lab'"),
        (["moving_digits", "--size=0"], "data.size is 0"),
        (["moving_digits", "--options={'sise': 32}"], "unknown option of moving_digits 'sise'; did you mean 'size'"),
        (["moving_digit"], "did you mean 'moving_digits'"),
    ],
)
def test_mistakes_are_one_line(arguments, says, digits_dir, capsys):
    with_digits = ["--dir", str(digits_dir), "--split=train[:20]"]
    assert run_job(statistics.main, [*arguments, *with_digits]) == 2
    said = capsys.readouterr().err.strip()
    assert says in said and "\n" not in said


def test_a_channel_that_does_not_vary_is_named():
    with pytest.raises(UserError, match="a channel of toy in ydbdr does not vary"):
        statistics.compute_statistics(some(np.repeat(PIXELS[..., :1], 3, -1)), "ydbdr")
