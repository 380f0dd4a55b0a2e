"""The untrained twin: the same network before training, to know what training gained."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from mi_contrast.core.errors import UserError
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.pairing import split_held_out
from mi_contrast.data.sets import ImageSet
from mi_contrast.interchange import Loaded
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation


def untrained(backbone: Loaded, images: ImageSet) -> Loaded:
    """The backbone at step 0: weights from the seed of its training, batch statistics of one pass over a batch.

    With the statistics that a network is born with (0 and 1) it would be scored far below what it is worth. A generator
    that learned is the one it was at step 0; one that was frozen stays.

    Args:
      backbone: with the config of its training.
      images: the fitting split at the backbone's size. The batch is its first images that are not held out: on the
        split of its training, those that the run itself took.
    Raises UserError where the backbone doesn't tell its model, seed and batch.
    """
    try:
        model, seed, batch = (backbone.config[name] for name in ("model", "seed", "data"))
        batch = batch["batch"]
    except KeyError as error:
        raise UserError(f"{backbone.source} has no {error} in its config", fix="leave out --untrained") from None
    spec = backbone.representation.spec
    tower = towers.build(model)
    key = stream_rng(jax.random.key(seed), "init")
    born = tower.init(key, image_shape=(spec["size"], spec["size"], 3))
    kept, _ = split_held_out(images)
    beside = {name: v for name, v in backbone.representation.variables.items() if name not in towers.COLLECTIONS}
    if tower.split is not None and tower.split.generator is not None and backbone.config["generator"]["learn"]:
        beside = {towers.GENERATOR: tower.split.generator.init(stream_rng(jax.random.key(seed), "generator"))}
    seen = Representation(beside, spec).prepare(jnp.asarray(images.images(kept[:batch])))
    variables = towers.calibrate_statistics(tower, born, seen)
    bare = {name: variables[name]["backbone"] for name in towers.COLLECTIONS}
    return replace(backbone, representation=Representation(bare | beside, spec), step=0)
