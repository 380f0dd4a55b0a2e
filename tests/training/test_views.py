"""Views that are not two whole crops, in a run: local crops beside them, and patches at a distance."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.methods import recipes
from mi_contrast.training import assemble, loop
from mi_contrast.training.pictures import CELL, draw_pairs
from mi_contrast.views import policies
from tests.training import rows, small

SIZE, DISTANCE = 16, 6


@pytest.mark.parametrize(
    "name", ["moco", *(pytest.param(n, marks=pytest.mark.nightly) for n in ("simclr", "ring_moco"))]
)
def test_a_row_with_local_crops_trains(name):
    config = load_config(f"configs/{name}.py:digits")[0]
    recipes.multi_crop(config, 2, 12)
    parts, _, (_, scalars) = rows.train(rows.shrink(to_plain_data(config)), 2)  # of which the first fills a queue
    assert parts.augmentation.shapes["local_1"] == (12, 12, 3)
    terms = parts.method.terms
    assert len(terms) == 3 * (2 if name == "simclr" else 1) and scalars["bad_steps"] == 0 and scalars["grad_norm"] > 0
    values = [scalars[f"term_{i}"] for i in range(len(terms))]
    assert len(set(values)) == len(values)  # each has views of its own
    assert scalars["objective"] == pytest.approx(np.mean(values), abs=1e-5)  # the average
    assert scalars["objective"] <= scalars["objective_ceiling"] + 1e-6


def patched(name="moco"):
    config = rows.small(name)
    config["views"] = policies.patches(SIZE, DISTANCE, mean=(0.35,) * 3, std=(0.25,) * 3)
    return config


@pytest.mark.parametrize("name", ["simclr", *(pytest.param(n, marks=pytest.mark.nightly) for n in ("moco", "ir"))])
def test_a_row_of_two_crops_takes_patches(name):
    parts, _, (_, scalars) = rows.train(patched(name), 2)
    assert scalars["bad_steps"] == 0 and scalars["grad_norm"] > 0 and np.isfinite(scalars["objective"])
    assert dict(parts.method.source_index) == {"query": 0, "key": 0}  # so that ids and labels are the first image's


def test_the_picture_of_pairs_shows_patches_at_their_distance(tmp_path):
    config = patched()
    config["data"]["dir"], config["eval"]["pairs"] = str(small.DATA), 16
    job = assemble.build(config)
    draw_pairs(tmp_path / "pairs.png", job, SimpleNamespace(generator={}))
    drawn = np.asarray(Image.open(tmp_path / "pairs.png"))
    source, query, again, key = np.split(drawn, 4)
    np.testing.assert_array_equal(source, again)
    columns = drawn.shape[1] // CELL
    assert columns == 12
    offsets = []
    for at in range(columns):
        whole, *both = (x[:, at * CELL : (at + 1) * CELL] for x in (source, query, key))
        whole, both = whole[1::3, 1::3], [x[3::6, 3::6] for x in both]  # 32 pixels drawn as 96, and 16
        windows = np.lib.stride_tricks.sliding_window_view(whole, (SIZE, SIZE, 3))[:, :, 0]
        found = [np.argwhere((windows == patch).all(axis=(2, 3, 4))) for patch in both]
        assert [len(places) for places in found] == [1, 1]
        offsets.append(found[1][0] - found[0][0])
    np.testing.assert_array_equal(offsets, DISTANCE)


def test_patches_that_do_not_fit_the_images_are_one_line_before_anything_is_written(tmp_path):
    config = patched()
    config["data"]["dir"], config["views"] = str(small.DATA), policies.patches(SIZE, 17)
    with pytest.raises(UserError, match="images of 32 x 32 hold no two patches of 16 pixels at distance 17") as told:
        loop.run(config, tmp_path / "run")
    assert "\n" not in str(told.value) and not (tmp_path / "run").exists()
