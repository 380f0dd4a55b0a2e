"""Measures of a run in progress, on the twentieth of the training split that is held out of training.

No figure here is taken on the test split. Pairs, their views, the kNN bank and the queries are fixed, so that two
readings differ by the network alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast import estimators as mi
from mi_contrast.core import processes, schedules
from mi_contrast.core import rngs as streams
from mi_contrast.core.division import Division
from mi_contrast.core.mesh import gather_rows, local_mesh, share_rows
from mi_contrast.core.schedules import Progress
from mi_contrast.data.pairing import make_distinct_pairs
from mi_contrast.data.sets import ImageSet
from mi_contrast.models.representation import Representation, preprocess
from mi_contrast.readout import geometry
from mi_contrast.readout.accuracy import effective_count, top1
from mi_contrast.readout.knn import knn
from mi_contrast.training import adaptive
from mi_contrast.training.encoding import find_network
from mi_contrast.training.parts import Parts
from mi_contrast.training.probe import compute_logits
from mi_contrast.training.similarities import count_similarities, find_ring
from mi_contrast.training.state import State
from mi_contrast.views import policies

CHUNK = 128  # pairs in a forward pass


class Measurement(NamedTuple):
    """The numbers of a measure, which are logged, and details of them for the page of the run, as plain data."""

    numbers: dict[str, float]
    details: dict[str, Any]


Measure = Callable[[State], Measurement]


def make_information(
    parts: Parts, images: ImageSet, held_out_ids: np.ndarray, shared: tuple[str, ...], pairs: int, label: str | None
) -> Measure:
    """Returns a measure of mi_nats, mi_ceiling, alignment, uniformity and effective_rank of the online network.

    mi_nats is InfoNCE on `pairs` held-out pairs of distinct examples. The negatives of a pair are the second views of
    the other pairs. Both sides are encoded by the online network in eval mode, the temperature is the first term's, and
    the value is at most log(pairs). alignment and uniformity are of the embeddings of those pairs, effective_rank of
    the backbone's features. The details count the similarities of the pairs, and say where the ring lies in them.
    """
    names = parts.method.measured_views
    index = make_distinct_pairs(images, held_out_ids, pairs, shared, seed=0)
    rng = streams.stream_rng(jax.random.key(0), "held_out")
    labels = np.full(len(images), -1) if label is None else np.asarray(images.labels[label])

    make_views = replace(parts.augmentation, mesh=local_mesh())

    @jax.jit
    def embed(online: Any, generator: Any, sources: Array, positions: Array) -> tuple[Array, Array, Array]:
        views = make_views(sources, jax.vmap(lambda at: jax.random.fold_in(rng, at))(positions), generator)
        first, second = (
            parts.tower.encode(online, views[name], train=False, view=find_network(parts.tower, name)) for name in names
        )
        return first.embedding, second.embedding, first.features

    @jax.jit
    def compare(anchors: Array, positives: Array, features: Array, temperature: Array) -> dict[str, Array]:
        scores = (anchors @ positives.T) / temperature
        values = mi.info_nce(jnp.diagonal(scores), scores, where=~jnp.eye(pairs, dtype=bool))
        return {
            "mi_nats": jnp.mean(values),
            "mi_ceiling": jnp.log(jnp.float32(pairs)),
            "alignment": geometry.alignment(anchors, positives),
            "uniformity": geometry.uniformity(anchors),
            "effective_rank": geometry.effective_rank(features),
        }

    def measure(state: State) -> Measurement:
        chunks, generator = [], state.generator.get("params")
        for start in range(0, pairs, CHUNK):
            positions = np.minimum(np.arange(start, start + min(CHUNK, pairs)), pairs - 1)
            sources = np.stack([images.images(column) for column in index[positions].T], axis=1)
            chunks.append([np.asarray(x) for x in embed(state.online, generator, sources, positions)])
        embeddings = [np.concatenate(x)[:pairs] for x in zip(*chunks, strict=True)]
        term, t = adaptive.resolve(parts.method, state.carried).terms[0], Progress(state.step, parts.total_steps)
        numbers = compare(*embeddings, schedules.value(term.temperature, t))
        cosines = embeddings[0] @ embeddings[1].T
        details = {
            "similarities": count_similarities(cosines, labels[index[:, 0]], labels[index[:, -1]]),
            "ring": find_ring(cosines, term.support, t),
        }
        return Measurement({name: float(value) for name, value in numbers.items()}, details)

    return measure


def make_inversion(parts: Parts, images: ImageSet, held_out_ids: np.ndarray) -> Measure:
    """Returns a measure of inverse_error: max |x - g^-1(g(x))| over up to 128 held-out images x, of a flow g."""
    split, views = parts.tower.split, parts.augmentation
    assert split is not None and split.generator is not None
    flow = split.generator
    plain = policies.plain(
        jnp.asarray(images.images(held_out_ids[:CHUNK])), views.size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    )
    normalised = preprocess(plain, Division(split.space), views.mean, views.std)

    @jax.jit
    def compute_error(params: Any) -> Float[Array, ""]:
        return jnp.max(jnp.abs(flow.inverse(params, flow.forward(params, normalised)) - normalised))

    return lambda state: Measurement({"inverse_error": float(compute_error(state.generator["params"]))}, {})


def make_accuracy(
    parts: Parts,
    images: ImageSet,
    train_ids: np.ndarray,
    held_out_ids: np.ndarray,
    label: str,
    represent: Callable[[State], Representation],
    *,
    k: int,
    bank_size: int,
) -> Measure:
    """Returns a measure of knn_top1 and probe_top1, both through `Representation.encode`.

    kNN weighs k neighbours by e^{cos / .07}. Its bank is the examples that are trained on, or a fixed sample of
    `bank_size` of them; the queries are those held out. The probe is the state's and is scored on the same queries.
    The details count the queries of each class and how many of them each classifier gets right.

    Args:
      train_ids, held_out_ids: int [n], the two parts.
      represent: makes the representation of a state's online network.
    """
    bank_index = train_ids
    if len(train_ids) > bank_size:
        bank_index = np.sort(np.random.default_rng(0).choice(train_ids, bank_size, replace=False))
    labels, classes = images.labels[label], len(images.classes[label])

    def encode(representation: Representation, index: np.ndarray, chunk: int = 1024) -> Array:
        own = index[share_rows(len(index))]
        chunks = [representation.encode(images.images(own[i : i + chunk])) for i in range(0, len(own), chunk)]
        features = jnp.concatenate(chunks)
        return features if processes.count() == 1 else jnp.asarray(gather_rows(np.asarray(features), len(index)))

    def measure(state: State) -> Measurement:
        representation = represent(state)
        bank, queries = encode(representation, bank_index), encode(representation, held_out_ids)
        truth = jnp.asarray(labels[held_out_ids])
        near = knn(queries, bank, jnp.asarray(labels[bank_index]), k=min(k, len(bank_index)), classes=classes)
        guesses = compute_logits(state.probe["params"], queries)
        numbers = {"knn_top1": float(top1(near, truth)), "probe_top1": float(top1(guesses, truth))}
        groups = np.arange(len(truth)) if images.groups is None else images.groups[held_out_ids]
        scores = {"knn_top1": np.asarray(near), "probe_top1": np.asarray(guesses)}
        return Measurement(numbers, count_hits(scores, np.asarray(truth), groups, classes))

    return measure


def count_hits(
    scores: Mapping[str, Float[np.ndarray, "Q C"]], truth: Int[np.ndarray, " Q"], groups: np.ndarray, classes: int
) -> dict[str, Any]:
    """Returns how many queries each class has, and of each classifier its hits by class.

    Args:
      scores: of each classifier, by the name of its metric.
      truth: the classes of the queries.
      groups: int [Q], the queries of one group show the same thing.
    Returns:
      'queries': a count for each class; 'hits': for each classifier a count for each class; 'independent': for each
      classifier the number of independent queries that would be as informative (`accuracy.effective_count`).
    """
    hits = {name: np.argmax(score, axis=1) == truth for name, score in scores.items()}
    return {
        "queries": np.bincount(truth, minlength=classes).tolist(),
        "hits": {name: np.bincount(truth[hit], minlength=classes).tolist() for name, hit in hits.items()},
        "independent": {name: effective_count(hit, groups) for name, hit in hits.items()},
    }
