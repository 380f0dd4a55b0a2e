"""Times two views per image by each policy: ours in one jitted call, torchvision's PIL transforms in two processes."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from mi_contrast.benchmarks.peers import find_missing, import_torchvision
from mi_contrast.benchmarks.timing import ratio, spread, time_interleaved

PEERS = 2
POLICIES = ("moco_v2", "simclr", "infomin")
CASES = {  # side of a view: side of the source, our batch, our batches per round, the peers' images per round
    32: (32, 256, 16, 2 * 256),
    224: (256, 64, 2, 2 * 32),
}


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns images/s of both and their ratio for every policy at 32 and at 224 px; infomin without its jigsaw.

    Our sources are uint8 arrays on the device; the peer's are PIL images in memory. Neither decodes files, and the
    peer's tensors are neither collated nor moved. On a busy machine wall time favours whoever uses fewer cores, so the
    figures are also given for CPU time, of all our threads and of all the peer's processes.
    """
    figures: dict[str, Any] = {"what": "images/s, two views an image, sources in memory"}
    for size in CASES:
        for policy in POLICIES:
            figures.setdefault(policy, {})[f"{size}px"] = compare(policy, size, repeats, small)
    return figures


def compare(policy: str, size: int, repeats: int, small: bool) -> dict[str, Any]:
    """Returns the figures of one policy at one size."""
    source, batch, batches, peer_images = CASES[size]
    if small:
        batch, batches, peer_images = 8, 1, 2 * PEERS
    sources = crop_photographs(source, batch)
    reason = find_missing()
    cpu: dict[str, list[float]] = {"ours": [], "torchvision": []}
    start = (
        contextlib.nullcontext()
        if reason
        else start_workers(policy, sources, size, peer_images // PEERS, cpu["torchvision"])
    )
    with start as run_workers:
        call, compile_seconds = make_our_call(policy, sources, size, batches, cpu["ours"])
        contenders = {"ours": call}
        if run_workers is not None:
            contenders["torchvision"] = run_workers
        seconds = time_interleaved(contenders, repeats)
    images = {"ours": batch * batches, "torchvision": peer_images}
    wall = {name: [s / images[name] for s in rounds] for name, rounds in seconds.items()}
    work = {name: [s / images[name] for s in rounds[1:]] for name, rounds in cpu.items()}  # the first is a warm-up
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


def crop_photographs(size: int, count: int) -> np.ndarray:
    """Returns squares of scikit-learn's two photographs at fixed positions, uint8 [count, size, size, 3]."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    positions = np.random.default_rng(0)
    photos = load_sample_images().images
    squares = []
    for i in range(count):
        photo = photos[i % len(photos)]
        top, left = (positions.integers(0, side - 256 + 1) for side in photo.shape[:2])
        square = Image.fromarray(photo[top : top + 256, left : left + 256])
        squares.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(squares)


def make_our_call(
    policy: str, sources: np.ndarray, size: int, batches: int, cpu: list[float]
) -> tuple[Callable[[], None], float]:
    """Returns a function that makes the views of `batches` batches, and the seconds of its compilation.

    The function uses new random keys for each batch, waits for the views, and appends its CPU seconds to `cpu`.
    """
    import jax
    import jax.numpy as jnp

    from mi_contrast.views import policies

    options = {"jigsaw": False} if policy == "infomin" else {}
    views = policies.build(getattr(policies, policy)(size, **options))

    @jax.jit
    def make(pixels: Any, number: Any) -> Any:
        rng = jax.random.fold_in(jax.random.key(0), number)
        rngs = jax.vmap(partial(jax.random.fold_in, rng))(jnp.arange(len(pixels)))
        return views(pixels, rngs)

    resident = jnp.asarray(sources)[:, None]
    start = time.perf_counter()
    program = make.lower(resident, 0).compile()
    compile_seconds = time.perf_counter() - start

    def call() -> None:
        start = time.process_time()
        for number in range(batches):
            jax.block_until_ready(program(resident, number))
        cpu.append(time.process_time() - start)

    return call, compile_seconds


@contextmanager
def start_workers(
    policy: str, sources: np.ndarray, size: int, images: int, cpu: list[float]
) -> Iterator[Callable[[], None]]:
    """Starts the workers, yields a function that runs them once, and ends them.

    The function lets every worker make two views of `images` images, waits for all, and appends their CPU seconds to
    `cpu`.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(PEERS):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=serve, args=(theirs, policy, sources, size, images, number), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)

        def call() -> None:
            for pipe in pipes:
                pipe.send("go")
            cpu.append(sum(pipe.recv() for pipe in pipes))

        yield call
    finally:
        for pipe in pipes:
            pipe.close()  # the worker reads the end of the pipe and returns
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()


def serve(pipe: Any, policy: str, sources: np.ndarray, size: int, images: int, seed: int) -> None:
    """Runs in a worker: for every message makes two views of `images` images and answers with its CPU seconds."""
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
        start = time.process_time()
        for i in range(images):
            picture = pictures[i % len(pictures)]
            transform(picture), transform(picture)
        pipe.send(time.process_time() - start)


def compose(*transforms: Any) -> Any:
    """Composes transforms, and appends the conversion to a tensor and the normalisation."""
    tv = import_torchvision().transforms
    return tv.Compose([*transforms, tv.ToTensor(), tv.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])


def apply_randomly(op: Any, p: float) -> Any:
    """Returns a transform that applies the op with probability p."""
    return import_torchvision().transforms.RandomApply([op], p=p)


def blur(picture: Any) -> Any:
    """Blurs by PIL, sigma uniform in [.1, 2]; PIL approximates the Gaussian and is faster than torchvision."""
    from PIL import ImageFilter

    return picture.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def moco_v2(size: int) -> Any:
    """Returns MoCo v2's released transform for PIL images."""
    tv = import_torchvision().transforms
    return compose(
        tv.RandomResizedCrop(size, scale=(0.2, 1.0)),
        apply_randomly(tv.ColorJitter(0.4, 0.4, 0.4, 0.1), 0.8),
        tv.RandomGrayscale(p=0.2),
        apply_randomly(blur, 0.5),
        tv.RandomHorizontalFlip(),
    )


def simclr(size: int) -> Any:
    """Returns SimCLR's ops for PIL images, without mean and std."""
    tv = import_torchvision().transforms
    return tv.Compose(
        [
            tv.RandomResizedCrop(size, scale=(0.08, 1.0)),
            tv.RandomHorizontalFlip(),
            apply_randomly(tv.ColorJitter(0.8, 0.8, 0.8, 0.2), 0.8),
            tv.RandomGrayscale(p=0.2),
            apply_randomly(blur, 0.5),
            tv.ToTensor(),
        ]
    )


def infomin(size: int) -> Any:
    """Returns InfoMin's released transform for PIL images, with PIL's blur instead of a slower one with 23 taps."""
    tv = import_torchvision().transforms
    return compose(
        tv.RandomResizedCrop(size, scale=(0.2, 1.0)),
        tv.RandomHorizontalFlip(),
        apply_randomly(tv.ColorJitter(0.8, 0.8, 0.8, 0.2), 0.8),
        apply_randomly(blur, 0.5),
        randaugment,
        tv.RandomGrayscale(p=0.2),
    )


PEER_POLICIES = {"moco_v2": moco_v2, "simclr": simclr, "infomin": infomin}


def randaugment(picture: Any) -> Any:
    """Applies two layers of RandAugment with the random choices of InfoMin's released code, by PIL's functions."""
    for _ in range(2):
        op = random.choice(RANDAUGMENT)
        if random.random() < 0.5:
            picture = op(picture, min(max(random.gauss(10.0, 0.5), 0.0), 10.0) / 10.0)
    return picture


def map_levels(make: Callable[[int, float], int]) -> Callable[[Any, float], Any]:
    """Returns an op that maps the levels of a picture, given a share of the highest magnitude."""
    return lambda picture, share: picture.point([make(level, share) for level in range(256)] * 3)


def use_pil(module: str, name: str) -> Callable[[Any, float], Any]:
    """Returns an op by a function of PIL.ImageOps, which takes no magnitude, or by a class of PIL.ImageEnhance."""

    def op(picture: Any, share: float) -> Any:
        function = getattr(importlib.import_module(f"PIL.{module}"), name)
        return function(picture) if module == "ImageOps" else function(picture).enhance(0.1 + 1.8 * share)

    return op


def draw_resampling() -> dict[str, Any]:
    """Returns the arguments for resampling: bilinear or bicubic at random, and the fill colour."""
    from PIL import Image

    ways = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    return {"resample": random.choice(ways), "fillcolor": (124, 116, 104)}


def affine(make: Callable[[float, int, int], tuple[float, ...]]) -> Callable[[Any, float], Any]:
    """Returns an op that applies an affine map, made from a signed share of the highest magnitude and the sides."""

    def op(picture: Any, share: float) -> Any:
        from PIL import Image

        matrix = make(random.choice((-share, share)), *picture.size)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix, **draw_resampling())

    return op


RANDAUGMENT: tuple[Callable[[Any, float], Any], ...] = (
    *(use_pil("ImageOps", name) for name in ("autocontrast", "equalize", "invert")),
    *(use_pil("ImageEnhance", name) for name in ("Color", "Contrast", "Brightness", "Sharpness")),
    map_levels(lambda level, share: level & ~(2 ** (8 - int(4 * share)) - 1)),
    map_levels(lambda level, share: level if level < int(256 * share) else 255 - level),
    map_levels(lambda level, share: min(255, level + int(110 * share)) if level < 128 else level),
    lambda picture, share: picture.rotate(30.0 * random.choice((-share, share)), **draw_resampling()),
    affine(lambda share, width, height: (1, 0.3 * share, 0, 0, 1, 0)),
    affine(lambda share, width, height: (1, 0, 0, 0.3 * share, 1, 0)),
    affine(lambda share, width, height: (1, 0, 0.45 * share * width, 0, 1, 0)),
    affine(lambda share, width, height: (1, 0, 0, 0, 1, 0.45 * share * height)),
)
