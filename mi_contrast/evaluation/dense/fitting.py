"""Trains a detector by SGD. A training that was stopped continues as if it had never stopped.

All random numbers of an iteration, those of torch's generator included, depend only on the seed and the iteration's
number. A checkpoint therefore needs only the detector and the optimiser's momentum. On a CPU, with the same number of
threads, a resumed training gives bit-identical weights. A GPU does not, because its sums run in varying order.
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
from mi_contrast.core.progress import ProgressBar
from mi_contrast.core.stopping import SIGNALS, catch_stop_signals
from mi_contrast.data.order import random_bits
from mi_contrast.evaluation.dense.batches import Batch, make_batch, prefetch
from mi_contrast.evaluation.dense.checkpoint import Checkpoint
from mi_contrast.evaluation.dense.coco import CocoSet
from mi_contrast.evaluation.dense.detector import trained_parameters
from mi_contrast.evaluation.dense.settings import Detection

TORCH_STREAM = 2  # this stream must differ from those that `batches` draws from
CHECK_EVERY = 10  # iterations between checks that the loss is finite
Curve = list[dict[str, Any]]


def seed_torch(seed: int, iteration: int) -> None:
    """Seeds torch's generator for an iteration; -1 stands for the initial weights of the heads."""
    torch.manual_seed(int(random_bits(1, seed, TORCH_STREAM, iteration + 1)[0] >> np.uint64(1)))


def make_optimiser(detector: torch.nn.Module, settings: Detection) -> torch.optim.SGD:
    """Returns SGD with momentum on all trained parameters; those of norms have no weight decay."""
    weights: list[torch.nn.Parameter] = []
    norms: list[torch.nn.Parameter] = []
    for is_norm, parameter in trained_parameters(detector):
        (norms if is_norm else weights).append(parameter)
    groups: list[dict[str, Any]] = [{"params": weights}, {"params": norms, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def fit(
    detector: torch.nn.Module,
    images: CocoSet,
    members: Int[np.ndarray, " M"],
    settings: Detection,
    seed: int,
    checkpoint: Checkpoint,
    measure: Callable[[], dict[str, Any]],
    device: torch.device,
) -> tuple[Curve, float]:
    """Trains the detector in place, starting from the newest checkpoint if there is one.

    Args:
      members: indices of the images to train on.
      measure: returns the scores on the test set. It is called before the training, every `measure_every` iterations
        and at the end.

    Returns:
      curve: [{'iteration', 'scores'}], all measurements.
      seconds: training seconds of this process and all earlier ones.

    Raises:
      StoppedError at SIGTERM, SIGHUP or the time limit, and KeyboardInterrupt at Ctrl-C, after saving; BadNumbersError
      where the loss is not finite.
    """
    optimiser = make_optimiser(detector, settings)
    curve: Curve = []
    start, earlier_seconds, total = 0, 0.0, settings.iterations
    if (state := checkpoint.newest(device)) is not None:
        detector.load_state_dict(state["detector"])
        optimiser.load_state_dict(state["optimiser"])
        start, curve, earlier_seconds = state["iteration"], state["curve"], state["seconds"]
        print(f"resuming from iteration {start} of {total}, {checkpoint.state_file}")
    if not curve:
        curve.append({"iteration": 0, "scores": measure()})
    start_time, note = time.perf_counter(), ""
    progress = ProgressBar("fitting", total, start=start, unit="iteration", each=settings.batch_size)

    def elapsed_seconds() -> float:
        return earlier_seconds + time.perf_counter() - start_time

    def save(done: int) -> None:
        state = {"detector": detector.state_dict(), "optimiser": optimiser.state_dict()}
        checkpoint.save({"iteration": done, **state, "curve": curve, "seconds": elapsed_seconds()})

    detector.train()
    limit = math.inf if settings.time_limit is None else settings.time_limit
    try:
        with catch_stop_signals(*SIGNALS) as stop_request:
            for number, batch in prefetch(lambda i: make_batch(i, images, members, settings, seed), start, total):
                loss = take_step(detector, optimiser, batch, settings, seed, number, device)
                done = number + 1
                saving = done % settings.save_every == 0 or done == total
                overtime = time.perf_counter() - start_time > limit
                stopping = done < total and (overtime or stop_request.is_set())
                measuring = done == total or (settings.measure_every and done % settings.measure_every == 0)
                if done % CHECK_EVERY == 0 or saving or stopping or measuring:
                    if not math.isfinite(value := float(loss)):
                        raise BadNumbersError(f"the loss of fitting is {value} at iteration {done}; lower task.lr")
                    note = f"loss {value:.3f}"
                progress.advance(note=note)
                if measuring:
                    curve.append({"iteration": done, "scores": measure()})
                if saving or stopping:
                    save(done)
                if stopping:
                    message = f"at iteration {done} of {total}. The state is saved; run the same command to resume"
                    if overtime and not stop_request.is_set():
                        raise StoppedError(f"stopped by the time limit {message}")
                    raise stop_request.error(f"stopped by {stop_request.cause} {message}")
    finally:
        progress.close()
    return curve, elapsed_seconds()


def take_step(
    detector: torch.nn.Module,
    optimiser: torch.optim.SGD,
    batch: Batch,
    settings: Detection,
    seed: int,
    number: int,
    device: torch.device,
) -> torch.Tensor:
    """Takes one SGD step. Returns the summed detector loss, computed before the update, a scalar."""
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
