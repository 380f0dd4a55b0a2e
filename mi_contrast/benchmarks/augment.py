"""Two views an image by each policy, ours in one jitted call beside torchvision's PIL transforms in two processes."""

from __future__ import annotations

import importlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mi_contrast.benchmarks.peers import import_torchvision, missing
from mi_contrast.benchmarks.timing import interleaved, ratio, spread

PEERS = 2
POLICIES = ("moco_v2", "simclr", "infomin")
CASES = {  # pixels a side of the view: those of the source, our batch, our batches a round, the peers' images a round
    32: (32, 256, 16, 2 * 256),
    224: (256, 64, 2, 2 * 32),
}


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """images/s of each, and their ratio, round by round, of every policy at 32 and at 224 px; infomin without its
    jigsaw, so that each makes two views.

    Sources are resident uint8 for us and PIL images in memory for the peer; neither decodes files, and the peer's
    tensors are neither collated nor moved. Wall time favours whoever asks for fewer cores of a busy machine, so the
    figures stand beside those of the CPU time taken, ours in all threads, theirs in all processes.
    """
    figures: dict[str, Any] = {"what": "images/s, two views an image, sources in memory"}
    for size in CASES:
        for policy in POLICIES:
            figures.setdefault(policy, {})[f"{size}px"] = compare(policy, size, repeats, small)
    return figures


def compare(policy: str, size: int, repeats: int, small: bool) -> dict[str, Any]:
    """The figures of one policy at one size."""
    source, batch, batches, peer_images = CASES[size]
    if small:
        batch, batches, peer_images = 8, 1, 2 * PEERS
    sources = photographs(source, batch)
    reason = missing()
    cpu: dict[str, list[float]] = {"ours": [], "torchvision": []}
    crowd = nobody() if reason else workers(policy, sources, size, peer_images // PEERS, cpu["torchvision"])
    with crowd as theirs:
        call, compile_seconds = ours(policy, sources, size, batches, cpu["ours"])
        contenders = {"ours": call}
        if theirs is not None:
            contenders["torchvision"] = theirs
        seconds = interleaved(contenders, repeats)
    images = {"ours": batch * batches, "torchvision": peer_images}
    wall = {name: [s / images[name] for s in taken] for name, taken in seconds.items()}
    work = {name: [s / images[name] for s in taken[1:]] for name, taken in cpu.items()}  # the first warms up
    case: dict[str, Any] = {"source_px": source, "batch": batch, "compile_seconds": compile_seconds}
    for name in contenders:
        case[name] = spread([1 / s for s in wall[name]])
        case[f"{name}_per_cpu_second"] = spread([1 / s for s in work[name]])
    if reason:
        case["torchvision"] = reason
    else:
        case["ours_over_torchvision"] = ratio(wall["ours"], wall["torchvision"])
        case["ours_over_torchvision_per_cpu_second"] = ratio(work["ours"], work["torchvision"])
    return case


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


def ours(
    policy: str, sources: np.ndarray, size: int, batches: int, cpu: list[float]
) -> tuple[Callable[[], None], float]:
    """A call that makes the views of `batches` batches, each with keys of its own, waits for them, and adds the CPU
    seconds taken to `cpu`; and the seconds that it took to compile.
    """
    import jax
    import jax.numpy as jnp

    from mi_contrast.views import policies

    options = {"jigsaw": False} if policy == "infomin" else {}
    views = policies.build(getattr(policies, policy)(size, **options))

    @jax.jit
    def make(pixels: Any, number: Any) -> Any:
        key = jax.random.fold_in(jax.random.key(0), number)
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(len(pixels)))
        return views(pixels, keys)

    resident = jnp.asarray(sources)[:, None]
    began = time.perf_counter()
    compiled = make.lower(resident, 0).compile()
    compile_seconds = time.perf_counter() - began

    def call() -> None:
        began = time.process_time()
        for number in range(batches):
            jax.block_until_ready(compiled(resident, number))
        cpu.append(time.process_time() - began)

    return call, compile_seconds


@contextmanager
def nobody() -> Iterator[None]:
    """No workers."""
    yield None


@contextmanager
def workers(policy: str, sources: np.ndarray, size: int, images: int, cpu: list[float]) -> Iterator[Callable[[], None]]:
    """A call that has every worker process make two views of `images` images, waits for all of them, and adds the CPU
    seconds that they took together to `cpu`.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(PEERS):
            here, there = spawn.Pipe()
            process = spawn.Process(target=work, args=(there, policy, sources, size, images, number), daemon=True)
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


def work(pipe: Any, policy: str, sources: np.ndarray, size: int, images: int, seed: int) -> None:
    """A worker process: two views of `images` images for every message, answered by the CPU seconds they took."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    random.seed(seed)
    transform = PEER_POLICIES[policy](size)
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


def compose(*transforms: Any) -> Any:
    """The transforms one after the other, the last made a tensor and normalised."""
    tv = import_torchvision().transforms
    return tv.Compose([*transforms, tv.ToTensor(), tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def sometimes(op: Any, p: float) -> Any:
    """The op with probability p."""
    return import_torchvision().transforms.RandomApply([op], p=p)


def blur(picture: Any) -> Any:
    """PIL's blur, sigma uniform in [.1, 2]: its approximation of a Gaussian, faster than torchvision's own."""
    from PIL import ImageFilter

    return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def moco_v2(size: int) -> Any:
    """MoCo v2's transform as released, on PIL images."""
    tv = import_torchvision().transforms
    return compose(
        tv.RandomResizedCrop(size, scale=(0.2, 1.0)),
        sometimes(tv.ColorJitter(0.4, 0.4, 0.4, 0.1), 0.8),
        tv.RandomGrayscale(p=0.2),
        sometimes(blur, 0.5),
        tv.RandomHorizontalFlip(),
    )


def simclr(size: int) -> Any:
    """SimCLR's ops on PIL images, without mean and std."""
    tv = import_torchvision().transforms
    return tv.Compose(
        [
            tv.RandomResizedCrop(size, scale=(0.08, 1.0)),
            tv.RandomHorizontalFlip(),
            sometimes(tv.ColorJitter(0.8, 0.8, 0.8, 0.2), 0.8),
            tv.RandomGrayscale(p=0.2),
            sometimes(blur, 0.5),
            tv.ToTensor(),
        ]
    )


def infomin(size: int) -> Any:
    """InfoMin's transform as released, on PIL images, with PIL's blur for its slower one of 23 taps."""
    tv = import_torchvision().transforms
    return compose(
        tv.RandomResizedCrop(size, scale=(0.2, 1.0)),
        tv.RandomHorizontalFlip(),
        sometimes(tv.ColorJitter(0.8, 0.8, 0.8, 0.2), 0.8),
        sometimes(blur, 0.5),
        randaugment,
        tv.RandomGrayscale(p=0.2),
    )


PEER_POLICIES = {"moco_v2": moco_v2, "simclr": simclr, "infomin": infomin}


def randaugment(picture: Any) -> Any:
    """Two layers of RandAugment as InfoMin's released code draws them, each op by PIL's own function."""
    for _ in range(2):
        op = random.choice(RANDAUGMENT)
        if random.random() < 0.5:
            picture = op(picture, min(max(random.gauss(10.0, 0.5), 0.0), 10.0) / 10.0)
    return picture


def table(make: Callable[[int, float], int]) -> Callable[[Any, float], Any]:
    """An op that gives a level by a table, of a share of the highest magnitude."""
    return lambda picture, share: picture.point([make(level, share) for level in range(256)] * 3)


def by_name(module: str, name: str) -> Callable[[Any, float], Any]:
    """An op of PIL's that takes the picture alone, or one that enhances it."""

    def op(picture: Any, share: float) -> Any:
        found = getattr(importlib.import_module(f"PIL.{module}"), name)
        return found(picture) if module == "ImageOps" else found(picture).enhance(0.1 + 1.8 * share)

    return op


def resample() -> dict[str, Any]:
    """Bilinear or bicubic, and what lies outside."""
    from PIL import Image

    ways = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return {"resample": random.choice(ways), "fillcolor": (124, 116, 104)}


def affine(make: Callable[[float, int, int], tuple[float, ...]]) -> Callable[[Any, float], Any]:
    """An op that resamples by a matrix, of a share of the highest magnitude, either way, and the picture's sides."""

    def op(picture: Any, share: float) -> Any:
        from PIL import Image

        matrix = make(random.choice((-share, share)), *picture.size)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, **resample())

    return op


RANDAUGMENT: tuple[Callable[[Any, float], Any], ...] = (
    *(by_name("ImageOps", name) for name in ("autocontrast", "equalize", "invert")),
    *(by_name("ImageEnhance", name) for name in ("Color", "Contrast", "Brightness", "Sharpness")),
    table(lambda level, share: level & ~(2 ** (8 - int(4 * share)) - 1)),
    table(lambda level, share: level if level < int(256 * share) else 255 - level),
    table(lambda level, share: min(255, level + int(110 * share)) if level < 128 else level),
    lambda picture, share: picture.rotate(30.0 * random.choice((-share, share)), **resample()),
    affine(lambda share, width, height: (1, 0.3 * share, 0, 0, 1, 0)),
    affine(lambda share, width, height: (1, 0, 0, 0.3 * share, 1, 0)),
    affine(lambda share, width, height: (1, 0, 0.45 * share * width, 0, 1, 0)),
    affine(lambda share, width, height: (1, 0, 0, 0, 1, 0.45 * share * height)),
)
