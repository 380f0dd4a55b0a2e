"""Two moco_v2 views an image, ours in one jitted call beside torchvision's PIL transforms in two processes."""

from __future__ import annotations

import importlib.util
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mi_contrast.benchmarks.timing import interleaved, ratio, spread

PEERS = 2
LIBRARIES: list[Any] = []  # a declaration lives as long as its library
CASES = {  # pixels a side of the view: those of the source, our batch, our batches a round, the peers' images a round
    32: (32, 256, 16, 2 * 256),
    224: (256, 64, 2, 2 * 32),
}


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """images/s of each, and their ratio, round by round, at 32 and at 224 px.

    Sources are resident uint8 for us and PIL images in memory for the peer; neither decodes files, and the peer's
    tensors are neither collated nor moved. Wall time favours whoever asks for fewer cores of a busy machine, so the
    figures stand beside those of the CPU time taken, ours in all threads, theirs in all processes.
    """
    figures: dict[str, Any] = {"what": "images/s, two moco_v2 views an image, sources in memory"}
    for size, (source, batch, batches, peer_images) in CASES.items():
        if small:
            batch, batches, peer_images = 8, 1, 2 * PEERS
        sources = photographs(source, batch)
        reason = missing()
        cpu: dict[str, list[float]] = {"ours": [], "torchvision": []}
        with workers(sources, size, peer_images // PEERS, cpu["torchvision"]) if not reason else nobody() as theirs:
            contenders = {"ours": ours(sources, size, batches, cpu["ours"])}
            if theirs is not None:
                contenders["torchvision"] = theirs
            seconds = interleaved(contenders, repeats)
        images = {"ours": batch * batches, "torchvision": peer_images}
        wall = {name: [s / images[name] for s in taken] for name, taken in seconds.items()}
        work = {name: [s / images[name] for s in taken[1:]] for name, taken in cpu.items()}  # the first warms up
        case: dict[str, Any] = {"source_px": source, "batch": batch}
        for name in contenders:
            case[name] = spread([1 / s for s in wall[name]])
            case[f"{name}_per_cpu_second"] = spread([1 / s for s in work[name]])
        if reason:
            case["torchvision"] = reason
        else:
            case["ours_over_torchvision"] = ratio(wall["ours"], wall["torchvision"])
            case["ours_over_torchvision_per_cpu_second"] = ratio(work["ours"], work["torchvision"])
        figures[f"{size}px"] = case
    return figures


def photographs(size: int, count: int) -> np.ndarray:
    """uint8 [count, size, size, 3]: squares cut out of scikit-learn's two photographs, at fixed places."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    places = np.random.default_rng(0)
    photos = load_sample_images().images
    squares = []
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (places.integers(0, side - 256 + 1) for side in photo.shape[:2])
        square = Image.fromarray(photo[top : top + 256, left : left + 256])
        squares.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(squares)


def ours(sources: np.ndarray, size: int, batches: int, cpu: list[float]) -> Callable[[], None]:
    """A call that makes the views of `batches` batches, each with keys of its own, waits for them, and adds the CPU
    seconds taken to `cpu`.
    """
    import jax
    import jax.numpy as jnp

    from mi_contrast.views import policies

    views = policies.build(policies.moco_v2(size))

    @jax.jit
    def make(pixels: Any, number: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(0), number)
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(pixels)))
        return views(pixels, keys)

    resident = jnp.asarray(sources)[:, None]

    def call() -> None:
        began = time.process_time()
        for number in range(batches):
            jax.block_until_ready(make(resident, number))
        cpu.append(time.process_time() - began)

    return call


def missing() -> str:
    """Why the peer can't run here; empty where it can."""
    for name in ("torch", "torchvision"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed: pip install 'mi-contrast[torch]'"
    return ""


@contextmanager
def nobody() -> Iterator[None]:
    """No workers."""
    yield None


@contextmanager
def workers(sources: np.ndarray, size: int, images: int, cpu: list[float]) -> Iterator[Callable[[], None]]:
    """A call that has every worker process make two views of `images` images, waits for all of them, and adds the CPU
    seconds that they took together to `cpu`.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(PEERS):
            here, there = spawn.Pipe()
            process = spawn.Process(target=work, args=(there, sources, size, images, number), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)

        def call() -> None:
            for pipe in pipes:
                pipe.send("go")
            cpu.append(sum(pipe.recv() for pipe in pipes))

        yield call
    finally:
        for pipe in pipes:
            pipe.close()  # the worker reads the end and returns
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def work(pipe: Any, sources: np.ndarray, size: int, images: int, seed: int) -> None:
    """A worker process: two views of `images` images for every message, answered by the CPU seconds they took."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    transform = moco_v2(size)
    pictures = [Image.fromarray(source) for source in sources]
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        began = time.process_time()
        for i in range(images):
            picture = pictures[i % len(pictures)]
            transform(picture), transform(picture)
        pipe.send(time.process_time() - began)


def moco_v2(size: int) -> Any:
    """MoCo v2's transform as released, on PIL images."""
    from PIL import ImageFilter

    transforms = import_torchvision().transforms

    def blur(picture: Any) -> Any:
        return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))

    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.2, 1.0)),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.RandomApply([blur], p=0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def import_torchvision() -> Any:
    """Torchvision; where its compiled ops don't fit the torch at hand, their names are declared first: PIL transforms
    use none of them.
    """
    import torch

    try:
        import torchvision.transforms
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        LIBRARIES.append(library)
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.transforms
    return torchvision
