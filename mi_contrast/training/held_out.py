"""The judge of a run in progress: mutual information, kNN and probe on a twentieth of the training split.

No step sees that twentieth, and no figure here is taken on the test split. Everything is fixed: the pairs, their
views' keys, the bank and the queries, so that two readings differ by the network alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.core import rngs as random
from mi_contrast.core import schedules
from mi_contrast.core.division import Division
from mi_contrast.core.schedules import Progress
from mi_contrast.data.pairing import make_distinct_pairs
from mi_contrast.data.sets import ImageSet
from mi_contrast.models.representation import Representation, preprocess
from mi_contrast.readout import geometry
from mi_contrast.readout.accuracy import top1
from mi_contrast.readout.knn import knn
from mi_contrast.training import probe as probes
from mi_contrast.training.state import State
from mi_contrast.training.step import Parts, encode, settled
from mi_contrast.views import policies

CHUNK = 128  # pairs a forward pass
Measure = Callable[[State], dict[str, float]]


def make_information(parts: Parts, images: ImageSet, held: np.ndarray, shared: tuple[str, ...], pairs: int) -> Measure:
    """Measures mi_nats, mi_ceiling, alignment, uniformity and effective_rank of the online network.

    mi_nats is InfoNCE on `pairs` held-out pairs of distinct examples, every pair's negatives the other pairs' second
    views: the online network in eval mode on both sides, the first term's temperature, at most log(pairs). alignment
    and uniformity are those pairs' embeddings', effective_rank the backbone's features'.
    """
    one, other = parts.row.judged
    index = make_distinct_pairs(images, held, pairs, shared, seed=0)
    key = random.stream_rng(jax.random.key(0), "held_out")

    @jax.jit
    def embed(
        online: Any, generator: Any, sources: jax.Array, positions: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        views = parts.views(sources, jax.vmap(lambda at: jax.random.fold_in(key, at))(positions), generator)
        anchors = encode(parts, online, one, views[one], train=False)
        positives = encode(parts, online, other, views[other], train=False)
        return anchors.embedding, positives.embedding, anchors.features

    @jax.jit
    def read(
        anchors: jax.Array, positives: jax.Array, features: jax.Array, temperature: jax.Array
    ) -> dict[str, jax.Array]:
        scores = (anchors @ positives.T) / temperature
        values = mi.info_nce(jnp.diagonal(scores), scores, where=~jnp.eye(pairs, dtype=bool))
        return {
            "mi_nats": jnp.mean(values),
            "mi_ceiling": jnp.log(jnp.float32(pairs)),
            "alignment": geometry.alignment(anchors, positives),
            "uniformity": geometry.uniformity(anchors),
            "effective_rank": geometry.effective_rank(features),
        }

    def measure(state: State) -> dict[str, float]:
        found, generator = [], state.generator.get("params")
        for start in range(0, pairs, CHUNK):
            at = np.minimum(np.arange(start, start + min(CHUNK, pairs)), pairs - 1)
            sources = np.stack([images.images(column) for column in index[at].T], axis=1)
            found.append([np.asarray(x) for x in embed(state.online, generator, sources, at)])
        whole = [np.concatenate(x)[:pairs] for x in zip(*found, strict=True)]
        first, t = settled(parts, state).row.terms[0], Progress(state.step, parts.total_steps)
        read_out = read(*whole, schedules.value(first.temperature, t))
        return {name: float(value) for name, value in read_out.items()}

    return measure


def make_inversion(parts: Parts, images: ImageSet, held: np.ndarray) -> Measure:
    """Measures inverse_error: max |x - g^-1(g(x))| over up to 128 held-out images x, normalised, of a flow g."""
    split, views = parts.tower.split, parts.views
    assert split is not None and split.generator is not None
    flow = split.generator
    plain = policies.plain(jnp.asarray(images.images(held[:CHUNK])), views.size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    seen = preprocess(plain, Division(split.space), views.mean, views.std)

    @jax.jit
    def error(params: Any) -> jax.Array:
        return jnp.max(jnp.abs(flow.inverse(params, flow.forward(params, seen)) - seen))

    return lambda state: {"inverse_error": float(error(state.generator["params"]))}


def make_accuracy(
    parts: Parts,
    images: ImageSet,
    kept: np.ndarray,
    held: np.ndarray,
    label: str,
    represent: Callable[[State], Representation],
    *,
    k: int,
    bank_size: int,
) -> Measure:
    """Measures knn_top1 and probe_top1 through `Representation.encode`.

    kNN: cosine, weights e^{cos / .07} over k neighbours; the bank is the kept part of the training split, a fixed
    `bank_size` of it at most; the queries are the held-out part. The probe is the state's, scored on the queries.
    `represent` makes a Representation of the state's online network.
    """
    bank_index = kept
    if len(kept) > bank_size:
        bank_index = np.sort(np.random.default_rng(0).choice(kept, bank_size, replace=False))
    labels, classes = images.labels[label], len(images.classes[label])

    def encode(representation: Representation, index: np.ndarray, chunk: int = 1024) -> jax.Array:
        parts = [representation.encode(images.images(index[i : i + chunk])) for i in range(0, len(index), chunk)]
        return jnp.concatenate(parts)

    def measure(state: State) -> dict[str, float]:
        representation = represent(state)
        bank, queries = encode(representation, bank_index), encode(representation, held)
        truth = jnp.asarray(labels[held])
        near = knn(queries, bank, jnp.asarray(labels[bank_index]), k=min(k, len(bank_index)), classes=classes)
        guesses = probes.logits(state.probe["params"], queries)
        return {"knn_top1": float(top1(near, truth)), "probe_top1": float(top1(guesses, truth))}

    return measure
