"""From a config to a job that is ready to start. Every mistake is found before anything is made or written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mi_contrast.core import legacy
from mi_contrast.core import rngs as streams
from mi_contrast.core.checkpoint import flatten
from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import UserError, nearest, unknown
from mi_contrast.core.mesh import make_mesh, place, replicated
from mi_contrast.core.paths import is_none
from mi_contrast.data import sets
from mi_contrast.data.crops import CROPS, Crops
from mi_contrast.data.pairing import make_pairing, split_by_config
from mi_contrast.data.readers import ORDERS, RESIDENT_BYTES, Reader, make_reader
from mi_contrast.methods import method as methods
from mi_contrast.methods import recipes
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, from_tower, preprocess
from mi_contrast.models.towers import calibrate_statistics
from mi_contrast.pools import bank as banks
from mi_contrast.training import adaptive, fitting, generators, optimiser, probe
from mi_contrast.training.candidates import Tables
from mi_contrast.training.encoding import Encoder, encode_plain, select_head
from mi_contrast.training.held_out import Measure, make_accuracy, make_information, make_inversion
from mi_contrast.training.microbatches import divide
from mi_contrast.training.parts import Parts, init_state
from mi_contrast.training.state import State
from mi_contrast.views import policies

# Sections that their own packages check: methods, views, models and data.
CHECKED_ELSEWHERE = ("method", "views", "model", "data.options")
OPTIONAL = ("label", "clip", "dir", "size", "resident")  # fields that may be None
LEAST = {
    "steps": 1, "data.batch": 2, "eval.every": 1, "eval.held_out": 2, "eval.pairs": 2, "eval.knn_k": 1,
    "eval.knn_bank": 1, "checkpoint.every": 1, "checkpoint.keep": 1, "log.every": 1, "optim.patience": 1, "seed": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run that is ready to start.

    Attributes:
      images: the training split.
      train_ids, held_out_ids: int [n], the examples that are trained on, and those that are held out.
      tables: what is known of each example.
      judges: the measures of the run in progress.
      represent: makes a representation of a state's 'online' or 'target' network.
      data: the config's section.
      label: the name of the label that the probe learns; None where the data have none.
    """

    parts: Parts
    images: sets.ImageSet
    train_ids: np.ndarray
    held_out_ids: np.ndarray
    tables: Tables
    judges: tuple[Measure, ...]
    represent: Callable[..., Representation]
    data: Mapping[str, Any]
    label: str | None = None

    @property
    def batch_size(self) -> int:
        """The number of examples in a step's batch, over all devices."""
        return int(self.data["batch"])

    def open(self) -> Reader:
        """Returns the reader of the examples that are trained on."""
        return make_reader(
            self.images,
            self.train_ids,
            batch_size=self.batch_size,
            seed=self.parts.seed,
            shared=self.data["shared"],
            partner=self.data["partner"],
            mesh=self.parts.mesh,
            resident=self.data["resident"],
            order=self.data["order"],
            crops=self.crops,
        )

    @property
    def crops(self) -> Crops | None:
        """The random crops that the reader takes from whole images; None if the step takes them from squares."""
        views = self.parts.augmentation
        if self.data["crop"] == "square" or not views.cuts:
            return None

        def draw(rng: jax.Array, height: jax.Array, width: jax.Array) -> dict[str, jax.Array]:
            return views.draw_boxes(streams.stream_rng(rng, "views"), height, width)

        cuts = views.cuts.items()
        return Crops(draw, {name: cut.size for name, cut in cuts}, {name: cut.source for name, cut in cuts})

    def first_state(self) -> State:
        """Returns the state before the first step; its batch statistics are those of the first examples."""
        images = jnp.asarray(self.images.images(self.train_ids[: self.batch_size]))
        return jax.jit(lambda x: init_state(self.parts, self.evaluation_view(x), calibrate_statistics))(images)

    def evaluation_view(self, images: jax.Array) -> jax.Array:
        """Returns images as the first representation sees them: f32, resized, in the policy's colours, normalised.

        Args:
          images: uint8 [B, H, W, 3].
        """
        views = self.parts.augmentation
        plain = policies.plain(images, views.size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        return preprocess(plain, self.parts.tower.split, views.mean, views.std, self.parts.generator)

    def fill_banks(self, state: State) -> State:
        """Returns the first state with the banks that start from a forward pass written, over evaluation views."""
        pools = self.parts.method.stateful_pools
        starts = [name for name, pool in pools.items() if getattr(pool, "start", None) == "forward"]
        return replace(state, pools=state.pools | {name: self._fill_bank(state, name) for name in starts})

    def _fill_bank(self, state: State, name: str) -> banks.Bank:
        parts, view, head = self.parts, str(self.parts.method.pools[name].takes), self.parts.method.heads[name]

        def write(bank: banks.Bank, network: dict[str, Any], images: jax.Array, index: jax.Array) -> banks.Bank:
            encoded = encode_plain(parts.tower, network, self.evaluation_view(images), view)
            return banks.write_rows(bank, select_head({view: encoded}, head)[view], index, 0.0, parts.mesh)

        bank, write = state.pools[name], jax.jit(write, donate_argnums=0)
        for start in range(0, len(self.train_ids), self.batch_size):
            index = self.train_ids[start : start + self.batch_size]
            index = np.pad(index, (0, self.batch_size - len(index)), mode="edge").astype(np.int32)
            bank = write(bank, state.online, jnp.asarray(self.images.images(index)), jnp.asarray(index))
        return bank


def check(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the config as plain data, after comparing its fields with those that every recipe has.

    Raises:
      UserError: an unknown or missing field, a value of a wrong kind, or a number out of range.
    """
    checked: dict[str, Any] = legacy.complete(to_plain_data(config))
    if fitting.is_open(checked):
        path = next(path for path in fitting.OPEN if is_none(checked, path))
        fix = "name the pictures and train: --config.data.name=folder:PATH" if path == "data.name" else "set it"
        raise UserError(f"config.{path} is None: it is settled by the pictures when training starts", fix=fix)
    _compare_fields(checked, to_plain_data(recipes.recipe("digits").config), "config")
    values = flatten(checked)
    for name, least in LEAST.items():
        if values[name] < least:
            raise UserError(f"config.{name} is {values[name]}", fix=f"give {least} or more")
    if checked["data"]["order"] not in ORDERS:
        raise unknown("config.data.order", checked["data"]["order"], ORDERS)
    if checked["data"]["crop"] not in CROPS:
        raise unknown("config.data.crop", checked["data"]["crop"], CROPS)
    if checked["export"]["weights"] not in ("online", "target"):
        raise unknown("config.export.weights", checked["export"]["weights"], ("online", "target"))
    return checked


def _compare_fields(section: Mapping[str, Any], example: Mapping[str, Any], path: str) -> None:
    """Raises UserError on the first field that only one of the two sections has, or whose values differ in kind."""
    if path.removeprefix("config").lstrip(".") in CHECKED_ELSEWHERE:
        return
    for name in section:
        if name not in example:
            known = f"its fields are {', '.join(sorted(example))}"
            raise UserError(f"no field {name!r} in {path}", nearest=nearest(name, example), fix=known)
    for name, usual in example.items():
        if name not in section:
            raise UserError(f"{path} has no field {name!r}", fix="begin from mi_contrast.methods.recipes.recipe")
        value, at = section[name], f"{path}.{name}"
        is_schedule = isinstance(usual, Mapping) and "kind" in usual
        if is_schedule or usual is None or (value is None and name in OPTIONAL):
            continue
        if isinstance(usual, Mapping):
            if not isinstance(value, Mapping):
                raise UserError(f"{at} is {value!r}", fix="it is a section with fields of its own")
            _compare_fields(value, usual, at)
            continue
        types = (int, float) if isinstance(usual, float) else (type(usual),)
        if not isinstance(value, types) or isinstance(value, bool) is not isinstance(usual, bool):
            raise UserError(f"{at} is {value!r}", fix=f"give a {type(usual).__name__} such as {usual!r}")


def make_parts(
    config: Mapping[str, Any],
    classes: int,
    mesh: Mesh,
    train_mask: np.ndarray | None = None,
    has_checkpoint: bool = False,
) -> Parts:
    """Returns the parts of a step of this config. Its data are not read.

    Args:
      classes: number of classes of the label, 0 if there is no label.
      train_mask: bool [N], the examples that are trained on; 1,024 of them by default.
      has_checkpoint: whether the run has one.
    Raises:
      UserError: a mistake in the config.
    """
    train_mask = np.ones(1024, bool) if train_mask is None else train_mask
    views = policies.build(config["views"], mesh)
    method = methods.build(config["method"], views.source_index)
    _check_fit(method, config)
    tower = towers.build(config["model"])
    generator = generators.init_params(config, tower.split, has_checkpoint)
    generator_training = generators.build_training(config, tower.split, classes, method, len(train_mask))
    batch, steps = config["data"]["batch"], config["steps"]
    groups = config["model"]["norm"].get("groups", 1)
    for count, what in ((mesh.size, "devices"), (groups, "groups (model.norm.groups)")):
        if batch % count:
            raise UserError(f"config.data.batch is {batch}, not a multiple of the {count} {what}")
    check_groups(groups, mesh.size)
    optim = optimiser.build(config["optim"], tower.trainable_mask if tower.frozen else None)
    microbatches = divide(config["optim"]["microbatches"], tower, config["model"]["norm"], batch, mesh.size)
    return Parts(
        method=method,
        augmentation=views,
        encoder=Encoder(tower, mesh, config["seed"], groups, microbatches),
        optimiser=optim,
        probe=probe.Probe(classes, config["eval"]["probe_lr"]) if classes else None,
        mesh=mesh,
        seed=config["seed"],
        total_steps=steps,
        learning_rate=optimiser.learning_rate(config["optim"], steps),
        train_mask=train_mask,
        generator=generator,
        generator_training=generator_training,
    )


def _check_fit(method: methods.Method, config: Mapping[str, Any]) -> None:
    """Raises UserError where the method's views need something that the model does not have."""
    model, views = config["model"], config["views"]
    if method.view_kind == "channels" and model.get("split") != views.get("split"):
        problem = f"config.model.split is {model.get('split')!r}, the views are split by {views.get('split')!r}"
        raise UserError(problem, fix=f"set model.split={views.get('split')!r}")
    if method.view_kind != "channels" and model.get("split") is not None:
        raise UserError(f"config.model.split is {model['split']!r}, but the method's views are {method.view_kind}",
                        fix="set model.split=None, or views='channels'")  # fmt: skip
    if method.has_twins and model.get("twin") is None:
        raise UserError("config.model has no second head for the method's twins", fix="set model.twin=dict(kind='mlp')")
    if method.has_twins != (config["data"]["partner"] is not None):
        terms = "terms of the second head" if method.has_twins else "no terms of the second head"
        raise UserError(f"config.data.partner is {config['data']['partner']!r}, and the method has {terms}",
                        fix="add methods.two_branches.with_twins and a partner such as 'twin', or neither")  # fmt: skip
    if method.view_kind == "jigsaw" and model.get("jigsaw") is None:
        raise UserError("config.model has no head for the method's jigsaw", fix="set model.jigsaw=dict(dim=128)")
    if config["export"]["weights"] == "target" and method.target != "ema":
        raise UserError(f"config.export.weights is 'target', but the method's target is {method.target!r}",
                        fix="set export.weights='online'")  # fmt: skip


def check_groups(groups: int, devices: int) -> None:
    """Raises UserError if a group of batch norm would end inside a device, whose images others would then need."""
    if groups % devices and devices % groups:
        raise UserError(
            f"{groups} groups (model.norm.groups) can't be cut evenly on {devices} devices",
            fix=f"set model.norm.groups to a divisor or a multiple of {devices}",
        )


def build(config: Mapping[str, Any], has_checkpoint: bool = False, known: Collection[str] | None = None) -> Job:
    """Returns a job: everything that a run needs but its state.

    Args:
      has_checkpoint: whether the run has one, which holds the state.
      known: the images that were broken when the run began; None where it has not begun.
    Raises:
      UserError: a mistake in the config or its data.
    """
    config, mesh = check(config), make_mesh()
    # Mistakes in the config are found before its data are read.
    parts = make_parts(config, 0, mesh, has_checkpoint=True)
    images, data = _load_images(config, known), config["data"]
    parts.augmentation.check_image_size(*images.image_shape[:2])
    if (
        data["crop"] == "whole"
        and not parts.augmentation.cuts
        and images.square is not None
        and images.open is not None
    ):
        fix = "set data.crop='square'"
        raise UserError("views of patches need images of one size, and data.crop is 'whole'", fix=fix)
    train_ids, held_out_ids = split_by_config(images, config)
    if data["partner"] is not None:
        make_pairing(images, train_ids, data["shared"], data["partner"])  # a mistake is found now
    label = _choose_label(config, parts, images)
    train_mask = np.zeros(len(images), bool)
    train_mask[train_ids] = True
    parts = make_parts(config, len(images.classes[label]) if label else 0, mesh, train_mask, has_checkpoint)
    views = parts.augmentation

    def represent(state: State, weights: str = "online") -> Representation:
        network, generator = getattr(state, weights), state.generator.get("params")
        return from_tower(
            network, config["model"], mean=views.mean, std=views.std, size=views.size, generator=generator
        )

    judges = [make_information(parts, images, held_out_ids, data["shared"], config["eval"]["pairs"], label)]
    split = parts.tower.split
    flow = split.generator if parts.generator_training is not None and split is not None else None
    if flow is not None and flow.flow != "free":
        judges.append(make_inversion(parts, images, held_out_ids))
    if label:
        bank = dict(k=config["eval"]["knn_k"], bank_size=config["eval"]["knn_bank"])
        judges.append(make_accuracy(parts, images, train_ids, held_out_ids, label, represent, **bank))
    tables = _make_tables(config, parts, images, label)
    tables = jax.tree.map(lambda table: place(table, replicated(mesh)), tables)
    return Job(parts, images, train_ids, held_out_ids, tables, tuple(judges), represent, data, label)


def _load_images(config: Mapping[str, Any], known: Collection[str] | None) -> sets.ImageSet:
    """Returns the training split, in memory where it is small: it is read again at every measurement."""
    data = config["data"]
    images = sets.load_section(data, known_broken=known)
    if data["resident"] is not False and len(images) * int(np.prod(images.image_shape)) <= RESIDENT_BYTES:
        # The reader of whole images keeps its own pixels. The squares of this set are then for measurements alone.
        is_squeezed = data["crop"] == "whole" and images.square is not None and images.open is not None
        return sets.remember_in_memory(images) if is_squeezed else sets.cache_in_memory(images)
    return images


def _choose_label(config: Mapping[str, Any], parts: Parts, images: sets.ImageSet) -> str | None:
    """Returns the label that the probe learns: the config's, or else the data's first; None where there is none.

    Raises:
      UserError: an unknown label, or no label where the config needs one.
    """
    label = config["data"]["label"] or next(iter(images.labels), None)
    if label is not None and label not in images.labels:
        raise unknown(f"label of {images.name}", label, images.labels)
    if label is not None:
        return label
    if any(on == "knn_top1" for on, *_ in adaptive.find_paces(parts.method).values()):
        raise UserError(f"a schedule is adaptive on knn_top1, and {images.name} has no labels", fix="take mi_nats")
    training = parts.generator_training
    if training is not None and training.classifier is not None:
        objective = config["generator"]["learn"]["objective"]
        problem = f"views are learned {objective}, and {images.name} has no labels"
        raise UserError(problem, fix="learn them 'unsupervised'")
    return None


def _make_tables(config: Mapping[str, Any], parts: Parts, images: sets.ImageSet, label: str | None) -> Tables:
    """Returns labels and groups of every example. Raises UserError where a generator may use no label."""
    labels = images.labels[label] if label else np.full(len(images), -1)
    groups = np.arange(len(images)) if images.groups is None else images.groups
    training = parts.generator_training
    if training is not None and training.classifier is not None:
        usable = parts.train_mask & training.labelled
        if not (np.asarray(labels)[usable] >= 0).any():
            raise UserError(
                f"no example of {images.name} {config['data']['split']} that may be looked at has a label",
                fix="raise generator.learn.labelled, or name a split with labels",
            )
    return Tables(jnp.asarray(labels, jnp.int32), jnp.asarray(groups, jnp.int32))
