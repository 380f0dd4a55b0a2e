"""torchvision's two operators in Python, where the compiled ones don't load: beside a CPU build of torch.

A user's install has them. Tests that need torch, torchvision or pycocotools skip where one is missing.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models import twins


def greedy(boxes, scores, threshold):
    """Non-maximum suppression from its definition: the best box of those left takes all that overlap it away."""
    import torch
    from torchvision.ops import box_iou

    order = scores.argsort(descending=True, stable=True)
    beats = (box_iou(boxes[order], boxes[order]) > threshold).numpy()
    there = np.ones(len(order), bool)
    for i in range(len(order)):
        if there[i]:
            there[i + 1 :] &= ~beats[i, i + 1 :]
    return order[torch.from_numpy(there)]


def put_operators():
    """Puts torchvision's two operators where its detectors look for them."""
    torchvision = twins.torchvision()
    if torchvision.extension._has_ops():
        return
    torchvision.ops.nms = torchvision.ops.boxes.nms = greedy
    pooling = sys.modules["torchvision.ops.roi_align"]  # it carries its own operator in Python, to be compiled
    pooling._roi_align = pooling._roi_align.__wrapped__


HERE = all(importlib.util.find_spec(name) for name in ("torch", "torchvision"))
if HERE:
    put_operators()


def pytest_collection_modifyitems(items):
    """Pycocotools hands numpy an array of its own in an old way."""
    old = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(old)


@pytest.fixture(autouse=True)
def one_thread():
    """Threads of torch wait for each other by spinning, which a shared machine pays for."""
    if not HERE:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
