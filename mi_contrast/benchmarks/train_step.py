"""One MoCo step of a ResNet-18 of width 16 at 32 px beside the same networks' step in torch, in the same run.

Ours is the whole step, two augmented views a source included; theirs begins with views already made.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import jax
import numpy as np

from mi_contrast.benchmarks.peers import make_resnet
from mi_contrast.benchmarks.timing import interleaved, ratio, spread
from mi_contrast.core.config import load_config, plain
from mi_contrast.training import assemble, loop
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step

PEER_QUEUE, DIM, TEMPERATURE = 4096, 128, 0.1


def run(repeats: int, small: bool) -> dict[str, Any]:
    """images/s of each and their ratio, round by round."""
    batch = 32 if small else 256
    config = plain(load_config("configs/moco.py:digits")[0])
    config["data"] = {**config["data"], "batch": batch}
    config["model"] = {**config["model"], "backbone": "resnet18", "width": 16}
    job = assemble.build(config)
    step = make_step(job.parts)
    with job.open() as reader:
        first = reader.batch(0)
    state = loop.placed(job.first_state(), placement(job.parts.row, job.parts.mesh))

    def ours() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, first, job.tables))

    contenders = {"ours": ours}
    if importlib.util.find_spec("torch") is not None:
        contenders["torch"] = torch_step(batch)
    seconds = interleaved(contenders, repeats)
    figures: dict[str, Any] = {
        "what": f"images/s of one training step, ResNet-18 of width 16, 32 px, batch {batch}, queue 4,096",
        **{name: spread([batch / s for s in taken]) for name, taken in seconds.items()},
    }
    if "torch" in seconds:
        figures["ours_over_torch"] = ratio(seconds["ours"], seconds["torch"])
    else:
        figures["torch"] = "not installed: pip install 'mi-contrast[reference]'"
    return figures


def torch_step(batch: int) -> Any:
    """The peer's step: two ResNet-18 of width 16, an EMA, a queue, cross-entropy, SGD."""
    import torch
    from torch import nn
    from torch.nn import functional

    def network() -> nn.Module:
        head = [nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, DIM)]
        return nn.Sequential(make_resnet("resnet18", 16), *head)

    online, target = network(), network()
    target.load_state_dict(online.state_dict())
    optimiser = torch.optim.SGD(online.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    draws = np.random.default_rng(0)
    views = [torch.tensor(draws.normal(size=(batch, 3, 32, 32)), dtype=torch.float32) for _ in range(2)]
    rows = functional.normalize(torch.tensor(draws.normal(size=(PEER_QUEUE, DIM)), dtype=torch.float32), dim=1)

    def step() -> None:
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.mul_(0.99).add_(fast, alpha=0.01)
            keys = functional.normalize(target(views[1]), dim=1)
        anchors = functional.normalize(online(views[0]), dim=1)
        positive = (anchors * keys).sum(1, keepdim=True)
        scores = torch.cat([positive, anchors @ rows.T], dim=1) / TEMPERATURE
        loss = functional.cross_entropy(scores, torch.zeros(batch, dtype=torch.long))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rows[:batch] = keys

    return step
