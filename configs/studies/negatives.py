"""Which negatives are best? All of them, a ball, or a ring, by the ring's position, its annealing and the temperature.

Wu et al. 2021 ask whether negatives that are hard, but not the hardest, are better, and whether it matters how training
reaches them. The table shows the accuracy and what may explain it: the share of negatives that have the anchor's class
or are the anchor's own instance, and the share of anchors whose objective is a bound on mutual information.

A ring is annealed as in the paper. Its lower end rises from 0 to the final value by half-way through training. The
share of the candidates above the lower end that it leaves out as too similar stays constant. All settings of a variant
train the same number of steps, on the same batches for each seed.

The main settings (all, the ball and the ring) have three seeds. With the first seed, a ring did best when annealed over
the whole training and at temperature .05. These two settings also have three seeds, to test that observation. The other
settings have one seed.

Variants:
  :digits         (default) data shipped with the package, 2,000 steps, three to four minutes per run on 2 cores. After
                  600 steps most settings share no nats yet, and the comparison would only show how soon learning begins
  :cifar10_small  as in configs/moco.py, 5 to 10 minutes per run on 2 cores, one seed of all but the main settings;
                  needs --config.data_dir
  :omniglot8      drawings of 242 characters, two crops of one drawing, so that .4 % of the negatives have the anchor's
                  class (digits: 10 %); the main settings, 1,000 steps, two minutes per run
  :tiny           three settings for a dozen steps, to see that it works
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import recipe
from mi_contrast.studies.settings import SAVE_OFTEN
from mi_contrast.views.policies import two_crops

PAPER = "Wu et al. 2021"
TERM = "method.terms.0"
LOWER, UPPER, TEMPERATURE = f"{TERM}.support.lower", f"{TERM}.support.upper", f"{TERM}.temperature"
DRAWINGS = {
    "steps": 1000, "data.name": "omniglot8", "data.size": 32, "data.shared": (), "data.options": {}, "eval.knn_k": 10,
    "eval.pairs": 128,
    "views": two_crops(32, {"crop": {"area": (0.4, 1.0), "aspect": (0.75, 4 / 3)}}, (0.92,) * 3, (0.23,) * 3),
}  # fmt: skip
VARIANTS = {  # changes of every run; seeds of the main settings, of the best ones, and of the others
    "digits": (dict(steps=2000), (0, 1, 2), (0, 1, 2), (0,)),
    "cifar10_small": ({}, (0, 1, 2), (0,), (0,)),
    "omniglot8": (DRAWINGS, (0, 1, 2), (), ()),
    "tiny": (
        {
            "steps": 12, "data.batch": 32, "data.options": dict(size=32, length=2), "model.width": 8,
            "eval.every": 1000, "eval.pairs": 16, "eval.knn_bank": 64, "log.every": 4, "method.pools.queue.size": 100,
        },
        (0, 1),
        (),
        (),
    ),
}  # fmt: skip
TEMPERATURES = (0.05, 0.1, 0.2, 0.5)
LOWEST_TEMPERATURE = TEMPERATURES[0]


def ring(lower, upper, end=0.5):
    """Returns config changes for the ring [lower, upper), annealed over the first `end` of training (0: fixed)."""
    outer = (1 - upper) / (1 - lower)  # share of the candidates above `lower` that the ring leaves out
    if end == 0:
        return {LOWER: lower, UPPER: upper}
    return {LOWER: linear(0.0, lower, end=end), UPPER: linear(1 - outer, upper, end=end)}


def get_config(variant="digits"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, main, best, rest = VARIANTS[variant]
    moco, ball, rings = "configs/moco.py", "configs/ball_moco.py", "configs/ring_moco.py"
    rows = [  # group, label, config, changes, seeds
        ("Against", "all", moco, {}, main),
        ("Against", "ball 90-100", ball, {}, main),
        ("Against", "closest 1 %", ball, {LOWER: linear(0.0, 0.99, end=0.5)}, rest),
        ("Ring position", "ring 0-50", rings, ring(0.0, 0.5), rest),
        ("Ring position", "ring 50-90", rings, ring(0.5, 0.9), rest),
        ("Ring position", "ring 80-95", rings, ring(0.8, 0.95), rest),
        ("Ring position", "ring 90-99", rings, ring(0.9, 0.99), main),
        ("Ring position", "ring 98-99.8", rings, ring(0.98, 0.998), rest),
        ("Annealing", "ring 90-99 from the first step", rings, ring(0.9, 0.99, end=0), rest),
        ("Annealing", "ring 90-99 over all of training", rings, ring(0.9, 0.99, end=1.0), best),
        ("Annealing", "ball 90-100 from the first step", ball, {LOWER: 0.9}, rest),
    ]
    base = "digits" if variant in ("tiny", "omniglot8") else variant
    knn_changes = {"tiny": {"task.k": 20}, "omniglot8": {"task.k": 10}}.get(
        variant, {}
    )  # there are few examples, or few of a class
    for temperature in TEMPERATURES:
        if temperature == recipe(base).queue_temperature:
            continue  # the settings above have this one
        change, seeds = {TEMPERATURE: temperature}, best if temperature == LOWEST_TEMPERATURE else rest
        rows.append(("Temperature", f"all, temperature {temperature:g}", moco, change, seeds))
        both = {**ring(0.9, 0.99), **change}
        rows.append(("Temperature", f"ring 90-99, temperature {temperature:g}", rings, both, seeds))
    return ConfigDict(
        dict(
            question=(
                "Which negatives? Rings, balls and the closest against all of the queue: accuracy, the share of "
                "false negatives, and the share of anchors whose objective is a bound."
            ),
            data_dir=None,
            steps=None,
            reference="all",
            runs=tuple(
                dict(
                    group=group,
                    label=label,
                    config=config,
                    variant=base,
                    changes={**common, **SAVE_OFTEN, **changes},
                    seeds=seeds,
                )
                for group, label, config, changes, seeds in rows
                if seeds
            ),
            evaluate=(
                dict(config="configs/evaluate/linear.py", changes={"task.epochs": 5} if variant == "tiny" else {}),
                dict(config="configs/evaluate/knn.py", changes=knn_changes),
            ),
            columns=(
                "mi_nats", "mi_ceiling", "knn_top1", "same_class", "same_instance", "bound_share", "bound_gap",
                "images_per_second",
            ),
            figure=("linear", "knn", "mi_nats", "same_class", "same_instance", "bound_share"),
        )
    )  # fmt: skip
