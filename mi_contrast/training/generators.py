"""The generator that divides a run's images: another run's, frozen; or one that learns, beside the networks that its
views train.

Networks climb the nats I between the views; the generator descends what its objective names:

  unsupervised      nats I(g(x)_1; g(x)_2)
  semi_supervised   nats I + labels (CE_1 + CE_2)
  supervised        labels (CE_1 + CE_2)

I by the run's own terms; CE_i the cross-entropy of a classifier that sees view i alone, over the labelled examples of
the batch, which the classifiers descend too; `nats` and `labels` are weights. Source: Tian et al. 2020 (InfoMin),
section on learned views. Weights, rates, ratio of updates and the classifiers are unknown there: these are a choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from mi_contrast.core import schedules
from mi_contrast.core.config import check_section, differences, plain
from mi_contrast.core.division import Division
from mi_contrast.core.errors import UserError, add_place, unknown
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.order import permutation
from mi_contrast.interchange import open_source
from mi_contrast.methods.rows import Row
from mi_contrast.methods.words import number, whole
from mi_contrast.models import towers
from mi_contrast.models.towers import GENERATOR
from mi_contrast.training import optimiser as optimisers
from mi_contrast.training import probe as probes

OBJECTIVES: Mapping[str, tuple[bool, bool]] = {  # whether nats count, whether labels do
    "unsupervised": (True, False),
    "semi_supervised": (True, True),
    "supervised": (False, True),
}
LEARN = ("objective", "nats", "labels", "labelled", "lr", "every", "classifier")
CLASSIFIER = ("backbone", "width", "lr")


@dataclass(frozen=True, eq=False)
class Learning:
    """How a generator learns.

    Attributes:
      nats, labels: weights of the two parts of its objective, 0 where the objective leaves one out.
      rate: learning rate of the generator's Adam, a function of the run's step.
      every: the generator moves at each so many steps of the networks.
      classifier: a network a view, and its Adam's rate.
      labelled: bool [N], the examples whose label may be looked at.
    """

    nats: float
    by_labels: float
    rate: optimisers.Rate
    every: int
    classifier: towers.Tower | None
    classifier_lr: float
    classes: int
    labelled: np.ndarray

    @property
    def optimiser(self) -> optax.GradientTransformationExtraArgs:
        """The generator's Adam, whose `update` takes the step's `learning_rate`."""
        return optax.chain(optax.scale_by_adam(), optimisers.scale_by_given_rate())

    def init(self, params: Any, key: Key[Array, ""], size: tuple[int, ...]) -> dict[str, Any]:
        """The first state: {'params', 'optimiser'} and, with labels, {'classifiers', 'classifier_optimiser'}."""
        state = {"params": params, "optimiser": self.optimiser.init(params)}
        if self.classifier is None:
            return state
        height, width = size
        made = self.classifier.init(stream_rng(key, "generator"), (height, width, 3))
        heads = {
            view: {
                "kernel": jnp.zeros((self.classifier.backbone.dim, self.classes), jnp.float32),
                "bias": jnp.zeros((self.classes,), jnp.float32),
            }
            for view in self.classifier.views
        }
        classifiers = {"params": {"network": made["params"], "heads": heads}, "batch_stats": made["batch_stats"]}
        optimiser = optax.adam(self.classifier_lr).init(classifiers["params"])
        return state | {"classifiers": classifiers, "classifier_optimiser": optimiser}

    def labels(self, labels: Int[Array, " N"], index: Int[Array, " B"]) -> Int[Array, " B"]:
        """Each example's label; -1 where it may not be looked at."""
        return jnp.where(jnp.asarray(self.labelled)[index], labels[index], -1)

    def learn(
        self,
        state: dict[str, Any],
        of_nats: Any,
        divided: Callable[[Any], Mapping[str, Array]],
        labels: Int[Array, " B"],
        step: Int[Array, ""],
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step: the new state, and scalars: class_first and class_second (nats of cross-entropy), generator_norm.

        Args:
          of_nats: the gradient of the nats between the views by the generator's parameters.
          divided: from those parameters to the batch's views.
          labels: int32 [B], below 0 where unknown.
        """
        slope, new, scalars = jax.tree.map(lambda g: self.nats * g, of_nats), dict(state), {}
        if self.classifier is not None:
            classifiers = state["classifiers"]

            def loss_of(params: Any, of_classifiers: Any) -> tuple[Array, tuple[dict[str, Array], Any]]:
                return self._cross_entropy(of_classifiers, classifiers["batch_stats"], divided(params), labels)

            gradients, (scalars, statistics) = jax.grad(loss_of, (0, 1), has_aux=True)(
                state["params"], classifiers["params"]
            )
            slope = jax.tree.map(lambda total, own: total + self.by_labels * own, slope, gradients[0])
            optimiser = optax.adam(self.classifier_lr)
            updates, after = optimiser.update(gradients[1], state["classifier_optimiser"], classifiers["params"])
            params = optax.apply_updates(classifiers["params"], updates)
            new |= {"classifiers": {"params": params, "batch_stats": statistics}, "classifier_optimiser": after}
        updates, after = self.optimiser.update(
            slope, state["optimiser"], state["params"], learning_rate=self.rate(step)
        )
        moved = {"params": optax.apply_updates(state["params"], updates), "optimiser": after}
        now = step % self.every == 0
        new |= jax.tree.map(lambda m, s: jnp.where(now, m, s), moved, {name: state[name] for name in moved})
        return new, scalars | {"generator_norm": optax.tree.norm(slope)}

    def _cross_entropy(
        self, params: Any, statistics: Any, views: Mapping[str, Array], labels: Int[Array, " B"]
    ) -> tuple[Float[Array, ""], tuple[dict[str, Array], Any]]:
        """CE_1 + CE_2 over the labelled, each alone by name, and the batch statistics after."""
        assert self.classifier is not None
        known, losses = labels >= 0, {}
        for view, head in params["heads"].items():
            given = {"params": params["network"], "batch_stats": statistics}
            encoded = self.classifier.encode(given, views[view], train=True, view=view)
            statistics = encoded.batch_stats
            each = optax.softmax_cross_entropy_with_integer_labels(
                probes.logits(head, encoded.features), jnp.maximum(labels, 0)
            )
            losses[f"class_{view}"] = jnp.sum(jnp.where(known, each, 0.0)) / jnp.maximum(jnp.sum(known), 1)
        return sum(losses.values(), jnp.zeros(())), (losses, statistics)


def first(config: Mapping[str, Any], split: Division | None, begun: bool = False) -> Any:
    """The parameters that a run's generator begins with, numpy arrays; None where no generator divides. Of a run that
    has `begun` their shapes alone count, for its state holds them: what it started from is not read again.

    Raises UserError where config.generator does not fit the split, or the run or export that it starts from holds no
    generator, or one of another form, space, mean or std.
    """
    asked = config["generator"]
    given = [name for name in ("start_from", "learn") if asked[name] is not None]
    if split is None or split.generator is None:
        if given:
            said = f"config.generator.{given[0]} is given, but no generator divides the images"
            raise UserError(said, fix="set model.split and views.split to dict(kind='generator', ...)")
        return None
    if len(given) != 1:
        said = f"of config.generator.start_from and config.generator.learn {'both' if given else 'neither'} is given"
        raise UserError(said, fix="a generator is another run's, frozen, or it learns")
    if asked["learn"] is not None or begun:
        params = split.generator.init(stream_rng(jax.random.key(config["seed"]), "generator"))
    else:
        params = _of_run(asked["start_from"], config)
    return jax.tree.map(np.asarray, params)


def _of_run(path: str, config: Mapping[str, Any]) -> Any:
    """The parameters of the generator in a run directory or an export."""
    if not isinstance(path, str):
        raise UserError(f"config.generator.start_from is {path!r}", fix="name a run directory or an export")
    source = open_source(path)
    there = source.representation
    if there.split is None or there.split.generator is None:
        raise UserError(f"{path} has no generator", fix="name a run that learned views, or its export")
    own = {"split": there.spec["split"], **{name: list(there.spec[name]) for name in ("mean", "std")}}
    views = plain(config["views"])
    wanted = {"split": views["split"], **{name: list(views[name]) for name in ("mean", "std")}}
    if different := differences(own, wanted):
        fix = f"set views.split and model.split to {dict(own['split'])}, mean and std as there"
        raise UserError(f"the generator of {path} differs in {', '.join(different)}", fix=fix)
    print(f"generator of {path}, step {source.step}: its views stay as they are")
    return there.variables[GENERATOR]


def fixed(where: str, given: Any, high: float = np.inf, *, above: bool = False) -> None:
    """UserError unless it is a number of at least 0 (above it) and at most `high`, and no schedule."""
    if isinstance(given, Mapping):
        raise UserError(f"{where} is a schedule", fix="give a number")
    number(where, given, 0.0, high, above=above)


def learning(
    config: Mapping[str, Any], split: Division | None, classes: int, row: Row, examples: int
) -> Learning | None:
    """How the run's generator learns; None where it doesn't.

    Args:
      classes: of the label, 0 where unknown or none. examples: of the training split.
    Raises UserError on a mistake in config.generator.learn, or a row whose terms don't reach the generator.
    """
    asked, where = config["generator"]["learn"], "config.generator.learn"
    if asked is None or split is None:
        return None
    check_section(where, asked, LEARN)
    if asked["objective"] not in OBJECTIVES:
        raise unknown(f"{where}.objective", asked["objective"], OBJECTIVES)
    if row.target != "none" or row.of_kind("bank") or row.of_kind("queue"):
        raise UserError("views are learned through the networks of both of them, and this row keeps one of them still",
                        fix="take a row against the batch: target='none', pools in_batch alone")  # fmt: skip
    if config["optim"]["microbatches"] != 1:
        raise UserError("views are not learned in microbatches", fix="set optim.microbatches=1")
    if schedules.pace(number(f"{where}.lr", asked["lr"], 0.0)):
        raise UserError(f"{where}.lr is adaptive", fix="give a number or a schedule of progress")
    for name in ("nats", "labels"):
        fixed(f"{where}.{name}", asked[name])
    fixed(f"{where}.labelled", asked["labelled"], 1.0, above=True)
    whole(f"{where}.every", asked["every"])
    check_section(f"{where}.classifier", asked["classifier"], CLASSIFIER)
    fixed(f"{where}.classifier.lr", asked["classifier"]["lr"])
    nats, labels = OBJECTIVES[asked["objective"]]
    network = {name: asked["classifier"][name] for name in ("backbone", "width")}
    beside = {"stem": "small", "split": config["model"]["split"], "head": {"kind": "linear", "dim": 1}}
    try:
        tower = towers.build(network | beside)
    except UserError as error:
        raise add_place(f"{where}.classifier", error) from None
    order = permutation(examples, config["seed"])
    return Learning(
        nats=asked["nats"] if nats else 0.0,
        by_labels=asked["labels"] if labels else 0.0,
        rate=lambda step: schedules.value(asked["lr"], schedules.Progress(step, config["steps"])),
        every=asked["every"],
        classifier=tower if labels else None,
        classifier_lr=asked["classifier"]["lr"],
        classes=max(classes, 1),
        labelled=order < round(asked["labelled"] * examples),
    )
