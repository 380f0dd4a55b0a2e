"""Reads PyTorch's files (.pth, .pt, .ckpt, .pth.tar) without PyTorch and without running code in them.

There are two layouts. Since PyTorch 1.6 (2020) a file is a zip archive of `<name>/data.pkl` and, for each storage, a
`<name>/data/<key>`. An older file is a sequence: three pickles (a magic number, a version, the machine), the pickle of
the object, the pickle of the storages' keys, and each storage after its length. In both layouts the object's pickle
describes tensors as views of storages (key, offset, shape, stride). A storage is read only when its tensor is.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from mi_contrast.core.errors import FileError
from mi_contrast.interchange import unpickle
from mi_contrast.interchange.unpickle import ForbiddenError, MalformedError

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
# Options, paths and callbacks that trainers save with the weights; they are replaced by `unpickle.Inert`.
IGNORED = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "torch.device",
    "torch.Size",
    "collections.defaultdict",
    "dotmap.DotMap",
    "easydict.EasyDict",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "typing.Any",
    *(f"{module}.{kind}" for module in ("builtins", "__builtin__") for kind in ("bool", "int", "float", "str", "list")),
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "lightning_fabric.utilities.data.AttributeDict",
)
DAMAGE = (MalformedError, zipfile.BadZipFile, struct.error, ArithmeticError, LookupError, TypeError, ValueError)
ONLY = "only state dicts are read, and no code in a file is run"
FIX = f"{ONLY}; where you trust the file, save its state dict alone: torch.save(checkpoint['state_dict'], path)"


@dataclass(frozen=True, eq=False)
class Storage:
    """Consecutive numbers in the file. dtype: numpy's code, or 'bf2' for bfloat16; count: how many numbers."""

    dtype: str
    count: int
    read: Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage that is not read yet; offset and stride count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Returns a copy of the tensor, bfloat16 as float32. Raises MalformedError if the file is too short for it."""
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        empty = 0 in self.shape
        if self.offset < 0 or min((*self.shape, *self.stride), default=0) < 0:
            raise MalformedError("a tensor reaches before its storage")
        if not empty and (last >= self.storage.count or math.prod(self.shape) > self.storage.count):
            raise MalformedError("a tensor reaches beyond its storage")
        is_bfloat16 = self.storage.dtype.endswith("bf2")
        dtype = np.dtype(self.storage.dtype.replace("bf2", "u2"))
        data = self.storage.read(dtype.itemsize * self.storage.count)
        if len(data) != dtype.itemsize * self.storage.count:
            raise MalformedError("a storage is cut short")
        flat = np.frombuffer(data, dtype)
        if is_bfloat16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        if empty:
            return np.zeros(self.shape, flat.dtype.newbyteorder("="))
        strides = tuple(s * flat.itemsize for s in self.stride)
        view = np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, strides, writeable=False)
        return np.ascontiguousarray(view, flat.dtype.newbyteorder("=")).reshape(self.shape)


def read(path: Path) -> Any:
    """Returns the object in a PyTorch file: plain containers, numbers, `Tensor`s and numpy arrays as `unpickle.Array`.

    No code in the file is run. Raises UserError if it is not such a file, is damaged, or has anything but tensors and
    plain data.
    """
    try:
        with open(path, "rb") as file:
            return _read_zip(path) if file.read(4) == b"PK\x03\x04" else _read_legacy(file)
    except ForbiddenError as error:
        raise FileError(f"{path} holds {error}, which is not read", fix=FIX) from None
    except DAMAGE as error:
        raise FileError(f"{path} is not a PyTorch file, or is damaged ({error})", fix="copy it again") from None
    except OSError as error:
        raise FileError(f"can't read {path} ({error.strerror or error})") from None


def read_arrays(tensors: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of tensors from `read`. Raises UserError if the file is damaged there."""
    try:
        return {name: tensor.array() for name, tensor in tensors.items()}
    except (*DAMAGE, OSError) as error:
        raise FileError(f"{path} is damaged ({error})", fix="copy it again") from None


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise MalformedError("a zip archive without one data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in archive.infolist()):
            raise MalformedError("compressed or encrypted, as PyTorch writes none")
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if f"{root}constants.pkl" in sizes:
            raise ForbiddenError("a TorchScript program")
        order = archive.read(f"{root}byteorder") if f"{root}byteorder" in sizes else b"little"

        def reader(key: str) -> Callable[[int], bytes]:
            def read_member(count: int) -> bytes:
                name = f"{root}data/{key}"
                if sizes.get(name) != count:
                    raise MalformedError(f"storage {key!r} has {sizes.get(name)} bytes, not {count}")
                with zipfile.ZipFile(path) as reopened:
                    return reopened.read(name)

            return read_member

        file = io.BytesIO(archive.read(pickles[0]))
        return unpickle.load(file, MAKERS, _make_storage_reader(reader, ">" if order == b"big" else "<"))


def _read_legacy(file: IO[bytes]) -> Any:
    file.seek(0)
    try:
        if unpickle.load(file, {}) != MAGIC or unpickle.load(file, {}) != VERSION:
            raise MalformedError("it begins as no PyTorch file does")
    except ForbiddenError:
        file.seek(0)
        unpickle.load(file, MAKERS)  # of a plain pickle, this names the forbidden object
        raise MalformedError("a pickle, but not PyTorch's") from None
    machine = unpickle.load(file, {})
    if not isinstance(machine, dict):
        raise MalformedError("it does not tell its machine")
    order = "<" if machine.get("little_endian", True) else ">"
    path, positions = Path(file.name), dict[str, int]()

    def reader(key: str) -> Callable[[int], bytes]:
        def read_part(count: int) -> bytes:
            if key not in positions:
                raise MalformedError(f"no storage {key!r}")
            with open(path, "rb") as reopened:
                reopened.seek(positions[key])
                return reopened.read(count)

        return read_part

    storages: dict[str, Storage] = {}
    read_storage = _make_storage_reader(reader, order)

    def read_storage_once(identity: Any) -> Storage:
        storage = read_storage(identity)
        return storages.setdefault(str(identity[2]), storage)

    value = unpickle.load(file, MAKERS, read_storage_once)
    keys = unpickle.load(file, {})
    for key in map(str, keys):
        (count,) = struct.unpack(f"{order}q", file.read(8))
        if key not in storages or storages[key].count != count:
            raise MalformedError(f"storage {key!r} is of another length than its tensors say")
        positions[key] = file.tell()
        file.seek(count * np.dtype(storages[key].dtype.replace("bf2", "u2")).itemsize, 1)
    return value


def _make_storage_reader(reader: Callable[[str], Callable[[int], bytes]], order: str) -> Callable[[Any], Storage]:
    """Returns the function from a persistent id to its storage.

    Args:
      reader: from a storage's key to a function that reads that many bytes of it.
      order: byte order, '<' or '>'.
    """

    def make_storage(identity: Any) -> Storage:
        kind, storage_type, key, _, count, *view = identity
        is_view = any(part is not None for part in view)
        if kind != "storage" or is_view or not isinstance(storage_type, unpickle.Global):
            raise ForbiddenError("a module, or a storage that is a view")
        name = storage_type.name.removeprefix("torch.")
        if name not in STORAGES:
            raise ForbiddenError(storage_type.name)
        if not isinstance(count, int) or count < 0:
            raise MalformedError("a storage of no length")
        return Storage(order + STORAGES[name], count, reader(str(key)))

    return make_storage


def _make_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(offset, int):
        raise MalformedError("a tensor without a storage")
    shape, stride = (tuple(int(n) for n in numbers) for numbers in (shape, stride))
    if len(shape) != len(stride) or len(shape) > 8:
        raise MalformedError("a tensor of unequal shape and stride")
    return Tensor(storage, offset, shape, stride)


def _return_tensor(tensor: Any, *_: Any) -> Any:
    return tensor


MAKERS: unpickle.Makers = {
    **{(name.rpartition(".")[0], name.rpartition(".")[2]): unpickle.make_inert(name) for name in IGNORED},
    **unpickle.NUMPY,
    **unpickle.BUILTINS,
    ("torch._utils", "_rebuild_tensor_v2"): _make_tensor,
    ("torch._utils", "_rebuild_tensor"): _make_tensor,
    ("torch._utils", "_rebuild_parameter"): _return_tensor,
    **{("torch", name): unpickle.make_inert(f"torch.{name}") for name in STORAGES},
}
