"""Keys change groups by a permutation that knows no devices, and no device receives more images than its share."""

import json
import subprocess
import sys
from collections import Counter

import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.training import assemble
from mi_contrast.training.shuffling import shuffled_positions
from tests import devices
from tests.training import small

BATCH = 96


@pytest.mark.parametrize(("batch", "groups"), [(64, 8), (256, 8), (96, 4), (21, 3), (12, 6), (10, 5)])
def test_every_group_of_keys_takes_from_all_groups_alike(batch, groups):
    positions = shuffled_positions(batch, groups, seed=0)
    assert sorted(positions) == list(range(batch))
    size = batch // groups
    came_from = np.zeros((groups, groups), int)
    np.add.at(came_from, (positions // size, np.arange(batch) // size), 1)
    least, most = size // groups, -(-size // groups)
    assert came_from.min() >= least and came_from.max() <= most, came_from


def test_the_seed_orders_the_shifts():
    orders = {tuple(shuffled_positions(64, 8, seed)) for seed in range(6)}
    assert len(orders) == 6
    assert tuple(shuffled_positions(64, 8, 0)) in orders, "and the same seed gives the same order"


def on_eight_devices(what):
    command = [sys.executable, "-m", "tests.training.sharded_shuffling", what]
    done = subprocess.run(command, env=devices.environment(8), stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_rows_arrive_alike_on_any_number_of_devices():
    expected = []
    for _devices in (1, 2, 4, 8):
        for groups in (2, 3, 4, 8, 16):
            rows = np.empty(BATCH)
            rows[shuffled_positions(BATCH, groups, seed=3)] = np.arange(BATCH)
            expected.append(rows.tolist())
    assert on_eight_devices("moves") == expected


def maps(collectives):
    """What a collective moves of images and feature maps, [n, h, w, c]: {(kind, side, channels): images}."""
    moved = Counter()
    for kind, shape in collectives:
        if len(shape) == 4 and shape[1] >= 4:  # below are kernels and statistics
            moved[kind, shape[1], shape[3]] += shape[0]
    return dict(moved)


@pytest.mark.slow
def test_in_the_whole_step_no_image_crosses_devices_but_by_a_permute_of_the_share():
    found = on_eight_devices("text")
    for groups in ("4", "8", "16"):
        moved = maps(found[groups])
        assert set(moved) == {("collective-permute", 32, 3)}, (groups, moved)
        assert 0 < moved["collective-permute", 32, 3] <= BATCH // 8, (groups, moved)
    moved = maps(found["gathered"])
    assert moved["all-reduce", 32, 3] == BATCH, "negative control: an order known at run time brings all images"


@pytest.mark.parametrize(
    ("groups", "devices_", "fits"),
    [(3, 1, True), (3, 2, False), (3, 6, True), (8, 4, True), (8, 6, False), (1, 6, True)],
)
def test_groups_that_devices_can_not_share_evenly_are_refused(monkeypatch, groups, devices_, fits):
    seen = []
    with monkeypatch.context() as patched:
        patched.setattr(assemble, "check_groups", lambda *counts: seen.append(counts))
        config = small.config(data__batch=96, model__norm={"kind": "batch", "groups": groups})
        assemble.make_parts(assemble.check(config), 10, make_mesh(jax.devices()[:1]))
    assert seen == [(groups, 1)]
    if fits:
        assemble.check_groups(groups, devices_)
    else:
        with pytest.raises(UserError, match=rf"{groups} groups .* on {devices_} devices; set model.norm.groups"):
            assemble.check_groups(groups, devices_)
