"""Training from Python: `mi_contrast.train("simclr", data="photos/", steps=1000)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict

from mi_contrast.core import processes
from mi_contrast.core.config import load_config
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import default_workdir, write_atomically, write_text
from mi_contrast.data.own import name_pictures, shorten_name
from mi_contrast.fields import change_fields
from mi_contrast.run import Run, Value

Data = str | Path | Sequence[str | Path] | UInt8[np.ndarray, "N H W 3"]
ARRAYS, LIST = "data.npz", "files.txt"  # what a run directory keeps of data that Python gave
FOLDER = "folder"  # the variant that fits itself to own pictures


def train(
    config: str | Path | ConfigDict | Mapping[str, Any],
    workdir: str | Path | None = None,
    *,
    data: Data | None = None,
    labels: Int[np.ndarray, " N"] | Sequence[int] | Sequence[str] | None = None,
    name: str = "",
    variant: str | None = None,
    stop_at: int | None = None,
    allow: Sequence[str] = (),
    **fields: Value,
) -> Run:
    """Trains a method and returns the run. The same call goes on with a run that was stopped.

    Args:
      config: a method's name such as 'simclr', with a variant 'simclr:digits', or the path of a config file; or a
        ConfigDict as its `get_config` returns it, or the same as plain dicts.
      workdir: the run directory; by default runs/<method>-<variant>, or runs/<method>-<folder> for own pictures.
      data: own pictures: a folder, a list of files, or uint8 [N, H, W, 3]. A list and an array are written into the run
        directory, so that the run can go on later. By default the data that the config names.
      labels: of an array, a number or a name for each image.
      name, variant: of the config, for the record in run.json; by default those of `config`.
      stop_at: save and stop after this step; schedules are unchanged.
      allow: sections of the config that may differ from the earlier start, such as ('optim',).
      fields: changes of the config, by plain or dotted name or as a dict of a section: `steps=1000`, `batch=64`,
        `optim={'lr': .1}`, `**{'eval.every': 100}`.
    Raises:
      UserError on a mistake in the config, its data or the directory; BadNumbersError where loss or gradient are not
      finite; StoppedError at a signal or a time limit, and KeyboardInterrupt at Ctrl-C, both after saving.

    >>> run = mi_contrast.train("simclr", data="photos/", steps=1000)  # doctest: +SKIP
    """
    from mi_contrast import main

    settings, own_name, own_variant = read_config(config, data is not None)
    name, variant = name or own_name, variant if variant is not None else own_variant
    if labels is not None and not isinstance(data, np.ndarray):
        raise UserError("labels are given without an array of images", fix="give data=uint8 [N, H, W, 3]; the labels "
                        "of a folder are its subfolders")  # fmt: skip
    processes.start(polls_stops=True)
    root = choose_workdir(name, variant, data) if workdir is None else Path(workdir)
    if data is not None:
        settings = change_fields(settings, {"data.name": place_data(data, labels, root), "data.dir": None})
    if fields:
        settings = change_fields(settings, fields)
    main.train(settings, root, name=name, variant=variant, stop_at=stop_at, allow=allow)
    return Run(root)


def read_config(
    config: str | Path | ConfigDict | Mapping[str, Any], has_own_data: bool
) -> tuple[ConfigDict | Mapping[str, Any], str, str | None]:
    """Returns a config, and its name and variant if it is named by them. Own data take the variant 'folder'."""
    if isinstance(config, (str, Path)):
        spec = str(config)
        if has_own_data and ":" not in spec:
            spec += f":{FOLDER}"
        return load_config(spec)
    if not isinstance(config, (ConfigDict, Mapping)):
        raise UserError(f"config is a {type(config).__name__}", fix="give a name such as 'simclr', a path, or a config")
    return config, "", None


def choose_workdir(name: str, variant: str | None, data: Data | None) -> Path:
    """Returns the run directory of a call that names none."""
    if not name:
        raise UserError("no workdir", fix="a config without a name needs workdir='runs/NAME'")
    word = variant
    if isinstance(data, (str, Path)):
        word = shorten_name(name_data(data))
    elif data is not None:
        word = "arrays" if isinstance(data, np.ndarray) else "files"
    return default_workdir(name, word)


def name_data(data: str | Path) -> str:
    """Returns data.name of a path, which is made absolute, or of the name of a set."""
    if ":" in str(data) and not Path(data).exists():
        return str(data)
    return name_pictures(str(Path(data).expanduser().resolve()))


def place_data(data: Data, labels: Any, root: Path) -> str:
    """Returns the name of a data set of own pictures. An array or a list is written into the run directory first.

    Raises:
      UserError: the data are of another kind, or others than those that the directory has.
    """
    if isinstance(data, (str, Path)):
        return name_data(data)
    if isinstance(data, np.ndarray):
        return _place_array(data, labels, root / ARRAYS)
    files = [Path(file).expanduser().resolve() for file in data]
    if not files:
        raise UserError("data is an empty list", fix="give a folder, a list of files, or uint8 [N, H, W, 3]")
    text, path = "".join(f"{file}\n" for file in files), root / LIST
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise FileError(f"{path} lists other files", fix="give another workdir, or the same files to go on")
    write_text(path, text)
    return f"list:{path.resolve()}"


def _place_array(images: np.ndarray, labels: Any, path: Path) -> str:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) < 2:
        what = f"data is {images.dtype} {list(images.shape)}"
        raise UserError(what, fix="give uint8 [N, H, W, 3] with at least two images")
    arrays = {"images": images}
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
        if arrays["labels"].shape != (len(images),):
            problem = f"labels are {list(arrays['labels'].shape)} for {len(images)} images"
            raise UserError(problem, fix="give one label an image")
        if arrays["labels"].dtype.kind not in "iuU":
            raise UserError(f"labels are {arrays['labels'].dtype}", fix="give whole numbers or names")
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            same = set(kept) == set(arrays) and all(np.array_equal(kept[word], arrays[word]) for word in arrays)
        if not same:
            raise FileError(f"{path} has other images", fix="give another workdir, or the same images to go on")
    else:
        with write_atomically(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    return f"arrays:{path.resolve()}"
