"""A MoCo step in torch on finished views: two networks, an EMA, a queue, cross-entropy and SGD."""

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
    """Settings of the step.

    dtype: 'float32', or 'bfloat16' by autocast with channels-last memory.
    compiled: whether to try torch.compile.
    threads: of torch on the CPU; None for torch's default.
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
    """Returns a function that takes one step, and its mode: 'eager', 'torch.compile', or why that failed.

    Views and queue are on the device. On a GPU the function returns before the step is done.
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
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return torch.tensor(random.normal(size=shape), dtype=torch.float32, device=config.device)

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
    except Exception as error:  # the kind varies: no compiler, no Triton, an unsupported graph
        networks.update(plain)
        return step, f"eager, since torch.compile failed ({type(error).__name__})"
    return step, "torch.compile"


def serve_torch_step(pipe: Any, config: TorchStep) -> None:
    """Runs in a process of its own: sends the mode of the step, then takes as many steps as each message says.

    It answers 'done' after each message, and returns at the end of the pipe.
    """
    import torch

    def wait() -> None:
        if config.device == "cuda":
            torch.cuda.synchronize()

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        start = time.perf_counter()
        step, mode = make_torch_step(config)
        step()
        wait()
        memory = torch.cuda.max_memory_allocated() / 2**20 if config.device == "cuda" else None
        pipe.send({"how": mode, "compile_seconds": time.perf_counter() - start, "peak_mib": memory})
    except Exception as error:  # most likely out of memory; the row shows the reason
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
