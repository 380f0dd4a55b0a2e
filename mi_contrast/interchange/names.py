"""Converts between our variables and the tensors of torchvision or, for a transformer, of timm.

Our names are theirs except for the last word, and our kernels have another order of axes.

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

`num_batches_tracked` counts training batches in PyTorch, which only uses it in a batch norm without momentum. We write
0, so that a strict load finds every name, and ignore it on reading. In timm `pos_embed` is always a tensor. If our
positions are fixed, they are computed for any image size; we write those of the representation's size, and on reading
accept only fixed positions.
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
FIXED_TOLERANCE = 1e-5  # of positions whose sines another program computed in float32

Path = tuple[str, ...]
Tensors = dict[str, np.ndarray]
Variables = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One row of the table: the path of a tensor in our variables, and its shape and dtype there."""

    path: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def foreign_shape(self) -> tuple[int, ...]:
        """The shape in torchvision's layout."""
        return tuple(self.shape[axis] for axis in _axes(len(self.shape)))


def to_foreign_name(path: Path) -> str:
    """Returns the torchvision name of the leaf at `path`, whose first word is the collection.

    >>> to_foreign_name(("params", "layer1", "0", "downsample", "1", "scale"))
    'layer1.0.downsample.1.weight'
    """
    words = path if path[0] == GENERATOR else path[1:]  # torchvision has no generator, so it keeps our name
    return ".".join((*words[:-1], LEAVES[path[-1]]))


def _axes(rank: int) -> tuple[int, ...]:
    return {4: (3, 2, 0, 1), 2: (1, 0)}.get(rank, tuple(range(rank)))  # HWIO -> OIHW, IO -> OI


def flatten(variables: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Returns {path: leaf} of nested dicts."""
    flat: dict[Path, Any] = {}
    for name, item in variables.items():
        flat.update(flatten(item, (*path, name)) if isinstance(item, Mapping) else {(*path, name): item})
    return flat


def remove_leaves(tree: Mapping[str, Any]) -> Variables:
    """Returns the nested dicts without their leaves."""
    return {name: remove_leaves(item) for name, item in tree.items() if isinstance(item, Mapping)}


def unflatten(flat: Mapping[Path, Any], template: Mapping[str, Any]) -> Variables:
    """Returns nested dicts from {path: leaf}, the inverse of `flatten`.

    A flat dict can't show that a collection is empty; the empty dicts are those of `template`.
    """
    tree = remove_leaves(template)
    for path, leaf in flat.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return tree


def make_table(template: Mapping[str, Any]) -> dict[str, Entry]:
    """Returns {torchvision's name: entry} of every leaf of `template`, which is variables or their shapes."""
    flat = flatten(template)
    entries = {to_foreign_name(p): Entry(p, tuple(x.shape), str(x.dtype)) for p, x in flat.items()}
    assert len(entries) == len(flat), "two leaves share a name"
    return entries


def to_foreign(variables: Mapping[str, Any]) -> Tensors:
    """Converts variables {'params', 'batch_stats'} to tensors with torchvision's names, layouts and order."""
    flat = flatten(variables)
    tensors: Tensors = {}
    for name, entry in make_table(variables).items():
        array = np.asarray(flat[entry.path])
        tensors[name] = np.ascontiguousarray(array.transpose(_axes(array.ndim)))
        if entry.path[-1] == "var":
            tensors[name.removesuffix(LEAVES["var"]) + COUNTER] = np.zeros((), np.int64)
    return tensors


def collect_tensors(representation: Representation) -> Tensors:
    """Returns the tensors that another tool needs: `to_foreign` of the variables, and fixed positions if there are any.

    The fixed positions of a transformer are those for the representation's own image size.
    """
    net, tensors = representation.backbone, to_foreign(representation.variables)
    if isinstance(net, ViT) and net.grid is None:
        fixed = fixed_positions(representation.spec["size"] // net.patch, net.dim)
        tensors |= {n.replace(TOKEN, POSITIONS): fixed for n in tensors if n.rpartition(".")[2] == TOKEN}
    return tensors


def are_fixed_positions(positions: np.ndarray) -> bool:
    """Whether a `pos_embed` of timm has the fixed positions of a square grid."""
    count, dim = positions.shape[1:] if positions.ndim == 3 else (0, 0)
    grid = math.isqrt(max(count - 1, 0))
    if positions.shape != (1, 1 + grid * grid, dim) or dim % 4:
        return False
    return bool(np.allclose(positions, fixed_positions(grid, dim), rtol=0, atol=FIXED_TOLERANCE))


def from_foreign(tensors: Mapping[str, np.ndarray], template: Mapping[str, Any], origin: str) -> tuple[Variables, int]:
    """Converts tensors with torchvision's names to variables; every name must match.

    Args:
      tensors: {name: array} with exactly the names of `template`. They may also include batch counters and, if the
        template has no positions, fixed positions.
      template: the variables to make, or their shapes.
      origin: what the tensors come from, for messages.
    Returns:
      (variables, nested dicts of arrays; the number of tensors, which is that of the template).
    Raises:
      UserError at the first name that is missing, unexpected, or of another shape or dtype. The message has the name,
      the nearest name, and how many tensors matched.
    """
    table = make_table(template)
    actual = {name: tensor for name, tensor in tensors.items() if not is_counter(name, table)}
    for name in [name for name in actual if is_computed(name, table)]:
        if not are_fixed_positions(actual.pop(name)):
            raise UserError(f"{origin}: {name!r} is not the fixed positions that the network computes")
    check_match(actual, {n: (e.foreign_shape, e.dtype) for n, e in table.items()}, origin)
    flat = {
        e.path: np.ascontiguousarray(actual[n].transpose(np.argsort(_axes(actual[n].ndim)))) for n, e in table.items()
    }
    return unflatten(flat, template), len(flat)


def is_counter(name: str, table: Mapping[str, Entry]) -> bool:
    """Whether `name` counts the batches of a batch norm in the table."""
    module, _, leaf = name.rpartition(".")
    return leaf == COUNTER and f"{module}.{LEAVES['var']}" in table


def is_computed(name: str, table: Mapping[str, Entry]) -> bool:
    """Whether `name` is a `pos_embed` that our network computes and therefore does not store."""
    root, _, leaf = name.rpartition(".")
    prefix = f"{root}." if root else ""
    return leaf == POSITIONS and name not in table and f"{prefix}{EMBEDDING}.proj.weight" in table


def check_match(
    actual: Mapping[str, np.ndarray], expected: Mapping[str, tuple[tuple[int, ...], str]], origin: str
) -> None:
    """Raises UserError unless the tensors have exactly the expected names, shapes and dtypes (as text)."""

    def matches(name: str) -> bool:
        return name in actual and (tuple(actual[name].shape), str(actual[name].dtype)) == expected[name]

    count = f"{sum(map(matches, expected))} of {len(expected)} tensors match"
    missing = [name for name in expected if name not in actual]
    extra = [name for name in actual if name not in expected]
    if missing:
        near = nearest(missing[0], extra)
        raise UserError(
            f"{origin} lacks {missing[0]!r} ({count})",
            nearest=near,
            fix="check that the weights belong to this network",
        )
    if extra:
        near = nearest(extra[0], expected)
        raise UserError(f"{origin} has {extra[0]!r}, which the network does not have ({count})", nearest=near)
    for name, (shape, dtype) in expected.items():
        if not matches(name):
            kind = f"{actual[name].dtype}{list(actual[name].shape)}"
            raise UserError(f"{origin}: {name!r} is {kind}, the network's is {dtype}{list(shape)} ({count})")


def check_finite(variables: Mapping[str, Any], origin: str) -> None:
    """Raises UserError, naming the tensor, if a leaf of `variables` has a NaN or an infinity."""
    for path, leaf in flatten(variables).items():
        finite = np.isfinite(np.asarray(leaf, np.float32))
        if not finite.all():
            raise UserError(
                f"{origin}: {to_foreign_name(path)!r} has {finite.size - int(finite.sum())} of {finite.size} numbers "
                "that are NaN or infinite",
                fix="take a checkpoint from before its training diverged, or copy the file again",
            )
