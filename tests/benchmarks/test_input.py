"""The benchmarks of the input pipeline and of starts: their files, and how their figures are printed."""

import io
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from mi_contrast.benchmarks import input as pipeline
from mi_contrast.benchmarks import startup
from mi_contrast.data import sets


@pytest.fixture
def archive(tmp_path):
    """A zip of two photographs, as kodak24.zip is."""
    file = tmp_path / "photographs.zip"
    with zipfile.ZipFile(file, "w") as members:
        for i in range(2):
            buffer = io.BytesIO()
            pixels = np.random.default_rng(i).integers(0, 256, (512, 768, 3), np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG")
            members.writestr(f"kodim{i:02}.png", buffer.getvalue())
    return file


def test_photographs_have_the_size_and_are_read_in_crops(tmp_path, archive):
    (tmp_path / "set").mkdir()
    pipeline.write_photographs(tmp_path / "set", archive, 500, 375, 40)
    images = sets.load(f"folder:{tmp_path / 'set'}", "train", size=224, known_broken=())
    assert len(images) == 40 and len(images.classes["label"]) == pipeline.CLASSES
    assert (images.open(0).width, images.open(0).height) == (500, 375)
    with pipeline.make_crop_reader(images) as reader:
        sources = reader.batch(0).sources
    assert {name: crop.shape for name, crop in sources.items()} == dict.fromkeys(("query", "key"), (32, 224, 224, 3))


def test_processor_time_counts_children():
    wait = "end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    busy = f"import time\n{wait}\nprint(flush=True)\ninput()"
    before = pipeline.processor_seconds()
    with subprocess.Popen([sys.executable, "-c", busy], stdin=-1, stdout=-1) as child:
        child.stdout.readline()
        used = pipeline.processor_seconds() - before
        child.kill()
    assert used > 0.5
    before = pipeline.processor_seconds()
    time.sleep(0.2)
    assert pipeline.processor_seconds() - before < 0.15 or os.getloadavg()[0] > 8  # control: waiting is not counted


def test_parts_of_a_start_add_up_and_are_named():
    starts = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0] * 6, [3.0] * 6]
    figures = {"what": "seconds", "ring_moco:digits": {"cold": startup.summarise(starts)}}
    assert figures["ring_moco:digits"]["cold"]["total"] == {"min": 12.0, "median": 18.0, "max": 21.0}
    assert "ring_moco:digits, cold: 18.0 (12.0 to 21.0) s: imports 2.0" in startup.format_figures(figures)
