"""Fitting a detector by SGD; a fitting that was stopped goes on as if it had not been.

Everything random at an iteration comes from the seed and its number, torch's generator too, so the state to be kept
is the detector and the optimiser's momentum. On a CPU, with the same number of threads, the weights are the same bit
for bit; a GPU adds in any order.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from mi_contrast.core.errors import BadNumbersError, StoppedError
from mi_contrast.core.progress import Progress
from mi_contrast.core.stopping import SIGNALS, catch_stop_signals
from mi_contrast.data.order import random_bits
from mi_contrast.evaluation.dense.batches import ahead, batch_at
from mi_contrast.evaluation.dense.coco import CocoSet
from mi_contrast.evaluation.dense.detector import trained_parameters
from mi_contrast.evaluation.dense.kept import Kept
from mi_contrast.evaluation.dense.settings import Detection

DRAWS, CHECK = 2, 10  # torch's own stream; iterations between looks at the loss
Curve = list[dict[str, Any]]


def seed_torch(seed: int, iteration: int) -> None:
    """Sets torch's generator for an iteration (-1: for the heads' first weights)."""
    torch.manual_seed(int(random_bits(1, seed, DRAWS, iteration + 1)[0] >> np.uint64(1)))


def make_optimiser(detector: torch.nn.Module, settings: Detection) -> torch.optim.SGD:
    """SGD with momentum on all that is trained; norms do not decay."""
    split: dict[bool, list[torch.nn.Parameter]] = {False: [], True: []}
    for of_norm, parameter in trained_parameters(detector):
        split[of_norm].append(parameter)
    groups: list[dict[str, Any]] = [{"params": split[False]}, {"params": split[True], "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def fit(
    detector: torch.nn.Module,
    images: CocoSet,
    members: Int[np.ndarray, " M"],
    settings: Detection,
    seed: int,
    kept: Kept,
    measure: Callable[[], dict[str, Any]],
    device: torch.device,
) -> tuple[Curve, float]:
    """Fits in place, from the newest state in `kept`.

    Args:
      members: the images to fit on.
      measure: scores the detector on the test set; called at the start, every `measure_every` and at the end.

    Returns:
      ([{'iteration', 'scores'}] of all measurements, seconds of fitting over all starts).
    Raises, after saving, StoppedError at SIGTERM, SIGHUP or the time limit, and KeyboardInterrupt at Ctrl-C;
    BadNumbersError where the loss went bad.
    """
    optimiser = make_optimiser(detector, settings)
    curve: Curve = []
    start, spent, total = 0, 0.0, settings.iterations
    if (found := kept.newest(device)) is not None:
        detector.load_state_dict(found["detector"])
        optimiser.load_state_dict(found["optimiser"])
        start, curve, spent = found["iteration"], found["curve"], found["seconds"]
        print(f"going on from iteration {start} of {total}, {kept.state}")
    if not curve:
        curve.append({"iteration": 0, "scores": measure()})
    began, note = time.perf_counter() - spent, ""
    progress = Progress("fitting", total, start=start, unit="iteration", each=settings.batch_size)

    def save(at: int) -> None:
        kept.save(
            {
                "iteration": at,
                "detector": detector.state_dict(),
                "optimiser": optimiser.state_dict(),
                "curve": curve,
                "seconds": time.perf_counter() - began,
            }
        )

    detector.train()
    limit, here = settings.time_limit, time.perf_counter()
    try:
        with catch_stop_signals(*SIGNALS) as asked:
            for number, batch in ahead(lambda i: batch_at(i, images, members, settings, seed), start, total):
                loss = step(detector, optimiser, batch, settings, seed, number, device)
                at = number + 1
                saving = at % settings.save_every == 0 or at == total
                overtime = limit is not None and time.perf_counter() - here > limit
                stopping = at < total and (overtime or asked.is_set())
                measuring = at == total or (settings.measure_every and at % settings.measure_every == 0)
                if at % CHECK == 0 or saving or stopping or measuring:
                    if not math.isfinite(value := float(loss)):
                        raise BadNumbersError(f"the loss of fitting is {value} at iteration {at}; lower task.lr")
                    note = f"loss {value:.3f}"
                progress.advance(note=note)
                if measuring:
                    curve.append({"iteration": at, "scores": measure()})
                if saving or stopping:
                    save(at)
                if stopping:
                    where = f"at iteration {at} of {total}, saved; the same command goes on"
                    if overtime and not asked.is_set():
                        raise StoppedError(f"stopped by the time limit {where}")
                    raise asked.error(f"stopped by {asked.cause} {where}")
    finally:
        progress.close()
    return curve, time.perf_counter() - began


def step(
    detector: torch.nn.Module,
    optimiser: torch.optim.SGD,
    batch: Any,
    settings: Detection,
    seed: int,
    number: int,
    device: torch.device,
) -> torch.Tensor:
    """One step; the sum of the detector's losses before it."""
    seed_torch(seed, number)
    for group in optimiser.param_groups:
        group["lr"] = settings.lr_at(number)
    images = [image.to(device) for image in batch[0]]
    targets = [{name: value.to(device) for name, value in target.items()} for target in batch[1]]
    loss = sum(detector(images, targets).values())
    assert isinstance(loss, torch.Tensor)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return loss.detach()
