"""Runs whose crops are taken from whole images: they go on bit for bit, and configs of 0.1.0 keep the centre square."""

import jax
import numpy as np
import pytest

from mi_contrast.core import legacy
from mi_contrast.core.errors import UserError
from mi_contrast.data.readers import BoxedImages, ResidentReader, SqueezedReader, StreamingReader
from mi_contrast.training import assemble
from mi_contrast.training.encoding import make_crops
from mi_contrast.views import policies
from tests.data.test_crops import SIDES, encode, smooth_image
from tests.training import small
from tests.training.test_resume import different, objectives, whole_and_parts


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 400 photographs of several sizes in two classes."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(400):
        file = root / f"class_{i % 2}" / f"{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encode(smooth_image(*SIDES[i % len(SIDES)], phase=i)))
    return root


def config(photos, **changes):
    data = {"data__name": f"folder:{photos}", "data__options": {}, "data__shared": (), "data__size": 24}
    return small.config(**(data | changes))


def test_old_configs_keep_the_centre_square(photos):
    now = config(photos)
    assert now["data"]["crop"] == "whole"
    old = {**now, "data": {name: value for name, value in now["data"].items() if name != "crop"}}
    assert legacy.complete(old)["data"]["crop"] == "square"
    assert legacy.adopt({"config": old}, now)["data"]["crop"] == "square"
    assert legacy.adopt({"config": now, "version": "0.2.0"}, now)["data"]["crop"] == "whole"
    assert assemble.build(legacy.complete(old)).crops is None
    with pytest.raises(UserError, match=r"unknown config.data.crop 'wholly'; did you mean 'whole'"):
        assemble.check(config(photos, data__crop="wholly"))


def test_which_sets_go_which_way(photos):
    for changes, kind in [
        ({"data__resident": True}, SqueezedReader),
        ({"data__resident": False}, StreamingReader),
        ({"data__resident": True, "data__crop": "square"}, ResidentReader),
        ({"data__resident": False, "data__crop": "square"}, StreamingReader),
    ]:
        job = assemble.build(config(photos, **changes))
        with job.open() as reader:
            assert type(reader) is kind
            sources = reader.batch(0).sources
        if changes.get("data__crop") == "square":
            assert sources.shape == (32, 1, 24, 24, 3)
        elif kind is SqueezedReader:
            assert isinstance(sources, BoxedImages) and set(sources.boxes) == {"query", "key"}
        else:
            assert {name: crop.shape for name, crop in sources.items()} == dict.fromkeys(
                ("query", "key"), (32, 32, 32, 3)
            )
    with pytest.raises(UserError, match="views of patches need images of one size"):
        patches = policies.patches(8, 4) | {"mean": (0.5,) * 3, "std": (0.2,) * 3}
        assemble.build(config(photos) | {"views": patches})


def test_the_views_of_both_readers_come_from_the_same_boxes(photos):
    """Squeezed images have less detail than the photographs, so views of smooth photographs differ by little."""
    views = {}
    for resident in (True, False):
        job = assemble.build(config(photos, data__resident=resident, data__size=48))
        with job.open() as reader:
            batch = reader.batch(3)
        views[resident] = jax.jit(lambda batch, job=job: make_crops(job.parts.augmentation, job.parts.seed, 3, batch))(
            batch
        )
        other = jax.jit(lambda batch, job=job: make_crops(job.parts.augmentation, job.parts.seed, 4, batch))(batch)
    for name in ("query", "key"):
        assert float(np.abs(views[True][name] - views[False][name]).mean()) < 0.1
        assert float(np.abs(views[True][name] - other[name]).mean()) > 0.1  # control: jitter and flips of another step


@pytest.mark.slow
@pytest.mark.parametrize("resident", [True, False])
def test_k_and_k_equal_2k_bit_for_bit(photos, tmp_path, resident):
    changes = {name: value for name, value in config(photos, data__resident=resident).items() if name == "data"}
    data = {f"data__{name}": value for name, value in changes["data"].items()}
    whole, parts = whole_and_parts(tmp_path, **data)
    assert different(whole, parts) == []
    assert objectives(whole) == objectives(parts)
