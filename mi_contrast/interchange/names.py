"""Names and layouts: ours are torchvision's, and timm's of a transformer, but for the last word and the order of axes.

    ours                                            torchvision's
    params / layer1 / 0 / conv1 / kernel  [k,k,I,O] layer1.0.conv1.weight        [O,I,k,k]
    params / layer1 / 0 / bn1 / scale     [C]       layer1.0.bn1.weight          [C]
    params / layer1 / 0 / bn1 / bias      [C]       layer1.0.bn1.bias            [C]
    batch_stats / layer1 / 0 / bn1 / mean [C]       layer1.0.bn1.running_mean    [C]
    batch_stats / layer1 / 0 / bn1 / var  [C]       layer1.0.bn1.running_var     [C]
    -                                               layer1.0.bn1.num_batches_tracked  int64 []
    params / blocks / 0 / attn / qkv / kernel [I,O] blocks.0.attn.qkv.weight     [O,I]
    params / cls_token                    [1,1,D]   cls_token                    [1,1,D]
    -                                               pos_embed                    [1,1+N,D]

`num_batches_tracked` counts training batches in PyTorch and serves there only where a batch norm has no momentum; we
write 0, so that a strict load finds every name, and read past it. `pos_embed` is a tensor in timm always; where ours
are the fixed positions, computed for any size, we write those of the representation's size, and read past no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mi_contrast.core.errors import UserError, nearest
from mi_contrast.models.representation import Representation
from mi_contrast.models.towers import GENERATOR
from mi_contrast.models.vit import EMBEDDING, POSITIONS, TOKEN, ViT, fixed_positions

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
LEAVES |= {name: name for name in (TOKEN, POSITIONS)}
COUNTER = "num_batches_tracked"
FIXED_WITHIN = 1e-5  # float32 of sines computed elsewhere

Path = tuple[str, ...]
Tensors = dict[str, np.ndarray]
Variables = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One line of the table: where a tensor is in our variables, its shape and dtype there."""

    path: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def foreign_shape(self) -> tuple[int, ...]:
        """Its shape in torchvision's layout."""
        return tuple(self.shape[axis] for axis in _axes(len(self.shape)))


def foreign_name(path: Path) -> str:
    """The torchvision name of the leaf at `path`, whose first word is the collection.

    >>> foreign_name(("params", "layer1", "0", "downsample", "1", "scale"))
    'layer1.0.downsample.1.weight'
    """
    kept = path if path[0] == GENERATOR else path[1:]  # torchvision has no such thing: its names begin with ours
    return ".".join((*kept[:-1], LEAVES[path[-1]]))


def _axes(rank: int) -> tuple[int, ...]:
    return {4: (3, 2, 0, 1), 2: (1, 0)}.get(rank, tuple(range(rank)))  # HWIO -> OIHW, IO -> OI


def leaves(variables: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """{path: leaf} of nested dicts."""
    found: dict[Path, Any] = {}
    for name, item in variables.items():
        found.update(leaves(item, (*path, name)) if isinstance(item, Mapping) else {(*path, name): item})
    return found


def hollow(tree: Mapping[str, Any]) -> Variables:
    """Nested dicts without their leaves: what `leaves` can't tell, since a collection may be empty."""
    return {name: hollow(item) for name, item in tree.items() if isinstance(item, Mapping)}


def nested(flat: Mapping[Path, Any], template: Mapping[str, Any]) -> Variables:
    """Nested dicts of {path: leaf}: the inverse of `leaves`, with the empty ones of `template`."""
    tree = hollow(template)
    for path, leaf in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return tree


def table(template: Mapping[str, Any]) -> dict[str, Entry]:
    """{torchvision's name: entry} of every leaf of `template`, variables or their shapes {'params', 'batch_stats'}."""
    found = {foreign_name(p): Entry(p, tuple(x.shape), str(x.dtype)) for p, x in leaves(template).items()}
    assert len(found) == len(leaves(template)), "two leaves share a name"
    return found


def to_foreign(variables: Mapping[str, Any]) -> Tensors:
    """Variables {'params', 'batch_stats'} as tensors in torchvision's names, layouts and order of names."""
    flat = leaves(variables)
    tensors: Tensors = {}
    for name, entry in table(variables).items():
        array = np.asarray(flat[entry.path])
        tensors[name] = np.ascontiguousarray(array.transpose(_axes(array.ndim)))
        if entry.path[-1] == "var":
            tensors[name.removesuffix(LEAVES["var"]) + COUNTER] = np.zeros((), np.int64)
    return tensors


def tensors_of(representation: Representation) -> Tensors:
    """All that another tool needs of a representation: `to_foreign` of its variables and, of a transformer whose
    positions are fixed, those of its own size.
    """
    net, tensors = representation.backbone, to_foreign(representation.variables)
    if isinstance(net, ViT) and net.grid is None:
        fixed = fixed_positions(representation.spec["size"] // net.patch, net.dim)
        tensors |= {n.replace(TOKEN, POSITIONS): fixed for n in tensors if n.rpartition(".")[2] == TOKEN}
    return tensors


def are_fixed(positions: np.ndarray) -> bool:
    """Whether positions as timm keeps them are the fixed ones of a square grid."""
    count, dim = positions.shape[1:] if positions.ndim == 3 else (0, 0)
    grid = math.isqrt(max(count - 1, 0))
    if positions.shape != (1, 1 + grid * grid, dim) or dim % 4:
        return False
    return bool(np.allclose(positions, fixed_positions(grid, dim), rtol=0, atol=FIXED_WITHIN))


def from_foreign(tensors: Mapping[str, np.ndarray], template: Mapping[str, Any], where: str) -> tuple[Variables, int]:
    """Tensors in torchvision's names as variables of the shapes in `template`, every one matched.

    Args:
      tensors: {name: array}; every name of `template` and no other, but for counters of batches and positions that
        are the fixed ones where the template has none.
      template: the variables wanted, or their shapes.
      where: what holds the tensors, for the message.

    Returns:
      (variables of float32 numpy arrays, the number of tensors loaded, which is all of the template's).
    Raises UserError at the first name that is missing, unexpected, or of another shape or dtype, naming it and the
    nearest, with how many matched.
    """
    wanted = table(template)
    given = {name: tensor for name, tensor in tensors.items() if not is_counter(name, wanted)}
    for name in [name for name in given if computed(name, wanted)]:
        if not are_fixed(given.pop(name)):
            raise UserError(f"{where}: {name!r} is not the fixed positions that the network computes")
    check_match(given, {n: (e.foreign_shape, e.dtype) for n, e in wanted.items()}, where)
    flat = {
        e.path: np.ascontiguousarray(given[n].transpose(np.argsort(_axes(given[n].ndim)))) for n, e in wanted.items()
    }
    return nested(flat, template), len(flat)


def is_counter(name: str, wanted: Mapping[str, Entry]) -> bool:
    """Whether `name` counts the batches of a batch norm that the table knows."""
    module, _, leaf = name.rpartition(".")
    return leaf == COUNTER and f"{module}.{LEAVES['var']}" in wanted


def computed(name: str, wanted: Mapping[str, Entry]) -> bool:
    """Whether `name` is the positions of a transformer that the table knows, which has none among its variables."""
    root, _, leaf = name.rpartition(".")
    prefix = f"{root}." if root else ""
    return leaf == POSITIONS and name not in wanted and f"{prefix}{EMBEDDING}.proj.weight" in wanted


def check_match(given: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[tuple[int, ...], str]], where: str) -> None:
    """UserError unless `given` has exactly the names of `wanted`, each of its shape and dtype (as words)."""

    def fits(name: str) -> bool:
        return name in given and (tuple(given[name].shape), str(given[name].dtype)) == wanted[name]

    count = f"{sum(map(fits, wanted))} of {len(wanted)} tensors match"
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing:
        near = nearest(missing[0], extra)
        raise UserError(f"{where} lacks {missing[0]!r} ({count})", nearest=near, fix="weights of another network?")
    if extra:
        near = nearest(extra[0], wanted)
        raise UserError(f"{where} has {extra[0]!r}, which the network hasn't ({count})", nearest=near)
    for name, (shape, dtype) in wanted.items():
        if not fits(name):
            found = f"{given[name].dtype}{list(given[name].shape)}"
            raise UserError(f"{where}: {name!r} is {found}, the network's is {dtype}{list(shape)} ({count})")


def check_finite(variables: Mapping[str, Any], where: str) -> None:
    """UserError where a leaf of `variables` holds NaN or an infinity; it names the first such tensor."""
    for path, leaf in leaves(variables).items():
        finite = np.isfinite(np.asarray(leaf, np.float32))
        if not finite.all():
            raise UserError(
                f"{where}: {foreign_name(path)!r} has {finite.size - int(finite.sum())} of {finite.size} numbers that "
                "are NaN or infinite",
                fix="take a checkpoint from before its training diverged, or copy the file again",
            )
