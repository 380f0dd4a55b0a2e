"""Loads a representation from a run directory, an export or another trainer's file; every tensor must match."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mi_contrast.core import checkpoint
from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.core.layout import RunDirectory, read_json, read_record
from mi_contrast.interchange.export import FORMAT, MANIFEST, VERSION
from mi_contrast.interchange.foreign import SUFFIXES, Preprocessing, read_foreign, read_safetensors, read_tensors
from mi_contrast.interchange.loaded_backbone import LoadedBackbone
from mi_contrast.interchange.names import check_finite, check_match, flatten, from_foreign, unflatten
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, make_spec

logger = logging.getLogger(__name__)


def load(path: str | Path, *, preprocessing: Preprocessing | None = None) -> Representation:
    """Returns the representation in a run directory, an export or another trainer's file of weights.

    Of a run directory it is the one in the newest checkpoint. Arguments and errors are those of `open_source`.
    """
    return open_source(path, preprocessing=preprocessing).representation


def open_source(path: str | Path, *, preprocessing: Preprocessing | None = None) -> LoadedBackbone:
    """Returns the representation in `path` and a record of its origin.

    Args:
      path: one of
        - a run directory: the online weights of its newest checkpoint, or the target ones if its config's
          `export.weights` is 'target';
        - an export directory, or the file of weights inside one; the checksum is verified;
        - the state dict of a ResNet or a ViT as another trainer saved it: .safetensors, .pth, .pt, .ckpt or .pth.tar.
          `families` lists the known trainers. No code in the file is ever run.
      preprocessing: only for another trainer's file: mean, std and size, as far as they differ from ImageNet's and 224.
    Raises:
      UserError if the path is none of these, if the checksum differs, or if a tensor is missing, unexpected, not
      finite, or of another shape or dtype. The message has its name, the nearest name, and how many tensors matched.
    """
    path = Path(path)
    for recognise, read in READERS:
        if recognise(path):
            if preprocessing:
                raise UserError(f"{path} has its own preprocessing", fix="leave mean, std and size out")
            loaded = read(path)
            break
    else:
        if not path.exists():
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise FileError(f"{path} does not exist", nearest=nearest(path.name, siblings), fix=ACCEPTED)
        if not path.is_file() or path.suffix not in (".safetensors", *SUFFIXES):
            raise FileError(f"{path} is neither a run directory nor an export nor a file of weights", fix=ACCEPTED)
        loaded = read_foreign(path, preprocessing)
    check_finite(loaded.representation.variables, str(path))
    logger.info("%s", loaded)
    return loaded


ACCEPTED = (
    "give a run directory (config.json, checkpoints/), an export (manifest.json, backbone.safetensors) or a file of "
    f"weights ({', '.join(SUFFIXES)}, .safetensors)"
)


def is_export(path: Path) -> bool:
    """Whether `path` is an export directory."""
    return (path / MANIFEST).is_file()


def is_export_file(path: Path) -> bool:
    """Whether `path` is a file of weights in an export directory."""
    return path.is_file() and path.suffix in (".safetensors", *SUFFIXES) and is_export(path.parent)


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory."""
    return RunDirectory(path).config.is_file()


def read_export_file(path: Path) -> LoadedBackbone:
    """Reads an export, given its file of weights."""
    name = read_manifest(path.parent)["file"]
    if path.name != name:
        raise FileError(f"{path} is not the file that its manifest names", nearest=name)
    return read_export(path.parent)


def read_export(path: Path) -> LoadedBackbone:
    """Reads an export directory."""
    manifest = read_manifest(path)
    file = path / manifest["file"]
    try:
        data = file.read_bytes()
    except OSError as error:
        raise FileError(f"can't read {file} ({error.strerror})", fix="copy the export whole") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest["sha256"]:
        raise FileError(f"{file} has sha256 {digest[:12]}..., its manifest says {manifest['sha256'][:12]}...",
                        fix="the file is damaged or was changed: copy the export again")  # fmt: skip
    tensors = read_safetensors(data, file) if file.suffix == ".safetensors" else read_tensors(file)[0]
    expected = {n: (tuple(t["shape"]), t["dtype"]) for n, t in manifest["tensors"].items()}
    check_match(tensors, expected, f"{file} against its manifest")
    model, pixels = manifest["model"], manifest["preprocessing"]
    variables, count = from_foreign(tensors, towers.template(model), str(file))
    spec = make_spec(model, mean=pixels["mean"], std=pixels["std"], size=pixels["size"])
    representation = Representation(jax.tree.map(jnp.asarray, variables), spec)
    commit, remarks = manifest.get("commit"), tuple(manifest.get("remarks", ()))
    return LoadedBackbone(
        representation, path, count, manifest["step"], manifest["config"], digest, commit, remarks=remarks
    )


def read_manifest(path: Path) -> dict[str, Any]:
    """Returns the manifest of an export. Raises UserError if it is incomplete or of another format or version."""
    manifest = read_json(path / MANIFEST)
    if isinstance(manifest, dict) and str(manifest.get("format")).startswith(f"{FORMAT} for "):
        raise FileError(f"{path} was written for {manifest.get('made_for')}, which is not read back", fix=ACCEPTED)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FileError(f"{path / MANIFEST} is not a manifest of {FORMAT!r}", fix=ACCEPTED)
    if manifest.get("format_version") != VERSION:
        raise FileError(f"{path} is of format version {manifest.get('format_version')}, this package reads {VERSION}",
                        fix="use the package version in its manifest")  # fmt: skip
    required = {"file", "sha256", "tensors", "model", "preprocessing", "step", "config"}
    if missing := sorted(required - set(manifest)):
        raise FileError(f"{path / MANIFEST} has no {missing[0]!r}", fix="copy the export again")
    if Path(manifest["file"]).name != manifest["file"]:
        raise FileError(f"{path / MANIFEST} names a file outside its directory, {manifest['file']!r}")
    return manifest


def read_run(path: Path) -> LoadedBackbone:
    """Reads the backbone in the newest checkpoint of a run directory."""
    run = RunDirectory(path)
    try:
        config = read_json(run.config)["config"]
        weights = config.get("export", {}).get("weights", "online")
        spec = make_spec(config["model"], **{name: config["views"][name] for name in ("mean", "std", "size")})
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{run.config} is not a run's config ({type(error).__name__}: {error})", fix=ACCEPTED) from None
    template = towers.template(spec["model"])
    has_generator = towers.GENERATOR in template
    step, state = checkpoint.read(run.checkpoints, subtree=(weights, *([towers.GENERATOR] if has_generator else [])))
    variables = {part: state[weights].get(part, {}).get("backbone", {}) for part in towers.COLLECTIONS}
    if has_generator:
        variables[towers.GENERATOR] = state[towers.GENERATOR].get("params", {})
    expected = {".".join(p): (tuple(x.shape), str(x.dtype)) for p, x in flatten(template).items()}
    actual = {".".join(p): x for p, x in flatten(variables).items()}
    check_match(actual, expected, f"checkpoint {run.checkpoints / str(step)}")
    starts = read_record(run)["starts"]
    commit = starts[-1].get("commit") if starts else None
    representation = Representation(jax.tree.map(jnp.asarray, unflatten(flatten(variables), template)), spec)
    return LoadedBackbone(representation, path, len(expected), step, config, None, commit)


READERS = ((is_export, read_export), (is_export_file, read_export_file), (is_run, read_run))
