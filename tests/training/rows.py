"""Every method of configs/ made small: seconds of embedded pixels, a network of a few thousand weights."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast.core import division
from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data.readers import Batch
from mi_contrast.interchange.export import write_export
from mi_contrast.models import towers
from mi_contrast.models.representation import from_tower
from mi_contrast.models.towers import calibrate_statistics
from mi_contrast.training import assemble, loop
from mi_contrast.training.candidates import Tables, refresh_clusters
from mi_contrast.training.parts import init_state
from mi_contrast.training.state import placement
from mi_contrast.training.step import make_step
from tests.training import small as small_run

ROOT = Path(__file__).parents[2]
ALL = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
NETWORKS: dict[str, dict[str, Any]] = {"": {}, "vit": dict(backbone="vit_tiny", depth=1, heads=2, patch=8)}
EXAMPLES, HELD, BATCH = 64, 4, 16


@functools.cache
def generator() -> tuple[tempfile.TemporaryDirectory, str]:
    """An export whose networks' images are divided by a generator at random, for methods that start from one."""
    config = to_plain_data(load_config("configs/learn_views.py:digits")[0])
    config["model"] |= dict(width=8)
    split = division.parse(config["model"]["split"])
    variables = towers.build(config["model"]).init(jax.random.key(0), (32, 32, 3))
    views = {name: config["views"][name] for name in ("mean", "std", "size")}
    params = jax.tree.map(lambda x: 3 * x, split.generator.init(jax.random.key(5)))
    made = from_tower(variables, config["model"], **views, generator=params)
    folder = tempfile.TemporaryDirectory()
    write_export(Path(folder.name) / "export", made, config=config, commit=None)
    return folder, f"{folder.name}/export"


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The run with a batch of 16, width 8, queues of 40 rows, 20 draws and 8 clusters."""
    config["data"] |= dict(batch=BATCH, options={"size": 32, "length": 2})
    config["model"] |= dict(width=8)
    if isinstance(config["model"]["split"], dict) and config["generator"]["learn"] is None:
        config["generator"]["start_from"] = generator()[1]
    for field in ("head", "predictor"):
        if (config["model"].get(field) or {}).get("hidden"):
            config["model"][field]["hidden"] = 16
    for pool in config["method"]["pools"].values():
        if "size" in pool:
            pool["size"] = 40
        if pool.get("clusters"):
            pool["clusters"] |= dict(number=8)
    for term in config["method"]["terms"]:
        for support in (term["support"], term["support"].get("of", {})):
            if "k" in support:
                support["k"] = 20
    return config


def small(name: str) -> dict[str, Any]:
    """configs/<name>.py:digits, shrunk; of '<name>:vit' the backbone is a transformer of one block."""
    name, _, network = name.partition(":")
    config = shrink(to_plain_data(load_config(f"configs/{name}.py:digits")[0]))
    config["model"] |= NETWORKS[network]
    if network == "vit" and "jigsaw" in config["views"]:
        config["views"]["jigsaw"] |= dict(patch=8)  # pixels a side, which a transformer must be able to cut
    return config


def without_head_norm(config: dict[str, Any]) -> dict[str, Any]:
    """The config with a head that does not normalise over the batch."""
    config["model"]["head"] = {"kind": "mlp", **{name: config["model"]["head"][name] for name in ("hidden", "dim")}}
    return config


def whole(name: str) -> dict[str, Any]:
    """`small` as a whole run of six steps over embedded digits, its judges shrunk too."""
    config = small(name)
    config["data"]["dir"] = str(small_run.DATA)
    config["eval"] |= dict(every=6, pairs=16, knn_bank=64)
    config["checkpoint"]["every"], config["steps"] = 100, 6
    config["log"] |= dict(every=1, tensorboard=False)
    return config


def batch(seed: int) -> Batch:
    """Random pixels of 16 of the examples that are trained on."""
    draws = np.random.default_rng(seed)
    sources = draws.integers(0, 256, (BATCH, 2, 32, 32, 3), dtype=np.uint8)
    index = np.stack([draws.permutation(EXAMPLES - HELD)[:BATCH] for _ in range(2)], axis=1).astype(np.int32)
    return Batch(jnp.asarray(sources), jnp.asarray(index))


def begin(config: dict[str, Any]) -> tuple[Any, Any, Tables]:
    """The parts, the first state with its first clusterings, and tables of 64 examples of ten classes."""
    train_mask = np.arange(EXAMPLES) < EXAMPLES - HELD
    parts = assemble.make_parts(assemble.check(config), 10, make_mesh(), train_mask)
    images = jnp.asarray(np.random.default_rng(9).normal(size=(BATCH, 32, 32, 3)), jnp.float32)
    state = jax.jit(lambda x: init_state(parts, x, calibrate_statistics))(images)
    state = loop.place(state, placement(parts.method, parts.mesh))
    state = replace(state, carried=refresh_clusters(parts.method, state.pools, state.carried, 0, parts.mesh))
    examples = jnp.arange(EXAMPLES, dtype=jnp.int32)
    return parts, state, Tables(examples % 10, examples)


def train(config: dict[str, Any], steps: int) -> tuple[Any, Any, list[dict[str, float]]]:
    """The parts, the state after so many steps, and each step's scalars."""
    parts, state, tables = begin(config)
    step, scalars = make_step(parts), []
    for at in range(steps):
        state, found = step(state, batch(at), tables)
        scalars.append({name: float(value) for name, value in found.items()})
    return parts, state, scalars
