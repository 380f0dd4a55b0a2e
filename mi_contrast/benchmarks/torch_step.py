"""One MoCo step in torch on views already made: two networks, an EMA, a queue, cross-entropy, SGD."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_contrast.benchmarks.peers import make_resnet

DIM, TEMPERATURE, MOMENTUM = 128, 0.1, 0.99


@dataclass(frozen=True)
class TorchStep:
    """What to build. dtype: 'float32', or 'bfloat16' by autocast, with maps channels last; compiled: by torch.compile,
    where that works; threads: of torch on the CPU, its own number by default.
    """

    backbone: str = "resnet18"
    width: int = 64
    stem: str = "small"
    size: int = 32
    batch: int = 256
    queue: int = 4096
    device: str = "cpu"
    dtype: str = "float32"
    compiled: bool = False
    threads: int | None = None


def make_torch_step(config: TorchStep) -> tuple[Callable[[], None], str]:
    """Returns a call that takes one step, and how it runs: 'eager', 'torch.compile', or why that failed.

    The step takes its views and queue from the device; on a GPU the call returns before the step is done.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    dim = 8 * config.width * (4 if config.backbone == "resnet50" else 1)
    channels_last = torch.channels_last if config.dtype == "bfloat16" else torch.contiguous_format

    def network() -> Any:
        head = [nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, DIM)]
        whole = nn.Sequential(make_resnet(config.backbone, config.width, config.stem), *head)
        return whole.to(config.device, memory_format=channels_last)  # type: ignore[call-overload]

    online, target = network(), network()
    target.load_state_dict(online.state_dict())
    optimiser = torch.optim.SGD(online.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    draw = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return torch.tensor(draw.normal(size=shape), dtype=torch.float32, device=config.device)

    views = [normal(config.batch, 3, config.size, config.size).to(memory_format=channels_last) for _ in range(2)]
    rows = functional.normalize(normal(config.queue, DIM), dim=1)
    first = torch.zeros(config.batch, dtype=torch.long, device=config.device)
    networks = {"online": online, "target": target}

    def precision() -> Any:
        bf16 = config.dtype == "bfloat16"
        return torch.autocast(config.device, dtype=torch.bfloat16) if bf16 else contextlib.nullcontext()

    def step() -> None:
        with torch.no_grad():
            slow, fast = list(target.parameters()), list(online.parameters())
            torch._foreach_mul_(slow, MOMENTUM)
            torch._foreach_add_(slow, fast, alpha=1 - MOMENTUM)
            with precision():
                keys = functional.normalize(networks["target"](views[1]).float(), dim=1)
        with precision():
            anchors = functional.normalize(networks["online"](views[0]).float(), dim=1)
        positive = (anchors * keys).sum(1, keepdim=True)
        scores = torch.cat([positive, anchors @ rows.T], dim=1) / TEMPERATURE
        loss = functional.cross_entropy(scores, first)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rows[: config.batch] = keys

    if not config.compiled:
        return step, "eager"
    plain = dict(networks)
    try:
        networks.update({name: torch.compile(one) for name, one in plain.items()})
        step()
    except Exception as error:  # of many kinds: no compiler, no Triton, a graph it cannot take
        networks.update(plain)
        return step, f"eager, since torch.compile failed ({type(error).__name__})"
    return step, "torch.compile"


def serve_torch_step(pipe: Any, config: TorchStep) -> None:
    """The process of a torch step: says how it runs, then takes as many steps as it is asked for and answers the
    seconds, until the pipe ends.
    """
    import torch

    def wait() -> None:
        if config.device == "cuda":
            torch.cuda.synchronize()

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        began = time.perf_counter()
        step, how = make_torch_step(config)
        step()
        wait()
        memory = torch.cuda.max_memory_allocated() / 2**20 if config.device == "cuda" else None
        pipe.send({"how": how, "compile_seconds": time.perf_counter() - began, "peak_mib": memory})
    except Exception as error:  # out of memory, most likely: the reason is the row's
        pipe.send({"failed": f"{type(error).__name__}: {error}"})
        return
    while True:
        try:
            count = pipe.recv()
        except EOFError:
            return
        for _ in range(count):
            step()
        wait()
        pipe.send("done")
