"""Makes the untrained twin of a backbone: the same network before training, to measure what training gained."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp

from mi_contrast.core.errors import UserError
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.pairing import split_by_config
from mi_contrast.data.sets import ImageSet
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation


def make_untrained_twin(backbone: LoadedBackbone, images: ImageSet) -> LoadedBackbone:
    """Returns the backbone at step 0: initial weights by its training's seed, batch statistics of one forward pass.

    With the initial statistics (mean 0, variance 1) the network would score far below what it is worth. If the views
    came from a generator that was trained, the twin has the generator of step 0; a frozen generator is kept.

    Args:
      backbone: includes the config of its training.
      images: the fitting split at the backbone's image size. The statistics come from its first images that are not
        held out. On the backbone's training split the run itself started with the statistics of these images.
    Raises:
      UserError if the backbone's config lacks the model, the seed or the batch size.
    """
    try:
        model, seed, batch = (backbone.config[name] for name in ("model", "seed", "data"))
        batch = batch["batch"]
    except KeyError as error:
        raise UserError(f"{backbone.source} has no {error} in its config", fix="leave out --untrained") from None
    spec = backbone.representation.spec
    tower = towers.build(model)
    initial = tower.init(stream_rng(jax.random.key(seed), "init"), image_shape=(spec["size"], spec["size"], 3))
    training_rows, _ = split_by_config(images, backbone.config)
    generator = {name: v for name, v in backbone.representation.variables.items() if name not in towers.COLLECTIONS}
    if tower.split is not None and tower.split.generator is not None and backbone.config["generator"]["learn"]:
        generator = {towers.GENERATOR: tower.split.generator.init(stream_rng(jax.random.key(seed), "generator"))}
    inputs = Representation(generator, spec).prepare(jnp.asarray(images.images(training_rows[:batch])))
    variables = towers.calibrate_statistics(tower, initial, inputs)
    network = {name: variables[name]["backbone"] for name in towers.COLLECTIONS}
    return replace(backbone, representation=Representation(network | generator, spec), step=0)
