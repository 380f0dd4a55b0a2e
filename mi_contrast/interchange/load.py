"""load(path): the representation in a run directory or an export, every tensor matched or none loaded."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import safetensors
import safetensors.numpy

from mi_contrast.core import checkpoint
from mi_contrast.core.errors import UserError, nearest
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.interchange.export import FORMAT, MANIFEST, VERSION
from mi_contrast.interchange.names import check_match, from_foreign, leaves
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, spec_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A representation and where it came from.

    tensors: how many were loaded, which is all that the network has; step: of training, None where unknown;
    config: of training, {} where unknown; sha256: of the file of weights, None for a run directory.
    """

    representation: Representation
    source: Path
    tensors: int
    step: int | None
    config: Mapping[str, Any]
    sha256: str | None = None

    def __str__(self) -> str:
        return f"loaded {self.tensors} of {self.tensors} tensors from {self.source}"


def load(path: str | Path) -> Representation:
    """The representation in a run directory (its newest checkpoint) or an export. See `open_source`."""
    return open_source(path).representation


def open_source(path: str | Path) -> Loaded:
    """Loads a representation, and tells what was loaded from where.

    Args:
      path: a run directory (weights of its newest checkpoint, the online ones unless its config's `export.weights` is
        'target'), an export directory, or the file of weights inside one (its sum verified).
    Raises UserError where the path is none of these, the sum differs, or a tensor is missing, unexpected, or of
    another shape or dtype; the message names it, the nearest, and how many of how many were loaded.
    """
    path = Path(path)
    for recognise, read in READERS:
        if recognise(path):
            loaded = read(path)
            logger.info("%s", loaded)
            return loaded
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{path} does not exist", nearest=nearest(path.name, beside), fix=TAKES)
    raise UserError(f"{path} is neither a run directory nor an export", fix=TAKES)


TAKES = "give a run directory (config.json, checkpoints/) or an export (manifest.json, backbone.safetensors)"


def is_export(path: Path) -> bool:
    """Whether `path` is an export directory."""
    return (path / MANIFEST).is_file()


def is_export_file(path: Path) -> bool:
    """Whether `path` is a safetensors file."""
    return path.is_file() and path.suffix == ".safetensors"


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory."""
    return RunDirectory(path).config.is_file()


def read_export_file(path: Path) -> Loaded:
    """Reads an export from the path of its file of weights; the manifest beside it says what they are."""
    if not is_export(path.parent):
        raise UserError(f"{path} has no {MANIFEST} beside it", fix="give an export directory whole")
    named = read_manifest(path.parent)["file"]
    if path.name != named:
        raise UserError(f"{path} is not the file that its manifest names", nearest=named)
    return read_export(path.parent)


def read_export(path: Path) -> Loaded:
    """Reads an export directory."""
    manifest = read_manifest(path)
    file = path / manifest["file"]
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UserError(f"can't read {file} ({error.strerror})", fix="copy the export whole") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest["sha256"]:
        raise UserError(f"{file} has sha256 {digest[:12]}..., its manifest says {manifest['sha256'][:12]}...",
                        fix="the file is damaged or was changed: copy the export again")  # fmt: skip
    try:
        tensors = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is not a safetensors file ({error})") from None
    listed = {n: (tuple(t["shape"]), t["dtype"]) for n, t in manifest["tensors"].items()}
    check_match(tensors, listed, f"{file} against its manifest")
    model, pixels = manifest["model"], manifest["preprocessing"]
    variables, count = from_foreign(tensors, towers.template(model), str(file))
    spec = spec_of(model, mean=pixels["mean"], std=pixels["std"], size=pixels["size"])
    representation = Representation(jax.tree.map(jnp.asarray, variables), spec)
    return Loaded(representation, path, count, manifest["step"], manifest["config"], digest)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an export directory. UserError where it is broken, or of another format or version."""
    manifest = read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path / MANIFEST} is not a manifest of {FORMAT!r}", fix=TAKES)
    if manifest.get("format_version") != VERSION:
        raise UserError(f"{path} is of format version {manifest.get('format_version')}, this package reads {VERSION}",
                        fix="use the package version in its manifest")  # fmt: skip
    needed = {"file", "sha256", "tensors", "model", "preprocessing", "step", "config"}
    if missing := sorted(needed - set(manifest)):
        raise UserError(f"{path / MANIFEST} has no {missing[0]!r}", fix="copy the export again")
    if Path(manifest["file"]).name != manifest["file"]:
        raise UserError(f"{path / MANIFEST} names a file outside its directory, {manifest['file']!r}")
    return manifest


def read_run(path: Path) -> Loaded:
    """Reads the backbone in the newest checkpoint of a run directory."""
    run = RunDirectory(path)
    try:
        config = read_json(run.config)["config"]
        weights = config.get("export", {}).get("weights", "online")
        spec = spec_of(config["model"], **{name: config["views"][name] for name in ("mean", "std", "size")})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.config} is not a run's config ({type(error).__name__}: {error})", fix=TAKES) from None
    step, state = checkpoint.read(run.checkpoints, subtree=(weights,))
    variables = {part: state[weights].get(part, {}).get("backbone", {}) for part in ("params", "batch_stats")}
    wanted = {".".join(p): (tuple(x.shape), str(x.dtype)) for p, x in leaves(towers.template(spec["model"])).items()}
    found = {".".join(p): x for p, x in leaves(variables).items()}
    check_match(found, wanted, f"checkpoint {run.checkpoints / str(step)}")
    return Loaded(Representation(jax.tree.map(jnp.asarray, variables), spec), path, len(wanted), step, config)


READERS = ((is_export, read_export), (is_export_file, read_export_file), (is_run, read_run))
