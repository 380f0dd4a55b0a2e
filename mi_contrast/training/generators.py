"""The generator that divides a run's images: another run's, frozen, or one that learns beside the networks.

Networks climb the nats I between the views. The generator descends what its objective names:

  unsupervised      nats I(g(x)_1; g(x)_2)
  semi_supervised   nats I + labels (CE_1 + CE_2)
  supervised        labels (CE_1 + CE_2)

I is the objective of the run's own terms. CE_i is the cross-entropy of a classifier that sees view i alone, over the
labelled examples of the batch; the classifiers descend it too. `nats` and `labels` are weights.

Source: Tian et al. 2020 (InfoMin), section on learned views. Weights, rates, ratio of updates and classifiers are not
known from there; those here are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from mi_contrast.core import schedules
from mi_contrast.core.checks import check_schedule, check_whole
from mi_contrast.core.config import check_section, differences, to_plain_data
from mi_contrast.core.division import Division
from mi_contrast.core.errors import UserError, add_place, unknown
from mi_contrast.core.rngs import stream_rng
from mi_contrast.data.order import permutation
from mi_contrast.interchange import open_source
from mi_contrast.methods.method import Method
from mi_contrast.models import towers
from mi_contrast.models.towers import GENERATOR
from mi_contrast.training import optimiser as optimisers
from mi_contrast.training.probe import compute_logits, init_classifier, mean_cross_entropy
from mi_contrast.views.policies import Views

OBJECTIVES: Mapping[str, tuple[bool, bool]] = {  # whether nats count, whether labels do
    "unsupervised": (True, False),
    "semi_supervised": (True, True),
    "supervised": (False, True),
}
LEARN = ("objective", "nats", "labels", "labelled", "lr", "every", "classifier")
CLASSIFIER = ("backbone", "width", "lr")


@dataclass(frozen=True, eq=False)
class GeneratorTraining:
    """How a generator learns.

    Attributes:
      nats_weight, labels_weight: of the two parts of its objective, 0 where the objective leaves one out.
      learning_rate: of the generator's Adam, a function of the run's step.
      every: the generator moves once in this many steps of the networks.
      classifier: a network for each view; None where labels do not count.
      classifier_lr: learning rate of the classifiers' Adam.
      classes: number of classes.
      labelled: bool [N], the examples whose label may be used.
    """

    nats_weight: float
    labels_weight: float
    learning_rate: optimisers.Rate
    every: int
    classifier: towers.Tower | None
    classifier_lr: float
    classes: int
    labelled: np.ndarray

    @property
    def optimiser(self) -> optax.GradientTransformationExtraArgs:
        """The generator's Adam, whose `update` takes the step's `learning_rate`."""
        return optax.chain(optax.scale_by_adam(), optimisers.scale_by_given_rate())

    def init(self, params: Any, rng: Key[Array, ""], image_size: tuple[int, ...]) -> dict[str, Any]:
        """Returns the first state: {'params', 'optimiser'} and, with labels, {'classifiers', 'classifier_optimiser'}.

        Args:
          params: of the generator.
          image_size: (H, W).
        """
        state = {"params": params, "optimiser": self.optimiser.init(params)}
        if self.classifier is None:
            return state
        height, width = image_size
        network = self.classifier.init(stream_rng(rng, "generator"), (height, width, 3))
        heads = {view: init_classifier(self.classifier.backbone.dim, self.classes) for view in self.classifier.views}
        params = {"network": network["params"], "heads": heads}
        return state | {
            "classifiers": {"params": params, "batch_stats": network["batch_stats"]},
            "classifier_optimiser": optax.adam(self.classifier_lr).init(params),
        }

    def find_labels(self, labels: Int[Array, " N"], index: Int[Array, " B"]) -> Int[Array, " B"]:
        """Returns each example's label; -1 where it may not be used."""
        return jnp.where(jnp.asarray(self.labelled)[index], labels[index], -1)

    def learn(
        self,
        state: dict[str, Any],
        nats_gradient: Any,
        views: Views,
        crops: Mapping[str, Array],
        labels: Int[Array, " B"],
        step: Int[Array, ""],
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """Returns the state after one step, and scalars: class_first and class_second (nats), generator_norm.

        Args:
          nats_gradient: of the nats between the views, by the generator's parameters.
          views, crops: the crops of the batch, and what divides them.
          labels: int32 [B], below 0 where unknown.
        """
        gradient, new, scalars = jax.tree.map(lambda g: self.nats_weight * g, nats_gradient), dict(state), {}
        if self.classifier is not None:
            params = state["classifiers"]["params"]
            differentiate = jax.grad(self._cross_entropy, (0, 1), has_aux=True)
            gradients, (scalars, statistics) = differentiate(
                state["params"], params, state["classifiers"]["batch_stats"], views, crops, labels
            )
            gradient = jax.tree.map(lambda total, own: total + self.labels_weight * own, gradient, gradients[0])
            adam = optax.adam(self.classifier_lr)
            updates, adam_state = adam.update(gradients[1], state["classifier_optimiser"], params)
            params = optax.apply_updates(params, updates)
            new |= {
                "classifiers": {"params": params, "batch_stats": statistics},
                "classifier_optimiser": adam_state,
            }
        updates, optimiser_state = self.optimiser.update(
            gradient, state["optimiser"], state["params"], learning_rate=self.learning_rate(step)
        )
        moved = {"params": optax.apply_updates(state["params"], updates), "optimiser": optimiser_state}
        due = step % self.every == 0
        new |= jax.tree.map(lambda m, s: jnp.where(due, m, s), moved, {name: state[name] for name in moved})
        return new, scalars | {"generator_norm": optax.tree.norm(gradient)}

    def _cross_entropy(
        self,
        generator: Any,
        params: Any,
        statistics: Any,
        views: Views,
        crops: Mapping[str, Array],
        labels: Int[Array, " B"],
    ) -> tuple[Float[Array, ""], tuple[dict[str, Array], Any]]:
        """Returns CE_1 + CE_2 over labelled examples, each of the two by name, and the batch statistics after them."""
        assert self.classifier is not None
        images, losses = views.divide(crops, generator), {}
        for view, head in params["heads"].items():
            variables = {"params": params["network"], "batch_stats": statistics}
            encoded = self.classifier.encode(variables, images[view], train=True, view=view)
            statistics = encoded.batch_stats
            losses[f"class_{view}"] = mean_cross_entropy(compute_logits(head, encoded.features), labels)
        return sum(losses.values(), jnp.zeros(())), (losses, statistics)


def init_params(config: Mapping[str, Any], split: Division | None, has_checkpoint: bool = False) -> Any:
    """Returns the first parameters of a run's generator, numpy arrays; None where no generator divides.

    Args:
      has_checkpoint: whether the run has one. Its state then holds the parameters; only their shapes matter here, and
        the run that they came from is not read again.
    Raises:
      UserError: config.generator does not fit the split, or the run or export that it starts from holds no generator,
        or one of another form, space, mean or std.
    """
    settings = config["generator"]
    names = [name for name in ("start_from", "learn") if settings[name] is not None]
    if split is None or split.generator is None:
        if names:
            problem = f"config.generator.{names[0]} is given, but no generator divides the images"
            raise UserError(problem, fix="set model.split and views.split to dict(kind='generator', ...)")
        return None
    if len(names) != 1:
        number = "both" if names else "neither"
        problem = f"of config.generator.start_from and config.generator.learn {number} is given"
        raise UserError(problem, fix="a generator is another run's, frozen, or it learns")
    if settings["learn"] is not None or has_checkpoint:
        params = split.generator.init(stream_rng(jax.random.key(config["seed"]), "generator"))
    else:
        params = _read_params(settings["start_from"], config)
    return jax.tree.map(np.asarray, params)


def _read_params(path: str, config: Mapping[str, Any]) -> Any:
    """Returns the parameters of the generator in a run directory or an export."""
    if not isinstance(path, str):
        raise UserError(f"config.generator.start_from is {path!r}", fix="name a run directory or an export")
    source = open_source(path)
    other = source.representation
    if other.split is None or other.split.generator is None:
        raise UserError(f"{path} has no generator", fix="name a run that learned views, or its export")
    theirs = {"split": other.spec["split"], **{name: list(other.spec[name]) for name in ("mean", "std")}}
    views = to_plain_data(config["views"])
    ours = {"split": views["split"], **{name: list(views[name]) for name in ("mean", "std")}}
    if different := differences(theirs, ours):
        fix = f"set views.split and model.split to {dict(theirs['split'])}, mean and std as there"
        raise UserError(f"the generator of {path} differs in {', '.join(different)}", fix=fix)
    print(f"generator of {path}, step {source.step}: its views stay as they are")
    return other.variables[GENERATOR]


def build_training(
    config: Mapping[str, Any], split: Division | None, classes: int, method: Method, examples: int
) -> GeneratorTraining | None:
    """Returns how the run's generator learns; None where it does not.

    Args:
      classes: of the label, 0 where unknown or none.
      examples: of the training split.
    Raises:
      UserError: a mistake in config.generator.learn, or a method whose terms do not reach the generator.
    """
    settings, path = config["generator"]["learn"], "config.generator.learn"
    if settings is None or split is None:
        return None
    check_section(path, settings, LEARN)
    if settings["objective"] not in OBJECTIVES:
        raise unknown(f"{path}.objective", settings["objective"], OBJECTIVES)
    if method.target != "none" or method.stateful_pools:
        raise UserError("views are learned through the networks of both, and this method keeps one of them still",
                        fix="take a method against the batch: target='none', pools in_batch alone")  # fmt: skip
    if config["optim"]["microbatches"] != 1:
        raise UserError("views are not learned in microbatches", fix="set optim.microbatches=1")
    if schedules.pace(check_schedule(f"{path}.lr", settings["lr"], 0.0)):
        raise UserError(f"{path}.lr is adaptive", fix="give a number or a schedule of progress")
    for name in ("nats", "labels"):
        _check_number(f"{path}.{name}", settings[name])
    _check_number(f"{path}.labelled", settings["labelled"], 1.0, above=True)
    check_whole(f"{path}.every", settings["every"])
    check_section(f"{path}.classifier", settings["classifier"], CLASSIFIER)
    _check_number(f"{path}.classifier.lr", settings["classifier"]["lr"])
    nats_count, labels_count = OBJECTIVES[settings["objective"]]
    model = {name: settings["classifier"][name] for name in ("backbone", "width")}
    model |= {"stem": "small", "split": config["model"]["split"], "head": {"kind": "linear", "dim": 1}}
    try:
        classifier = towers.build(model)
    except UserError as error:
        raise add_place(f"{path}.classifier", error) from None
    order = permutation(examples, config["seed"])
    return GeneratorTraining(
        nats_weight=settings["nats"] if nats_count else 0.0,
        labels_weight=settings["labels"] if labels_count else 0.0,
        learning_rate=lambda step: schedules.value(settings["lr"], schedules.Progress(step, config["steps"])),
        every=settings["every"],
        classifier=classifier if labels_count else None,
        classifier_lr=settings["classifier"]["lr"],
        classes=max(classes, 1),
        labelled=order < round(settings["labelled"] * examples),
    )


def _check_number(path: str, value: Any, high: float = np.inf, *, above: bool = False) -> None:
    """Raises UserError unless the value is a number, not a schedule, of at least 0 (above it) and at most `high`."""
    if isinstance(value, Mapping):
        raise UserError(f"{path} is a schedule", fix="give a number")
    check_schedule(path, value, 0.0, high, above=above)
