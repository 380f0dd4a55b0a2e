"""load(path): the representation in a run directory, an export or another trainer's file, every tensor matched."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from mi_contrast.core import checkpoint
from mi_contrast.core.errors import UserError, nearest
from mi_contrast.core.layout import RunDirectory, read_json, read_record
from mi_contrast.interchange.export import FORMAT, MANIFEST, VERSION
from mi_contrast.interchange.foreign import SUFFIXES, read_foreign, read_safetensors, read_tensors
from mi_contrast.interchange.loaded import Loaded
from mi_contrast.interchange.names import check_finite, check_match, from_foreign, leaves, nested
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, make_spec

logger = logging.getLogger(__name__)


def load(path: str | Path, *, preprocessing: Mapping[str, Any] | None = None) -> Representation:
    """The representation in a run directory (its newest checkpoint), an export, or a file of weights of another
    trainer. See `open_source`.
    """
    return open_source(path, preprocessing=preprocessing).representation


def open_source(path: str | Path, *, preprocessing: Mapping[str, Any] | None = None) -> Loaded:
    """Loads a representation, and tells what was loaded from where.

    Args:
      path: a run directory (weights of its newest checkpoint, the online ones unless its config's `export.weights` is
        'target'), an export directory, the file of weights inside one (its sum verified), or the state dict of a
        ResNet or a ViT as another trainer saved it: .safetensors, .pth, .pt, .ckpt, .pth.tar (see `families` for whose;
        no code in it is ever run).
      preprocessing: of another trainer's file only: any of mean, std and size, where they aren't ImageNet's and 224.
    Raises UserError where the path is none of these, the sum differs, or a tensor is missing, unexpected, of
    another shape or dtype, or not finite; the message names it, the nearest, and how many of how many were loaded.
    """
    path = Path(path)
    for recognise, read in READERS:
        if recognise(path):
            if preprocessing:
                raise UserError(f"{path} tells its own preprocessing", fix="leave mean, std and size out")
            loaded = read(path)
            break
    else:
        if not path.exists():
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(f"{path} does not exist", nearest=nearest(path.name, beside), fix=TAKES)
        if not path.is_file() or path.suffix not in (".safetensors", *SUFFIXES):
            raise UserError(f"{path} is neither a run directory nor an export nor a file of weights", fix=TAKES)
        loaded = read_foreign(path, preprocessing)
    check_finite(loaded.representation.variables, str(path))
    logger.info("%s", loaded)
    return loaded


TAKES = (
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


def read_export_file(path: Path) -> Loaded:
    """Reads an export from the path of its file of weights; the manifest beside it says what they are."""
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
    tensors = read_safetensors(data, file) if file.suffix == ".safetensors" else read_tensors(file)[0]
    listed = {n: (tuple(t["shape"]), t["dtype"]) for n, t in manifest["tensors"].items()}
    check_match(tensors, listed, f"{file} against its manifest")
    model, pixels = manifest["model"], manifest["preprocessing"]
    variables, count = from_foreign(tensors, towers.template(model), str(file))
    spec = make_spec(model, mean=pixels["mean"], std=pixels["std"], size=pixels["size"])
    representation = Representation(jax.tree.map(jnp.asarray, variables), spec)
    commit, remarks = manifest.get("commit"), tuple(manifest.get("remarks", ()))
    return Loaded(representation, path, count, manifest["step"], manifest["config"], digest, commit, remarks=remarks)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of an export directory. UserError where it is broken, or of another format or version."""
    manifest = read_json(path / MANIFEST)
    if isinstance(manifest, dict) and str(manifest.get("format")).startswith(f"{FORMAT} for "):
        raise UserError(f"{path} was written for {manifest.get('made_for')}, which is not read back", fix=TAKES)
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
        spec = make_spec(config["model"], **{name: config["views"][name] for name in ("mean", "std", "size")})
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{run.config} is not a run's config ({type(error).__name__}: {error})", fix=TAKES) from None
    template = towers.template(spec["model"])
    divides = towers.GENERATOR in template
    step, state = checkpoint.read(run.checkpoints, subtree=(weights, *([towers.GENERATOR] if divides else [])))
    variables = {part: state[weights].get(part, {}).get("backbone", {}) for part in towers.COLLECTIONS}
    if divides:
        variables[towers.GENERATOR] = state[towers.GENERATOR].get("params", {})
    wanted = {".".join(p): (tuple(x.shape), str(x.dtype)) for p, x in leaves(template).items()}
    found = {".".join(p): x for p, x in leaves(variables).items()}
    check_match(found, wanted, f"checkpoint {run.checkpoints / str(step)}")
    starts = read_record(run)["starts"]
    commit = starts[-1].get("commit") if starts else None
    representation = Representation(jax.tree.map(jnp.asarray, nested(leaves(variables), template)), spec)
    return Loaded(representation, path, len(wanted), step, config, None, commit)


READERS = ((is_export, read_export), (is_export_file, read_export_file), (is_run, read_run))
