"""Sets whose pixels tell the index, and where the real ones are."""

from pathlib import Path

import numpy as np

from mi_contrast.data.imageset import ImageSet

SHARED = Path(__file__).parents[3] / "shared" / "data" / "tfds"
TWO_FRAMES = {"size": 32, "length": 2}


def tell_index(indices):
    """uint8 [n, 4, 4, 3]: the index in the first two channels."""
    indices = np.asarray(indices)
    images = np.zeros((len(indices), 4, 4, 3), np.uint8)
    images[..., 0], images[..., 1] = (indices % 256)[:, None, None], (indices // 256)[:, None, None]
    return images


def toy_set(count, **fields):
    """A set of `count` images that tell their index."""
    return ImageSet("toy", "train", count, (4, 4, 3), tell_index, **fields)
