"""Writes the features of pictures, with the names of their files, to an .npz file.

  mi-contrast encode BACKBONE photos/ --out=features.npz

  with np.load("features.npz") as file:
      features, names = file["features"], file["names"]  # float32 [N, F] and text [N], row by row

BACKBONE is a run directory, an export or another trainer's file of weights. All pictures below the folder are read, in
the order of their names. As in an evaluation, the short side is resized to the backbone's size and the centre cropped.
Files that can't be read are left out, listed, and named in the array `broken`.
"""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8

from mi_contrast.core.config import parse
from mi_contrast.core.errors import BadNumbersError, FileError, UserError, nearest, run_job, unknown
from mi_contrast.core.layout import write_atomically
from mi_contrast.core.progress import ProgressBar
from mi_contrast.core.user_cache import use_compile_cache
from mi_contrast.data.broken import MAX_NAMED
from mi_contrast.data.decoding import BrokenImageError, decode_file, enable_heic
from mi_contrast.data.imageset import CHUNK, THREADS, ImageSet
from mi_contrast.data.listing import find_images, is_image
from mi_contrast.evaluation.twin import make_untrained_twin
from mi_contrast.interchange import LoadedBackbone, open_source, pixels
from mi_contrast.models.representation import LAYERS, Representation

FORMAT = "mi_contrast features"  # in every such file, so that no other file is replaced
MEANINGS = {  # of the arrays of the file
    "features": "a row for each picture",
    "names": "the file of each row, below the folder of pictures",
    "broken": "files that can't be read, and have no row",
    "about": "JSON: the backbone, its step and layer, and the size of the pictures",
}
FLAGS = {
    "backbone=": "a run directory, an export, or a file of weights (.pth, .pt, .ckpt, .pth.tar, .safetensors)",
    "pictures=": "a folder of pictures, nested or not, or one picture",
    "out=": "the .npz file to write; features.npz by default",
    "layer=": f"{' or '.join(LAYERS)}; pooled by default",
    "untrained": "by the untrained twin, the same network before training, to see what training gained",
    **pixels.FLAGS,
}


def find_pictures(path: Path) -> tuple[Path, list[Path]]:
    """Returns the folder that names start at, and its pictures in the order of their names. Raises UserError."""
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileError(f"{path} does not exist", nearest=nearest(path.name, siblings), fix="give a folder of pictures")
    root, files = (path, sorted(find_images(path))) if path.is_dir() else (path.parent, [path])
    if not files or (path.is_file() and not is_image(path)):
        raise FileError(f"{path} {'contains no pictures' if path.is_dir() else 'is not a picture'}",
                        fix="give a folder of pictures such as .jpg, .png, .webp, .gif or .tif")  # fmt: skip
    enable_heic(root, [str(file.relative_to(root)) for file in files])
    return root, files


def encode_files(
    representation: Representation, files: Sequence[Path], *, layer: str = "pooled"
) -> tuple[Float[np.ndarray, "N F"], list[int], dict[int, str]]:
    """Returns the features of pictures, the positions of those that were read, and why each of the others was not.

    The next pictures are decoded while the device encodes. Raises UserError if no picture can be read, and
    BadNumbersError where a feature is not finite.
    """
    size, broken = representation.spec["size"], dict[int, str]()

    def decode(position: int) -> UInt8[np.ndarray, "H W 3"] | None:
        try:
            return decode_file(files[position], size)
        except BrokenImageError as error:
            broken[position] = error.why
            return None

    blocks: list[Any] = []
    progress = ProgressBar("encoding", len(files), unit="picture", compiles=True)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            for start in range(0, len(files), CHUNK):
                images = list(threads.map(decode, range(start, min(start + CHUNK, len(files)))))
                if readable := [image for image in images if image is not None]:
                    if blocks:
                        blocks[-1] = np.asarray(blocks[-1])  # the device may be one block behind
                    blocks.append(representation.encode(np.stack(readable), layer=layer))
                progress.advance(len(images))
    finally:
        progress.close()
    if not blocks:
        raise FileError(f"none of {len(files)} pictures can be read; the first: {files[0]}: {broken[0]}")
    features = np.concatenate([np.asarray(block) for block in blocks])
    if not np.isfinite(features).all():
        raise BadNumbersError(f"features of {int((~np.isfinite(features).all(axis=1)).sum())} pictures are not finite")
    return features, [i for i in range(len(files)) if i not in broken], dict(sorted(broken.items()))


def use_untrained(loaded: LoadedBackbone, files: Sequence[Path]) -> LoadedBackbone:
    """Returns the untrained twin, whose batch statistics are those of the first pictures that can be read."""
    size, images = loaded.representation.spec["size"], list[np.ndarray]()
    for file in files:
        try:
            images.append(decode_file(file, size))
        except BrokenImageError:
            continue
        if len(images) == CHUNK:
            break
    if not images:
        raise FileError(f"none of {len(files)} pictures can be read", fix="repair them")
    stacked = np.stack(images)
    pictures = ImageSet("pictures", "train", len(stacked), stacked.shape[1:], stacked.__getitem__)
    return make_untrained_twin(loaded, pictures)


def check_replaceable(path: Path) -> None:
    """Raises UserError unless `path` can be written: it is new, or holds features that an earlier call wrote."""
    if path.suffix != ".npz":
        raise UserError(f"--out={path}", fix="give the name of an .npz file, such as --out=features.npz")
    if not path.exists():
        return
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "about" in file and json.loads(str(file["about"])).get("format") == FORMAT:
                return
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile):
        pass
    raise FileError(f"{path} exists and holds no features of this command", fix="name another with --out=FILE.npz")


def describe_broken(broken: Sequence[tuple[str, str]], rest: str = ", in the array 'broken'") -> str:
    """Returns the line about pictures that can't be read, with the name and the reason of each of the first twenty.

    Args:
      rest: where the names of the others stand.
    """
    shown = "; ".join(f"{name}: {why}" for name, why in broken[:MAX_NAMED])
    more = f"; and {len(broken) - MAX_NAMED} more{rest}" if len(broken) > MAX_NAMED else ""
    return f"{len(broken)} file{'s' if len(broken) > 1 else ''} can't be read and left out: {shown}{more}"


def describe_file(out: Path, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Yields a line for each array of the file: name, shape, dtype and what it is; and one that opens it in Python."""
    shapes = {name: f"[{', '.join(map(str, array.shape))}]" for name, array in arrays.items()}
    kinds = {name: "text" if array.dtype.kind == "U" else str(array.dtype) for name, array in arrays.items()}
    widths = [max(map(len, column)) for column in (arrays, shapes.values(), kinds.values())]
    for name in arrays:
        shape, kind = shapes[name].ljust(widths[1]), kinds[name].ljust(widths[2])
        yield f"  {name.ljust(widths[0])}  {shape}  {kind}  {MEANINGS[name]}"
    yield f"open it: import numpy; file = numpy.load({str(out)!r}); features, names = file['features'], file['names']"


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "").flags
    for flag, example in (("backbone", "RUN_OR_EXPORT_OR_FILE"), ("pictures", "photos/")):
        if flag not in flags:
            raise UserError(f"no --{flag}", fix=f"give --{flag}={example}")
    layer, out = flags.get("layer", "pooled"), Path(flags.get("out") or "features.npz")
    if layer not in LAYERS:
        raise unknown("layer", layer, LAYERS)
    check_replaceable(out)
    use_compile_cache()
    loaded = open_source(flags["backbone"], preprocessing=pixels.read_preprocessing(flags))
    print(loaded)
    root, files = find_pictures(Path(flags["pictures"]).expanduser())
    if "untrained" in flags:
        loaded = use_untrained(loaded, files)
    features, kept, broken = encode_files(loaded.representation, files, layer=layer)
    names = [file.relative_to(root).as_posix() for file in files]
    about = {"format": FORMAT, "backbone": flags["backbone"], "pictures": flags["pictures"], "layer": layer,
             "step": loaded.step, "untrained": "untrained" in flags, "size": loaded.representation.spec["size"],
             "jax": jax.__version__}  # fmt: skip
    arrays = {
        "features": features,
        "names": np.array([names[i] for i in kept]),
        "broken": np.array([names[i] for i in broken], dtype=np.str_),
        "about": np.array(json.dumps(about)),
    }
    with write_atomically(out) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    if broken:
        print(describe_broken([(names[i], why) for i, why in broken.items()]), file=sys.stderr)
    print(f"{len(features):,} pictures are encoded, {features.shape[1]:,} features each: {out}")
    print("\n".join(describe_file(out, arrays)))


if __name__ == "__main__":
    sys.exit(run_job(main))
