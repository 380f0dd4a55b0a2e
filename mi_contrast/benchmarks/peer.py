"""Compares MoCo on CIFAR-10 with lightly's, with the same network, batch, queue, policy, images and cores.

lightly runs as its users run it, in a process of its own: MoCoV2Transform in a DataLoader with two workers, its
projection head, its momentum update, and NTXentLoss with a memory bank. Both contenders train in turns of a few steps
on the same schedule. After each turn a kNN classifier scores the features of both, while the clock stands. Compilation
and the start of processes are not part of these times and are reported separately.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast.benchmarks.peers import find_missing, import_torchvision, make_resnet, start_process
from mi_contrast.benchmarks.timing import ratio, spread
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.core.progress import ProgressBar
from mi_contrast.readout.accuracy import top1
from mi_contrast.readout.knn import knn
from mi_contrast.training import assemble, loop
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step

REPEATS = 3
GOAL = 0.40
WORKERS = 2
Judge = Callable[[Callable[[np.ndarray], np.ndarray]], float]  # of a function from images to features


@dataclass(frozen=True)
class Sizes:
    """Sizes of a race.

    split: of cifar10. batch: images per step. steps: of the schedule. turn: steps between two scores.
    bank, queries: largest number of images of the kNN classifier.
    threads: of torch; None for torch's default.
    """

    split: str = "train"
    batch: int = 256
    steps: int = 400
    turn: int = 20
    bank: int = 5000
    queries: int = 1250
    threads: int | None = None


SMALL = Sizes(split="train[:1000]", batch=32, steps=4, turn=2, bank=256, queries=64, threads=1)


class Contender(Protocol):
    """Trains in turns. seconds_before: time that it needed before its first step."""

    seconds_before: float

    def train(self, start: int, count: int) -> float:
        """Takes the steps start .. start + count - 1 and returns the seconds they took."""
        ...

    def features(self, images: np.ndarray) -> np.ndarray:
        """Returns features float32 [N, F] of images uint8 [N, H, W, 3], in evaluation mode."""
        ...


def run(repeats: int, small: bool = False, data: str | None = None) -> dict[str, Any]:
    """Returns images/s of both, their ratio over the turns, and the seconds of both to 40 % kNN in each race.

    Args:
      repeats: number of races, each with its own seed.
      data: folder of TFDS sets with cifar10; by default TFDS's own.
    Raises UserError if lightly or cifar10 is missing.
    """
    if reason := find_missing(("torch", "torchvision", "lightly"), "reference"):
        raise UserError(reason.partition(":")[0], fix=f"{reason.partition(':')[2].strip()} (Python 3.11)")
    sizes = SMALL if small else Sizes()
    races = [run_race(make_config(sizes, seed, data), sizes, f"race {seed + 1}/{repeats}") for seed in range(repeats)]
    return summarise(races, sizes)


def make_config(sizes: Sizes, seed: int, data: str | None) -> dict[str, Any]:
    """Returns the config of our side: the recipe for CIFAR-10 on two cores, with lightly's projection head."""
    config = to_plain_data(load_config("configs/moco.py:cifar10_small")[0])
    config |= {"seed": seed, "steps": sizes.steps}
    config["data"] = {**config["data"], "dir": data, "split": sizes.split, "batch": sizes.batch, "order": "epochs"}
    config["eval"] = {**config["eval"], "pairs": 16}  # few, because the nats are not used here
    config["model"] = {**config["model"], "head": {"kind": "mlp", "hidden": None, "dim": 128}}
    return config


def run_race(config: Mapping[str, Any], sizes: Sizes, name: str) -> dict[str, Any]:
    """Runs one race and returns its results by contender."""
    job = assemble.build(config)
    random = np.random.default_rng(0)
    bank, queries = (
        random.choice(rows, min(most, len(rows)), replace=False)
        for rows, most in ((job.train_ids, sizes.bank), (job.held_out_ids, sizes.queries))
    )
    with start_lightly(job, config, sizes.threads) as lightly, job.open() as reader:
        contenders: dict[str, Contender] = {"ours": Ours(job, reader), "lightly": lightly}
        return race(contenders, make_judge(job, bank, queries), sizes, name)


def race(
    contenders: Mapping[str, Contender], judge: Judge, sizes: Sizes, name: str = "race"
) -> dict[str, dict[str, Any]]:
    """Trains the contenders turn by turn until all have reached the goal, or the schedule ends.

    Returns, by contender: seconds of each turn, kNN top-1 after each turn, seconds to the goal (None if it was not
    reached), and the seconds before the first step.
    """
    results: dict[str, dict[str, Any]] = {
        who: {"seconds": [], "knn_top1": [], "seconds_to_goal": None, "seconds_before": contender.seconds_before}
        for who, contender in contenders.items()
    }
    progress = ProgressBar(name, sizes.steps, seconds_between=0.0)
    for start in range(0, sizes.steps, sizes.turn):
        count = min(sizes.turn, sizes.steps - start)
        for who, contender in contenders.items():
            result = results[who]
            result["seconds"].append(contender.train(start, count))
            result["knn_top1"].append(judge(contender.features))
            if result["seconds_to_goal"] is None and result["knn_top1"][-1] >= GOAL:
                result["seconds_to_goal"] = sum(result["seconds"])
        rates = [f"{who} {count * sizes.batch / x['seconds'][-1]:.0f} images/s, kNN {100 * x['knn_top1'][-1]:.1f} %"
                 for who, x in results.items()]  # fmt: skip
        progress.advance(count, "; ".join(rates))
        if all(result["seconds_to_goal"] is not None for result in results.values()):
            break
    progress.close()
    return results


def make_judge(job: assemble.Job, bank: np.ndarray, queries: np.ndarray) -> Judge:
    """Returns the judge: top-1 of the weighted kNN classifier of `readout.knn`, k 200, on images of the training split.

    bank, queries: indices of images that are trained on, and of held-out images.
    """
    images, (label, classes) = job.images, next(iter(job.images.classes.items()))
    labels = images.labels[label]

    def judge(features: Callable[[np.ndarray], np.ndarray]) -> float:
        bank_features, query_features = (jnp.asarray(features(images.images(index))) for index in (bank, queries))
        votes = knn(
            query_features, bank_features, jnp.asarray(labels[bank]), k=min(200, len(bank)), classes=len(classes)
        )
        return float(top1(votes, jnp.asarray(labels[queries])))

    return judge


class Ours:
    """Our contender: reader and step of a run. `bad_steps` is read one step late, as the training loop does it."""

    def __init__(self, job: assemble.Job, reader: Any):
        start = time.perf_counter()
        self.job, self.reader = job, reader
        self.state = loop.place(job.first_state(), placement(job.parts.method, job.parts.mesh))
        step: Any = make_step(job.parts)
        self.step = step.lower(self.state, reader.batch(0), job.tables).compile()
        self.seconds_before = time.perf_counter() - start

    def train(self, start: int, count: int) -> float:
        start_time, previous = time.perf_counter(), None
        for number in range(start, start + count):
            self.state, scalars = self.step(self.state, self.reader.batch(number), self.job.tables)
            if previous is not None:
                int(previous)
            previous = scalars["bad_steps"]
        jax.block_until_ready(self.state)
        return time.perf_counter() - start_time

    def features(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.job.represent(self.state).encode(images))


class Lightly:
    """Their contender: a process that answers requests over a pipe."""

    def __init__(self, pipe: Any):
        start = time.perf_counter()
        self.pipe = pipe
        pipe.recv()
        self.seconds_before = time.perf_counter() - start

    def train(self, start: int, count: int) -> float:
        return float(self._request("train", start, count))

    def features(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self._request("features", images))

    def _request(self, *message: Any) -> Any:
        self.pipe.send(message)
        return self.pipe.recv()


@contextmanager
def start_lightly(job: assemble.Job, config: Mapping[str, Any], threads: int | None) -> Iterator[Lightly]:
    """Starts the process of lightly, on the same training images as ours, and ends it."""
    steps = job.parts.total_steps
    (term,) = config["method"]["terms"]
    settings = {
        "seed": config["seed"],
        "threads": threads,
        "batch": job.batch_size,
        "width": config["model"]["width"],
        "queue": config["method"]["pools"]["queue"]["size"],
        "temperature": term["temperature"],
        "momentum": config["method"]["momentum"],
        "weight_decay": config["optim"]["weight_decay"],
        "sgd_momentum": config["optim"]["momentum"],
        "rates": [float(rate) for rate in jax.vmap(job.parts.learning_rate)(jnp.arange(steps))],
        "normalize": {"mean": list(config["views"]["mean"]), "std": list(config["views"]["std"])},
    }
    try:
        images = job.images.images(job.train_ids)
        with start_process(serve, images, settings, patience=30, daemon=False) as pipe:  # it starts workers
            yield Lightly(pipe)
    except EOFError:
        raise RuntimeError("lightly's process ended early; its error stands above") from None


def serve(pipe: Any, images: np.ndarray, settings: Mapping[str, Any]) -> None:
    """Runs in lightly's process: reports that it is ready, and answers requests until the pipe ends."""
    train, features = make_lightly(images, settings)
    pipe.send("ready")
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        pipe.send({"train": train, "features": features}[name](*arguments))


@dataclass(frozen=True)
class Views:
    """The data set of the DataLoader: two views of each picture, made by the transform."""

    pictures: list[Any]
    transform: Callable[[Any], Any]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index])


def make_lightly(images: np.ndarray, settings: Mapping[str, Any]) -> tuple[Callable[..., float], Callable[..., Any]]:
    """Returns the functions `train` and `features` of `Contender`, for MoCo as lightly's documentation builds it."""
    import_torchvision()
    import copy

    import torch
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import MoCoV2Transform
    from PIL import Image
    from torch.utils.data import DataLoader

    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    backbone = make_resnet("resnet18", settings["width"])
    dim = 8 * settings["width"]
    head = MoCoProjectionHead(dim, dim, 128)
    key_backbone, key_head = copy.deepcopy(backbone), copy.deepcopy(head)
    deactivate_requires_grad(key_backbone)
    deactivate_requires_grad(key_head)
    compute_loss = NTXentLoss(temperature=settings["temperature"], memory_bank_size=(settings["queue"], 128))
    parameters = [*backbone.parameters(), *head.parameters()]
    optimiser = torch.optim.SGD(
        parameters, settings["rates"][0], momentum=settings["sgd_momentum"], weight_decay=settings["weight_decay"]
    )

    transform = MoCoV2Transform(input_size=images.shape[1], normalize=settings["normalize"])
    batches: list[list[int]] = []  # those of the next turn; the workers wait at its end
    loader: Any = DataLoader(
        Views([Image.fromarray(image) for image in images], transform),  # type: ignore[arg-type]
        batch_sampler=batches,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="fork",  # torch's default on Linux, but not in a spawned process like this one
    )
    random, size = np.random.default_rng(settings["seed"]), settings["batch"]
    epoch: list[int] = []

    def next_batch() -> list[int]:
        if len(epoch) < size:
            epoch[:] = random.permutation(len(images)).tolist()
        batch, epoch[:] = epoch[:size], epoch[size:]
        return batch

    def train(start: int, count: int) -> float:
        batches[:] = [next_batch() for _ in range(count)]
        start_time = time.perf_counter()
        for number, (x_query, x_key) in enumerate(loader, start):
            for group in optimiser.param_groups:
                group["lr"] = settings["rates"][number]
            update_momentum(backbone, key_backbone, m=settings["momentum"])
            update_momentum(head, key_head, m=settings["momentum"])
            query = head(backbone(x_query))
            with torch.no_grad():
                key = key_head(key_backbone(x_key))
            loss = compute_loss(query, key)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return time.perf_counter() - start_time

    mean, std = (torch.tensor(settings["normalize"][name]).view(1, 3, 1, 1) for name in ("mean", "std"))

    def features(arrays: np.ndarray) -> np.ndarray:
        backbone.eval()
        with torch.inference_mode():
            pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2)
            parts = [backbone((part.float() / 255 - mean) / std) for part in pixels.split(256)]
        backbone.train()
        return torch.cat(parts).numpy()

    batches[:] = [list(range(size))]
    for _ in loader:  # starts the workers
        pass
    return train, features


def summarise(races: list[dict[str, Any]], sizes: Sizes) -> dict[str, Any]:
    """Returns the figures of all races as plain data; `races` has the results of each."""
    counts = [min(sizes.turn, sizes.steps - start) for start in range(0, sizes.steps, sizes.turn)]
    seconds_per_step = {
        name: [s / n for results in races for s, n in zip(results[name]["seconds"], counts, strict=False)]
        for name in races[0]
    }
    figures: dict[str, Any] = {
        "what": f"MoCo on CIFAR-10, ResNet-18 of width 16, 32 px, batch {sizes.batch}, queue 4,096, two crops of "
        f"moco_v2; lightly with a DataLoader of {WORKERS} workers",
        "judge": f"kNN, k 200, bank {sizes.bank:,}, {sizes.queries:,} held-out images, after every {sizes.turn} steps",
    }
    for name in races[0]:
        to_goal = [results[name]["seconds_to_goal"] for results in races]
        reached = [seconds for seconds in to_goal if seconds is not None]
        figures[name] = {
            "images_per_second": spread([sizes.batch / s for s in seconds_per_step[name]]),
            "seconds_to_goal": spread(reached) if reached else None,
            "races_to_goal": len(reached),
            "seconds_before": spread([results[name]["seconds_before"] for results in races]),
        }
    both = [(x["ours"]["seconds_to_goal"], x["lightly"]["seconds_to_goal"]) for x in races]
    both = [pair for pair in both if None not in pair]
    figures["ours_over_lightly"] = ratio(seconds_per_step["ours"], seconds_per_step["lightly"])
    figures["ours_over_lightly_to_goal"] = ratio(*map(list, zip(*both, strict=True))) if both else None
    return figures | {"goal": GOAL, "races": races}


def format_figures(figures: Mapping[str, Any]) -> str:
    """Returns the figures as lines of text."""
    lines, goal, races = [figures["what"], figures["judge"]], f"{100 * figures['goal']:.0f} %", len(figures["races"])

    def format_spread(s: Mapping[str, float], digits: int = 0) -> str:
        return f"{s['median']:,.{digits}f} ({s['min']:,.{digits}f} to {s['max']:,.{digits}f})"

    for name in ("ours", "lightly"):
        case = figures[name]
        lines.append(
            f"  {name:8} {format_spread(case['images_per_second'])} images/s, "
            f"ready after {format_spread(case['seconds_before'])} s"
        )
        if case["seconds_to_goal"]:
            lines[-1] += f", {format_spread(case['seconds_to_goal'])} s to {goal} kNN"
        lines[-1] += f" in {case['races_to_goal']} of {races} races"
    lines.append(f"  ours over lightly: {format_spread(figures['ours_over_lightly'], 2)} x its images/s")
    if figures["ours_over_lightly_to_goal"]:
        lines[-1] += f", {format_spread(figures['ours_over_lightly_to_goal'], 2)} x as soon at {goal}"
    return "\n".join(lines)
