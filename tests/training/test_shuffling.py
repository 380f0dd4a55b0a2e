"""Keys change groups by a permutation that knows no devices, and no device receives more images than its share."""

import json
import subprocess
import sys

import numpy as np
import pytest

from mi_contrast.training.shuffling import shuffled_positions
from tests import devices

BATCH, IMAGE = 96, 32 * 32 * 3


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


@pytest.mark.slow
def test_no_image_crosses_devices_but_by_a_permute_of_the_share():
    found = on_eight_devices("text")
    share = 64 // 8 * IMAGE
    for groups in ("4", "8", "16"):
        permuted = sum(count for kind, count in found[groups] if kind == "collective-permute" and count >= IMAGE)
        assert 0 < permuted <= share, (groups, found[groups])
        others = [count for kind, count in found[groups] if kind != "collective-permute"]
        assert max(others, default=0) < IMAGE, (groups, found[groups])
    gathered = [count for kind, count in found["gathered"] if kind != "collective-permute"]
    assert max(gathered) >= 64 * IMAGE, "negative control: an order known at run time brings every image everywhere"
