"""Times a MoCo step of a ResNet-18 of width 16 at 32 px against a step of the same networks in torch.

Our step includes the augmentation of two views of each image; torch's step starts from finished views.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import jax

from mi_contrast.benchmarks.timing import ratio, spread, time_interleaved
from mi_contrast.benchmarks.torch_step import TorchStep, make_torch_step
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.training import assemble, loop
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step


def run(repeats: int, small: bool) -> dict[str, Any]:
    """Returns images/s of each and their ratio over the rounds."""
    batch = 32 if small else 256
    config = to_plain_data(load_config("configs/moco.py:digits")[0])
    config["data"] = {**config["data"], "batch": batch}
    config["model"] = {**config["model"], "backbone": "resnet18", "width": 16}
    peer = TorchStep(width=config["model"]["width"], batch=batch)
    config["method"]["pools"]["queue"]["size"] = peer.queue
    job = assemble.build(config)
    step = make_step(job.parts)
    with job.open() as reader:
        first = reader.batch(0)
    state = loop.place(job.first_state(), placement(job.parts.method, job.parts.mesh))

    def ours() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, first, job.tables))

    contenders = {"ours": ours}
    if importlib.util.find_spec("torch") is not None:
        contenders["torch"], _ = make_torch_step(peer)
    seconds = time_interleaved(contenders, repeats)
    figures: dict[str, Any] = {
        "what": f"images/s of one training step, ResNet-18 of width 16, 32 px, batch {batch}, queue {peer.queue:,}",
        **{name: spread([batch / s for s in rounds]) for name, rounds in seconds.items()},
    }
    if "torch" in seconds:
        figures["ours_over_torch"] = ratio(seconds["ours"], seconds["torch"])
    else:
        figures["torch"] = "not installed: pip install 'mi-contrast[reference]'"
    return figures
