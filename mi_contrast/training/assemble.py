"""From a config to the parts of a job, every mistake found before anything is made or written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mi_contrast.core import legacy
from mi_contrast.core.checkpoint import flatten
from mi_contrast.core.config import plain
from mi_contrast.core.errors import UserError, nearest, unknown
from mi_contrast.core.mesh import make_mesh, replicated
from mi_contrast.data import sets
from mi_contrast.data.pairing import make_pairing, split_held_out
from mi_contrast.data.readers import ORDERS, RESIDENT_BYTES, Reader, make_reader
from mi_contrast.methods import recipes, rows
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, from_tower, preprocess
from mi_contrast.models.towers import calibrate_statistics
from mi_contrast.pools import bank as banks
from mi_contrast.training import adaptive, generators, optimiser, probe
from mi_contrast.training.held_out import Measure, make_accuracy, make_information, make_inversion
from mi_contrast.training.microbatches import divide
from mi_contrast.training.pools import Tables
from mi_contrast.training.state import State
from mi_contrast.training.step import Parts, encode_plain, first_state, of_head
from mi_contrast.views import policies

OWN_RULES = ("method", "views", "model", "data.options")  # sections whose rooms check their fields themselves


@dataclass(frozen=True)
class Job:
    """A run ready to start. kept, held: the hold-out's two sides; represent: makes a representation of a state's
    'online' or 'target' network.
    """

    parts: Parts
    images: sets.ImageSet
    kept: np.ndarray
    held: np.ndarray
    tables: Tables
    judges: tuple[Measure, ...]
    represent: Callable[..., Representation]
    batch_size: int
    shared: tuple[str, ...]
    partner: str | None
    resident: bool | None
    order: str

    def open(self) -> Reader:
        """The reader of the kept part of the training split."""
        return make_reader(
            self.images,
            self.kept,
            batch_size=self.batch_size,
            seed=self.parts.seed,
            shared=self.shared,
            partner=self.partner,
            mesh=self.parts.mesh,
            resident=self.resident,
            order=self.order,
        )

    def first_state(self) -> State:
        """The state before the first step; batch statistics from the evaluation view of the first examples."""
        images = jnp.asarray(self.images.images(self.kept[: self.batch_size]))
        return jax.jit(lambda x: first_state(self.parts, self.evaluation_view(x), calibrate_statistics))(images)

    def evaluation_view(self, images: jax.Array) -> jax.Array:
        """Images uint8 [B, H, W, 3] as the first representation sees them: f32, of the policy's size, colours and norm,
        divided.
        """
        views = self.parts.views
        plain = policies.plain(images, views.size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        return preprocess(plain, self.parts.tower.split, views.mean, views.std, self.parts.generator)

    def fill(self, state: State) -> State:
        """The first state with those banks written that start from a forward pass, over evaluation views."""
        row, mesh = self.parts.row, self.parts.mesh
        pools = dict(state.pools)
        for name in row.of_kind("bank"):
            if row.pools[name]["start"] == "forward":
                pools[name] = self._filled(pools[name], state.online, row.pools[name], mesh)
        return replace(state, pools=pools)

    def _filled(self, bank: banks.Bank, network: dict[str, Any], pool: Mapping[str, Any], mesh: Mesh) -> banks.Bank:
        view, head = pool["takes"], pool["head"]

        def write(bank: banks.Bank, network: dict[str, Any], images: jax.Array, at: jax.Array) -> banks.Bank:
            made = encode_plain(self.parts, network, self.evaluation_view(images), view)
            return banks.update(bank, at, of_head(head, {view: made})[view], 0.0, mesh)

        written = jax.jit(write, donate_argnums=0)
        for start in range(0, len(self.kept), self.batch_size):
            at = self.kept[start : start + self.batch_size]
            at = np.pad(at, (0, self.batch_size - len(at)), mode="edge").astype(np.int32)
            bank = written(bank, network, jnp.asarray(self.images.images(at)), jnp.asarray(at))
        return bank


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain data, its fields compared with those every recipe has.

    Raises UserError on an unknown or missing field, a wrong kind of value, or a number out of range.
    """
    config: dict[str, Any] = legacy.complete(plain(given))
    known = plain(recipes.recipe("digits").config)
    compare(config, known, "config")
    for name, low in (("steps", 1), ("data.batch", 2), ("eval.every", 1), ("eval.pairs", 2), ("eval.knn_k", 1),
                      ("eval.knn_bank", 1), ("checkpoint.every", 1), ("checkpoint.keep", 1), ("log.every", 1),
                      ("optim.patience", 1), ("seed", 0)):  # fmt: skip
        value = flatten(config)[name]
        if value < low:
            raise UserError(f"config.{name} is {value}", fix=f"give {low} or more")
    if config["data"]["order"] not in ORDERS:
        raise unknown("config.data.order", config["data"]["order"], ORDERS)
    if config["export"]["weights"] not in ("online", "target"):
        raise unknown("config.export.weights", config["export"]["weights"], ("online", "target"))
    return config


def compare(given: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    """UserError on the first field of `given` that `known` lacks, or the reverse, or whose kind is another."""
    inside = where.removeprefix("config").lstrip(".")
    if inside in OWN_RULES:
        return
    for name in given:
        if name not in known:
            raise UserError(
                f"no field {name!r} in {where}", nearest=nearest(name, known), fix=f"fields: {', '.join(sorted(known))}"
            )
    for name, example in known.items():
        if name not in given:
            raise UserError(f"{where} has no field {name!r}", fix="begin from mi_contrast.methods.recipes.recipe")
        value, at = given[name], f"{where}.{name}"
        schedule = isinstance(example, Mapping) and "kind" in example
        if schedule or example is None or (value is None and name in ("label", "clip", "dir", "size", "resident")):
            continue
        if isinstance(example, Mapping):
            if not isinstance(value, Mapping):
                raise UserError(f"{at} is {value!r}", fix="it is a section with fields of its own")
            compare(value, example, at)
            continue
        numbers = (int, float) if isinstance(example, float) else (type(example),)
        if not isinstance(value, numbers) or isinstance(value, bool) is not isinstance(example, bool):
            raise UserError(f"{at} is {value!r}", fix=f"give a {type(example).__name__} such as {example!r}")


def make_parts(
    config: Mapping[str, Any], classes: int, mesh: Mesh, kept: np.ndarray | None = None, begun: bool = False
) -> Parts:
    """What a step of this config is made of, its data not looked at: `classes` of the label, 0 where there is none;
    `kept` bool [N], the examples that are trained on, 1,024 where unknown.

    Raises UserError on a mistake in the config.
    """
    views = policies.build(config["views"], mesh)
    row = rows.build(config["method"], views.sources)
    _fit_together(row, config)
    tower = towers.build(config["model"])
    generator = generators.first(config, tower.split, begun)
    learning = generators.learning(config, tower.split, classes, row, len(kept) if kept is not None else 1024)
    batch, steps = config["data"]["batch"], config["steps"]
    groups = config["model"]["norm"].get("groups", 1)
    for count, what in ((mesh.size, "devices"), (groups, "groups (model.norm.groups)")):
        if batch % count:
            raise UserError(f"config.data.batch is {batch}, not a multiple of the {count} {what}")
    return Parts(
        row=row,
        views=views,
        tower=tower,
        optimiser=optimiser.build(config["optim"], tower.trainable_mask if tower.frozen else None),
        probe=probe.Probe(classes, config["eval"]["probe_lr"]) if classes else None,
        mesh=mesh,
        seed=config["seed"],
        total_steps=steps,
        rate=optimiser.learning_rate(config["optim"], steps),
        batch_norm_groups=groups,
        microbatches=divide(config["optim"]["microbatches"], tower, config["model"]["norm"], batch, mesh.size),
        kept=np.ones(1024, bool) if kept is None else kept,
        generator=generator,
        learning=learning,
    )


def _fit_together(row: rows.Row, config: Mapping[str, Any]) -> None:
    """UserError where the row's views ask of the model what it does not have."""
    model, views = config["model"], config["views"]
    if row.views == "channels" and model.get("split") != views.get("split"):
        said = f"config.model.split is {model.get('split')!r}, the views are split by {views.get('split')!r}"
        raise UserError(said, fix=f"set model.split={views.get('split')!r}")
    if row.views != "channels" and model.get("split") is not None:
        raise UserError(f"config.model.split is {model['split']!r}, but the row's views are {row.views}",
                        fix="set model.split=None, or views='channels'")  # fmt: skip
    if row.twinned and model.get("twin") is None:
        raise UserError("config.model has no second head for the row's twins", fix="set model.twin=dict(kind='mlp')")
    if row.twinned != (config["data"]["partner"] is not None):
        said = "terms of the second head" if row.twinned else "no terms of the second head"
        raise UserError(f"config.data.partner is {config['data']['partner']!r}, and the row has {said}",
                        fix="add methods.two_branches.with_twins and a partner such as 'twin', or neither")  # fmt: skip
    if row.views == "jigsaw" and model.get("jigsaw") is None:
        raise UserError("config.model has no head for the row's jigsaw", fix="set model.jigsaw=dict(dim=128)")
    if config["export"]["weights"] == "target" and row.target != "ema":
        raise UserError(f"config.export.weights is 'target', but the row's target is {row.target!r}",
                        fix="set export.weights='online'")  # fmt: skip


def build(config: Mapping[str, Any], begun: bool = False, known: Collection[str] | None = None) -> Job:
    """Everything a run needs but its state; `begun` where a checkpoint has that, `known` what of the data was broken
    when it began. UserError on any mistake in the config or its data.
    """
    config, mesh = check(config), make_mesh()
    unread = make_parts(config, 0, mesh, begun=True)  # mistakes in the config are found before its data are read
    data, settings = config["data"], config["eval"]
    where = {"data_dir": data["dir"], "size": data["size"], "options": data["options"], "broken": data["broken"]}
    images = sets.load(data["name"], data["split"], known_broken=known, **where)
    if data["resident"] is not False and len(images) * int(np.prod(images.image_shape)) <= RESIDENT_BYTES:
        images = sets.cache_in_memory(images)  # read again at every measurement
    unread.views.check_image_size(*images.image_shape[:2])
    kept, held = split_held_out(images)
    if data["partner"] is not None:
        make_pairing(images, kept, data["shared"], data["partner"])  # a mistake is found now
    label = data["label"] or next(iter(images.labels), None)
    if label is not None and label not in images.labels:
        raise unknown(f"label of {images.name}", label, images.labels)
    followed = [on for on, *_ in adaptive.paces(unread.row).values()]
    if label is None and "knn_top1" in followed:
        raise UserError(f"a schedule is adaptive on knn_top1, and {images.name} has no labels", fix="take mi_nats")
    if label is None and unread.learning is not None and unread.learning.classifier is not None:
        asked = config["generator"]["learn"]["objective"]
        raise UserError(f"views are learned {asked}, and {images.name} has no labels", fix="learn them 'unsupervised'")
    trained_on = np.zeros(len(images), bool)
    trained_on[kept] = True
    parts = make_parts(config, len(images.classes[label]) if label else 0, mesh, trained_on, begun)
    views = parts.views

    def represent(state: State, weights: str = "online") -> Representation:
        network, generator = getattr(state, weights), state.generator.get("params")
        return from_tower(
            network, config["model"], mean=views.mean, std=views.std, size=views.size, generator=generator
        )

    judges: list[Callable[[State], dict[str, float]]] = [
        make_information(parts, images, held, data["shared"], settings["pairs"])
    ]
    learns = parts.tower.split.generator if parts.learning is not None and parts.tower.split is not None else None
    if learns is not None and learns.flow != "free":
        judges.append(make_inversion(parts, images, held))
    if label:
        bank = dict(k=settings["knn_k"], bank_size=settings["knn_bank"])
        judges.append(make_accuracy(parts, images, kept, held, label, represent, **bank))
    labels = images.labels[label] if label else np.full(len(images), -1)
    whose = np.arange(len(images)) if images.groups is None else images.groups
    told = trained_on if parts.learning is None else trained_on & parts.learning.labelled
    by_labels = parts.learning is not None and parts.learning.classifier is not None
    if by_labels and not (np.asarray(labels)[told] >= 0).any():
        raise UserError(f"no example of {images.name} {data['split']} that may be looked at has a label",
                        fix="raise generator.learn.labelled, or name a split with labels")  # fmt: skip
    tables = Tables(jnp.asarray(labels, jnp.int32), jnp.asarray(whose, jnp.int32))
    tables = jax.device_put(tables, replicated(mesh))
    return Job(
        parts, images, kept, held, tables, tuple(judges), represent, data["batch"], data["shared"], data["partner"],
        data["resident"], data["order"],
    )  # fmt: skip
