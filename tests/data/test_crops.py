"""Crops cut while decoding: against Pillow on the whole image, the same boxes from every reader, and broken images."""

import io
import json
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from mi_contrast.core import rngs as streams
from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data import sets
from mi_contrast.data.crops import CropReader, Crops, Region, WholeImage, choose_reduction
from mi_contrast.data.decoding import decode
from mi_contrast.data.readers import BoxedImages, ResidentReader, SqueezedReader, StreamingReader, make_reader
from mi_contrast.views import policies
from tests import devices as virtual

SIDES = [(48, 64), (40, 30), (36, 36), (60, 20), (20, 90)]  # height, width; the last two are wider than any box may be
COUNT = 15
SEED = 3


def smooth_image(height, width, phase=0.0):
    """uint8 [H, W, 3]: slow waves, so that any two good filters agree."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(5 * x + 3 * y + phase), np.cos(4 * y - 2 * x + phase), np.sin(3 * x * y + 2 * phase)]
    return np.round(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def encode(pixels, kind="JPEG", turn=1):
    exif = Image.Exif()
    exif[0x0112] = turn
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=95, exif=exif)
    return buffer.getvalue()


def make_folder(root, sides):
    for i in range(COUNT):
        file = root / "thing" / f"{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(smooth_image(*sides[i % len(sides)], phase=i)))
    return f"folder:{root}"


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "set", SIDES)


def crops_of(views):
    def draw(rng, height, width):
        return views.draw_boxes(streams.stream_rng(rng, "views"), height, width)

    cuts = views.cuts.items()
    return Crops(draw, {name: cut.size for name, cut in cuts}, {name: cut.source for name, cut in cuts})


VIEWS = policies.build(policies.multi_crop(policies.moco_v2(16), 1, 8))


def reader(images, resident, mesh=None, **changes):
    how = dict(batch_size=4, seed=SEED, mesh=mesh or make_mesh(), resident=resident, crops=crops_of(VIEWS)) | changes
    return make_reader(images, np.arange(len(images)), **how)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_region_is_that_of_the_upright_image(kind, turn):
    encoded = encode(smooth_image(48, 64), kind, turn)
    upright = Image.fromarray(decode(encoded, "example"))
    whole = WholeImage(encoded, "example")
    assert (whole.width, whole.height) == upright.size
    top, left, tall, wide = 5, 11, 30, 20
    (cut,) = whole.cut([Region((top, left, tall, wide), 16)])
    expected = upright.crop((left, top, left + wide, top + tall)).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.abs(cut.astype(int) - np.asarray(expected)).max() <= 1
    assert np.abs(cut.astype(int) - np.asarray(expected)[::-1]).max() > 9  # control: a turned one is another


def test_a_photograph_is_never_decoded_in_full(monkeypatch):
    decoded, load = [], ImageFile.ImageFile.load
    encoded = encode(smooth_image(1500, 2000))
    upright = Image.fromarray(decode(encoded, "example"))
    monkeypatch.setattr(JpegImageFile, "load", lambda self: decoded.append(self.size) or load(self))
    boxes = [(0.0, 0.0, 1500.0, 2000.0), (300.0, 500.0, 670.0, 890.0)]  # the second has a fifth of the area
    for sizes, reduction in (((112, 112), 4), ((56, 56), 8), ((112, 600), 1)):
        regions = [Region(box, size) for box, size in zip(boxes, sizes, strict=True)]
        assert choose_reduction(regions) == reduction
        decoded.clear()
        cuts = WholeImage(encoded, "example").cut(regions)
        assert set(decoded) == {(-(-2000 // reduction), -(-1500 // reduction))}  # the last is the control
        for (top, left, tall, wide), size, cut in zip(boxes, sizes, cuts, strict=True):
            expected = upright.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + wide, top + tall))
            assert np.abs(cut.astype(int) - np.asarray(expected)).max() <= 3


@pytest.mark.parametrize("policy", [policies.moco_v2(16), policies.infomin(24), policies.cmc(16)])
def test_the_box_for_a_traced_size_is_that_for_a_known_size(policy):
    views, rngs = policies.build(policy), jax.random.split(jax.random.key(1), 500)
    traced = jax.jit(jax.vmap(views.draw_boxes, (0, None, None)))
    for height, width in [(375, 500), (32, 32), (20, 90), (60, 20), (3000, 4000), (427, 640)]:
        known = jax.jit(jax.vmap(lambda rng, h=height, w=width: views.draw_boxes(rng, h, w)))(rngs)
        for name, boxes in traced(rngs, jnp.int32(height), jnp.int32(width)).items():
            np.testing.assert_array_equal(boxes, known[name])
            top, left, tall, wide = np.asarray(boxes).T
            assert (top >= 0).all() and (left >= 0).all() and (tall > 0).all() and (wide > 0).all()
            assert (top + tall <= height).all() and (left + wide <= width).all()


def test_resident_and_streamed_sets_give_equal_boxes(folder):
    """The resident set keeps squeezed images. Its boxes, in pixels of the image, are those of the streamed set."""
    images = sets.load(folder, "train", size=32)
    asked = []
    with reader(images, True) as resident, reader(images, False) as streamed:
        assert isinstance(resident, SqueezedReader) and isinstance(streamed, StreamingReader)
        drawn, draw = [], streamed._crop_reader.boxes
        object.__setattr__(streamed._crop_reader, "boxes", lambda *a: drawn.append((a, draw(*a))) or drawn[-1][1])
        for step in (0, 1, 5):
            batch, other = resident.batch(step), streamed.batch(step)
            assert isinstance(batch.sources, BoxedImages) and batch.sources.images.shape == (4, 1, 32, 32, 3)
            np.testing.assert_array_equal(batch.index, other.index)
            sides = np.array([[i.height, i.width] for i in map(images.open, np.asarray(batch.index)[:, 0])])
            found = next((a, b) for a, b in drawn if a[0] == step)
            np.testing.assert_array_equal(found[0][2][:4], sides)
            for name, boxes in batch.sources.boxes.items():
                in_pixels = np.asarray(boxes) * np.tile(sides / 32, (1, 2))
                np.testing.assert_allclose(in_pixels, found[1][name][:4], rtol=1e-6, atol=1e-4)
                asked.append(in_pixels)
    outside = [np.r_[box[:2], box[:2] + box[2:]] for boxes in asked for box in boxes]
    assert len({tuple(box) for box in outside}) > 10  # control: boxes differ


def test_streamed_and_resident_views_agree(tmp_path):
    """Images of one size: a crop cut on the host and one cut on the device make the same view."""
    images = sets.load(make_folder(tmp_path, [(48, 64)]), "train")
    rngs = streams.example_rngs(SEED, 2, jnp.arange(4))
    rngs = jax.vmap(lambda rng: streams.stream_rng(rng, "views"))(rngs)
    make = jax.jit(VIEWS.apply_random_ops)
    with reader(images, True) as resident, reader(images, False) as streamed:
        assert type(resident) is ResidentReader
        whole, cut = resident.batch(2), streamed.batch(2)
        assert {name: x.shape for name, x in cut.sources.items()} == {
            "query": (4, 16, 16, 3),
            "key": (4, 16, 16, 3),
            "local_0": (4, 8, 8, 3),
        }
        ours, theirs = make(cut.sources, rngs), make(whole.sources, rngs)
        wrong = make(cut.sources, rngs[::-1])
    assert set(ours) == set(theirs) == {"query", "key", "local_0"}
    for name, view in ours.items():
        assert float(jnp.abs(view - theirs[name]).max()) < 0.1  # levels are rounded before jitter, not after it
        assert float(jnp.abs(view - theirs[name]).mean()) < 0.01
        assert float(jnp.abs(view - wrong[name]).max()) > 0.2  # control


def digests(name, resident, mesh=None):
    """What a reader gives at three steps, out of order: index and crops (or boxes) as plain lists."""
    found = []
    with reader(sets.load(name, "train", size=32), resident, mesh) as batches:
        for step in (6, 0, 1):
            batch = batches.batch(step)
            parts = batch.sources.boxes if resident else batch.sources
            parts = {n: sorted((s.index[0].start or 0, s.data.tolist()) for s in x.addressable_shards)
                     for n, x in (parts | {"index": batch.index}).items()}  # fmt: skip
            found.append({n: [row for _, rows in shards for row in np.asarray(rows).ravel().tolist()]
                          for n, shards in parts.items()})  # fmt: skip
    return found


ELSEWHERE = """
import json, sys, jax
name, resident, rank, address = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3]), sys.argv[4]
if rank >= 0:
    jax.distributed.initialize(address, 2, rank)
from tests.data.test_crops import digests
print(json.dumps(digests(name, resident)))
"""


def elsewhere(name, resident, devices=1, rank=-1, address=""):
    command = [sys.executable, "-c", ELSEWHERE, name, str(resident), str(rank), address]
    return subprocess.Popen(command, env=virtual.environment(devices), stdout=-1, stderr=-1, text=True)


def said(job):
    try:
        out, err = job.communicate(timeout=300)
    finally:
        job.kill()
    assert job.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("resident", [True, False])
def test_four_devices_and_two_processes_cut_what_one_device_cuts(folder, resident, free_address):
    alone = digests(folder, resident)
    assert said(elsewhere(folder, resident, devices=4)) == alone
    jobs = [elsewhere(folder, resident, rank=rank, address=free_address) for rank in range(2)]
    first, second = (said(job) for job in jobs)
    assert [{n: a[n] + b[n] for n in a} for a, b in zip(first, second, strict=True)] == alone
    assert alone[0] != alone[1]  # control: another step is another batch


def test_a_new_reader_and_other_threads_cut_the_same(folder):
    assert digests(folder, False) == digests(folder, False)


def test_two_sources_have_boxes_of_their_own_sizes(folder):
    """The query is cut from the first image, the key from its partner, each within its own image."""
    images, views = sets.load(folder, "train", size=32), policies.build(policies.moco_v2(16))
    crop_reader = CropReader(images, crops_of(views), SEED)
    index = np.array([[0, 1], [2, 3], [4, 5]])
    cuts = crop_reader.read(7, np.arange(3), index)
    for row, pair in enumerate(index):
        for name, example in zip(("query", "key"), pair, strict=True):
            image = images.open(int(example))
            box = crop_reader.boxes(7, np.array([row]), np.array([[image.height, image.width]]))[name][0]
            (expected,) = image.cut([Region(box.tolist(), 16)])
            np.testing.assert_array_equal(cuts[name][row], expected)


def test_a_broken_image_is_replaced_by_the_next_or_named(folder, tmp_path, capsys):
    images = sets.load(folder, "train", size=32, broken=0.1)
    index = np.arange(6)[:, None]
    read = partial(CropReader(images, crops_of(VIEWS), SEED).read, 1, np.arange(6))
    before = read(index)
    files = sorted((tmp_path / "set" / "thing").iterdir())
    names = [images.open(i)._example for i in range(6)]
    header, pixels = names[1], names[4]  # one is broken from its first byte, one in its pixels
    (broken,) = [file for file in files if str(file) == header]
    broken.write_bytes(b"no image")
    (cut_off,) = [file for file in files if str(file) == pixels]
    cut_off.write_bytes(cut_off.read_bytes()[:-200])
    after = read(index)
    for row in (0, 2, 3, 5):
        np.testing.assert_array_equal(after["query"][row], before["query"][row])
    for row in (1, 4):
        instead = np.array([[row + 1]] * 6)
        np.testing.assert_array_equal(after["query"][row], read(instead)["query"][row])
    assert "the next image stands in for it" in capsys.readouterr().err
    strict = sets.load(folder, "train", size=32, known_broken=())
    with pytest.raises(UserError, match="not a readable image"):
        CropReader(strict, crops_of(VIEWS), SEED).read(1, np.arange(6), index)
