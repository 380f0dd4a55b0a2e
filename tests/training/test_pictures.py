"""What the picture of pairs shows of views that are no images: patches, and channels of a colour space."""

import numpy as np
import pytest

from mi_contrast.core import division
from mi_contrast.core.colour import from_rgb
from mi_contrast.training.pictures import as_rgb, unnormalise_in


def test_patches_lie_in_their_grid():
    patches = np.arange(2 * 9 * 2 * 2 * 3, dtype=np.float32).reshape(2, 9, 2, 2, 3)
    whole = as_rgb("jigsaw", patches, None)
    assert whole.shape == (2, 6, 6, 3)
    for at in range(9):
        row, column = 2 * (at // 3), 2 * (at % 3)
        np.testing.assert_array_equal(whole[:, row : row + 2, column : column + 2], patches[:, at])


@pytest.mark.parametrize("split", ["lab", "ydbdr", "ycbcr", "rgb"])
def test_the_channels_of_a_split_together_are_the_image(split):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (2.0, 3.0, 4.0)
    seen = (np.asarray(from_rgb(pixels.astype(np.float32) / 255, split)) - mean) / std
    found = division.parse(split)
    both = as_rgb("first", seen[..., :1], found) + as_rgb("second", seen[..., 1:], found)
    assert np.abs(unnormalise_in(both.astype(np.float32), mean, std, found).astype(int) - pixels).max() <= 1
