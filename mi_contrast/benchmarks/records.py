"""Times how soon the first batch of a set of many records is there, at the first start and at the second."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

SIDE, BATCH = 32, 256
# Each start is a process of its own, as a run is. It prints the seconds from the imports to the first batch.
START = """
import sys, time
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data import sets
from mi_contrast.data.readers import make_reader
from mi_contrast.data.pairing import split_held_out
import jax
jax.devices()
start = time.perf_counter()
images = sets.load("many", "train", data_dir=sys.argv[1])
label = images.labels["label"]
train, _ = split_held_out(images)
with make_reader(images, train, batch_size=256, seed=0, mesh=make_mesh(), resident=False) as reader:
    jax.block_until_ready(reader.batch(0))
print(time.perf_counter() - start, int(label.sum()))
"""


def time_first_batch(count: int) -> dict[str, Any]:
    """Returns the seconds to the first batch of `count` synthetic records, in the first process and in the second."""
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder), count)
        environment = {**os.environ, "XDG_CACHE_HOME": str(Path(folder) / "cache")}
        command = [sys.executable, "-c", START, folder]
        outputs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in "12"]
    (first, labels), (second, same) = (output.stdout.split()[-2:] for output in outputs)
    assert labels == same
    return {"records": count, "first": float(first), "second": float(second)}


class Many(tfds.core.GeneratorBasedBuilder):
    """`count` small PNGs, with labels 0 to 9 in turn."""

    name = "many"
    VERSION = tfds.core.Version("1.0.0")
    code_path = epath.Path(__file__)
    count = 0

    def _info(self) -> Any:
        features = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        described = tfds.features.FeaturesDict(features)
        return tfds.core.DatasetInfo(builder=self, features=described, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> Any:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Any:
        random, images = np.random.default_rng(0), []
        for pixels in random.integers(0, 256, (64, 4, 4, 3), np.uint8):
            buffer = io.BytesIO()
            Image.fromarray(pixels).resize((SIDE, SIDE)).save(buffer, "PNG")
            images.append(buffer.getvalue())
        for i in range(self.count):
            yield i, {"image": io.BytesIO(images[i % len(images)]), "label": i % 10}


def write_records(folder: Path, count: int) -> None:
    """Writes the TFDS set 'many' with `count` records into a folder of sets."""
    builder = Many(data_dir=str(folder), file_format="array_record")
    builder.count = count
    with contextlib.redirect_stdout(sys.stderr):
        builder.download_and_prepare()
