"""Times the input pipeline against torchvision's ImageFolder and DataLoader: two random crops of each JPEG.

The images are made from the 24 photographs of kodak24.zip (--data), in 20 folders of classes: 500 x 375 pixels as
ImageNet's are on average, and 4,000 x 3,000 as those of a phone. Both sides read the same files on the same cores in
the same run, in turns, and crop by the same distribution (area .2 to 1, aspect 3/4 to 4/3, 224 pixels). Ours is the
reader of a streamed set with its threads, and its crops are uint8, for the device. torchvision's are made by worker
processes, once as float32 by ToTensor, as its users do, and once left as uint8. Images per second of processor time
count the time of all threads and processes of a side, and depend less on what else runs. `records` is the time to the
first batch of a set of many small records, whose labels are read at the first start and kept for the second.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from mi_contrast.benchmarks.peers import find_missing, import_torchvision, start_process
from mi_contrast.benchmarks.records import time_first_batch
from mi_contrast.benchmarks.timing import ratio, spread
from mi_contrast.core import rngs as streams
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data import sets
from mi_contrast.data.crops import Crops
from mi_contrast.data.readers import Reader, make_reader
from mi_contrast.views import policies

REPEATS = 3
SIZE, BATCH, CLASSES = 224, 32, 20
CASES = {"imagenet": (500, 375, 2000), "phone": (4000, 3000, 64)}  # width, height, number of images
QUALITY = 90  # of the JPEGs: about 57 KB at ImageNet's size, 1.2 MB at a phone's


def run(repeats: int, small: bool = False, data: str | None = None) -> dict[str, Any]:
    """Returns images/s a core of both sides by case, and the seconds to the first batch of many records.

    Args:
      repeats: number of rounds; in each, every contender reads the same number of images.
      data: kodak24.zip.
    Raises UserError if torchvision or the file is missing.
    """
    if reason := find_missing(("torch", "torchvision"), "reference"):
        raise UserError(reason.partition(":")[0], fix=f"{reason.partition(':')[2].strip()} (Python 3.11)")
    if data is None or not Path(data).is_file():
        raise FileError("the photographs are not at hand", fix="give --data=PATH of kodak24.zip")
    cores = len(os.sched_getaffinity(0))
    figures: dict[str, Any] = {"what": f"two crops of {SIZE} px of each JPEG, batches of {BATCH}", "cores": cores}
    for case, (width, height, count) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            write_photographs(Path(folder), Path(data), width, height, min(count, BATCH) if small else count)
            num_batches = (2 if small else count // BATCH // 2) if case == "imagenet" else 1 + 2 * (not small)
            figures[case] = compare(folder, num_batches, repeats, cores)
    figures["records"] = time_first_batch(2_000 if small else 200_000)
    return figures


def write_photographs(folder: Path, archive: Path, width: int, height: int, count: int) -> None:
    """Writes `count` JPEGs of width x height pixels into folders of classes: random parts of the photographs."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(archive) as members:
        names = [name for name in members.namelist() if name.endswith(".png")]
        photographs = [Image.open(io.BytesIO(members.read(name))).convert("RGB") for name in names]
    for i in range(count):
        photograph = photographs[i % len(photographs)]
        wide = random.uniform(0.7, 1.0) * min(photograph.width, photograph.height * width / height)
        tall = wide * height / width
        left, top = random.uniform(0, photograph.width - wide), random.uniform(0, photograph.height - tall)
        file = folder / f"class_{i % CLASSES:02}" / f"{i:05}.jpg"
        file.parent.mkdir(exist_ok=True)
        box = (left, top, left + wide, top + tall)
        photograph.resize((width, height), Image.Resampling.BICUBIC, box=box).save(file, quality=QUALITY)


def compare(folder: str, num_batches: int, repeats: int, cores: int) -> dict[str, Any]:
    """Returns images/s a core of each contender on the images in a folder, and our ratio to the others."""
    seconds: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    with start_ours(folder) as ours, start_torchvision(folder, cores) as theirs:
        contenders = {"ours": ours, **theirs}
        for round_ in range(repeats + 1):
            for name, read in contenders.items():
                elapsed, used = read(num_batches)
                if round_:  # the first is not measured
                    seconds.setdefault(name, []).append(elapsed)
                    processor.setdefault(name, []).append(used)
    images, figures = num_batches * BATCH, dict[str, Any]()
    for what, times, number in (("core", seconds, cores), ("processor", processor, 1)):
        speeds = {name: spread([images / number / s for s in values]) for name, values in times.items()}
        ratios = {name: ratio(times["ours"], values) for name, values in times.items() if name != "ours"}
        figures[f"images_per_{what}_second"] = speeds
        figures[f"ours_over_others_by_{what}"] = ratios
    return figures


def processor_seconds() -> float:
    """Returns the processor time of this process and its children so far."""
    children = {
        child for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()
    }  # of every thread
    seconds = time.process_time()
    for child in children:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system
    return seconds


@contextmanager
def start_ours(folder: str) -> Iterator[Callable[[int], tuple[float, float]]]:
    """Yields a function that reads some batches by a streamed reader, and returns the seconds and processor seconds."""
    images = sets.load(f"folder:{folder}", "train", size=SIZE, known_broken=())
    assert images.open is not None
    step, opened, open_whole = 0, [0], images.open

    def count_and_open(index: int) -> Any:
        opened[0] += 1
        return open_whole(index)

    images = replace(images, open=count_and_open)
    with make_crop_reader(images) as reader:
        reader.batch(0)  # compiles

        def read(num_batches: int) -> tuple[float, float]:
            nonlocal step
            reader.close()  # what was read ahead does not count
            opened[0] = 0
            start_time, start_processor = time.perf_counter(), time.process_time()
            for number in range(step, step + num_batches):
                jax.block_until_ready(reader.batch(number))
            elapsed = time.perf_counter() - start_time
            reader.close()
            used = (time.process_time() - start_processor) * num_batches * BATCH / opened[0]  # some were read ahead
            step += num_batches
            return elapsed, used

        yield read


def make_crop_reader(images: sets.ImageSet) -> Reader:
    """Returns a streamed reader of two random crops of each image."""
    views = policies.build(policies.moco_v2(SIZE))

    def draw(rng: jax.Array, height: jax.Array, width: jax.Array) -> dict[str, jax.Array]:
        return views.draw_boxes(streams.stream_rng(rng, "views"), height, width)

    crops = Crops(draw, dict.fromkeys(views.cuts, SIZE), dict.fromkeys(views.cuts, 0))
    members = np.arange(len(images), dtype=np.int32)
    return make_reader(images, members, batch_size=BATCH, seed=0, mesh=make_mesh(), resident=False, crops=crops)


@contextmanager
def start_torchvision(folder: str, cores: int) -> Iterator[dict[str, Callable[[int], tuple[float, float]]]]:
    """Starts torchvision's process and yields functions like that of `start_ours`, by contender."""
    with start_process(serve, folder, cores, patience=30, daemon=False) as pipe:  # it starts workers
        pipe.recv()

        def ask(kind: str, num_batches: int) -> tuple[float, float]:
            pipe.send((kind, num_batches))
            elapsed, used = pipe.recv()
            return elapsed, used

        yield {kind: partial(ask, kind) for kind in ("torchvision", "torchvision_uint8")}


def serve(pipe: Any, folder: str, cores: int) -> None:
    """Runs in torchvision's process: reads batches with as many workers as there are cores, until the pipe ends."""
    import_torchvision()
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, PILToTensor, RandomResizedCrop, ToTensor

    torch.set_num_threads(1)
    batches: list[list[int]] = []
    random = np.random.default_rng(0)

    def make_loader(convert: Any) -> Any:
        transform = Compose([RandomResizedCrop(SIZE, scale=(0.2, 1.0)), convert])
        data = ImageFolder(folder, TwoCrops(transform))
        how: dict[str, Any] = {"num_workers": cores, "persistent_workers": True, "multiprocessing_context": "fork"}
        return data, DataLoader(data, batch_sampler=batches, **how)  # type: ignore[arg-type]

    loaders = {"torchvision": make_loader(ToTensor()), "torchvision_uint8": make_loader(PILToTensor())}
    pipe.send("ready")
    while True:
        try:
            kind, num_batches = pipe.recv()
        except EOFError:
            return
        data, loader = loaders[kind]
        order = random.permutation(max(len(data), num_batches * BATCH)) % len(data)
        batches[:] = [order[i * BATCH :][:BATCH].tolist() for i in range(num_batches)]
        start_time, start_processor = time.perf_counter(), processor_seconds()
        for _ in loader:
            pass
        pipe.send((time.perf_counter() - start_time, processor_seconds() - start_processor))


class TwoCrops:
    """Applies a transform twice, as the released code of MoCo does."""

    def __init__(self, transform: Callable[[Any], Any]):
        self.transform = transform

    def __call__(self, image: Any) -> list[Any]:
        return [self.transform(image), self.transform(image)]


def format_figures(figures: Mapping[str, Any]) -> str:
    """Returns the figures as lines of text."""
    lines = [f"{figures['what']}, {figures['cores']} cores"]
    for case, (width, height, _) in CASES.items():
        for what in ("core", "processor"):
            lines.append(f"{case}, {width} x {height}, images per {what}-second:")
            for name, speeds in figures[case][f"images_per_{what}_second"].items():
                lines.append(f"  {name:18} {speeds['median']:6.1f} ({speeds['min']:.1f} to {speeds['max']:.1f})")
            for name, ratios in figures[case][f"ours_over_others_by_{what}"].items():
                shown = f"{ratios['median']:.2f} x ({ratios['min']:.2f} to {ratios['max']:.2f})"
                lines.append(f"  ours over {name}: {shown}")
    seconds = figures["records"]
    lines.append(f"first batch of {seconds['records']:,} records: {seconds['first']:.1f} s at the first start, "
                 f"{seconds['second']:.1f} s at the second")  # fmt: skip
    return "\n".join(lines)
