"""A small labelled set, and an encoder whose features a test can predict."""

import numpy as np

from mi_contrast.data.sets import ImageSet

COLOURS = np.random.default_rng(7).integers(40, 215, (4, 3))


def image_set(count, split="train", *, name="blobs", size=8, seed=0, classes=4, noise=30.0):
    """Squares of a class's colour with noise; labels `colour` (main) and `dark`."""
    random = np.random.default_rng([seed, len(split), count])
    colour = random.integers(0, classes, count)
    pixels = COLOURS[colour][:, None, None, :] + noise * random.normal(size=(count, 1, 1, 3))
    pixels = pixels + 5 * random.normal(size=(count, size, size, 3))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    return ImageSet(
        name=name,
        split=split,
        count=count,
        image_shape=(size, size, 3),
        read=pixels.__getitem__,
        labels={"colour": colour.astype(np.int32), "dark": (pixels.mean(axis=(1, 2, 3)) < 128).astype(np.int32)},
        classes={"colour": tuple("abcdefgh"[:classes]), "dark": ("no", "yes")},
    )


class MeanColour:
    """Features of an image: its mean colour. Counts the batches it was given and keeps their sizes."""

    def __init__(self):
        self.batches = []
        self.variables = {"params": np.float32(1)}

    def encode(self, images, *, layer="pooled"):
        self.batches.append(len(images))
        return images.astype(np.float32).mean(axis=(1, 2)) / 255.0
