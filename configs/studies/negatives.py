"""Which negatives? Ring position, annealing and temperature, against all, a ball and the closest.

The question of Wu et al. 2021: are negatives that are hard, but not the hardest, the better ones, and does it matter
how one gets there? Beside the accuracy stand what may explain it: the share of negatives that are of the anchor's class
or are the anchor's own instance, and the share of anchors whose objective bounds mutual information.

A ring is annealed as the paper's is: it begins with the whole pool but for the part that the ring leaves out at the end
of what it then holds, and arrives half-way through training. All settings of a variant train the same number of steps
on the same batches, seed by seed.

Three seeds of the main settings, all, the ball and the ring, and of the two where with the first seed a ring did best,
annealed over all of training and at temperature .05, so that its others try what the first suggested; one of the rest.

Variants: :digits (default; embedded data, 2,000 steps, three to four minutes a run on 2 cores; after 600 steps most
settings still share no nats at all, and nothing but how soon they begin to would be compared), :cifar10_small (as
configs/moco.py has it, 5 to 10 minutes a run on 2 cores, one seed of all but the main settings; give
--config.data_dir), :omniglot8 (drawings of 242 characters, two crops of one: .4 % of negatives are of the anchor's
class where digits have 10; the main settings, 1,000 steps, two minutes a run), :tiny (three settings for a dozen steps,
to see that it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import recipe
from mi_contrast.studies.settings import OFTEN
from mi_contrast.views.policies import two_crops

TERM = "method.terms.0"
LOWER, UPPER, TEMPERATURE = f"{TERM}.support.lower", f"{TERM}.support.upper", f"{TERM}.temperature"
DRAWINGS = {
    "steps": 1000, "data.name": "omniglot8", "data.size": 32, "data.shared": (), "data.options": {}, "eval.knn_k": 10,
    "eval.pairs": 128,
    "views": two_crops(32, {"crop": {"area": (0.4, 1.0), "aspect": (0.75, 4 / 3)}}, (0.92,) * 3, (0.23,) * 3),
}  # fmt: skip
VARIANTS = {  # changes of every run, and the seeds of the main settings, of those that did best, and of the rest
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
COLDEST = TEMPERATURES[0]


def ring(lower, upper, end=0.5):
    """The changes that make the ring [lower, upper), annealed until that share of training; 0: from the first step."""
    outer = (1 - upper) / (1 - lower)  # of what lies above `lower`, the part that is left out
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
    judge = {"tiny": {"task.k": 20}, "omniglot8": {"task.k": 10}}.get(variant, {})  # few examples, or few of a class
    for temperature in TEMPERATURES:
        if temperature == recipe(base).queue_temperature:
            continue  # the rows above
        at, seeds = {TEMPERATURE: temperature}, best if temperature == COLDEST else rest
        rows.append(("Temperature", f"all, temperature {temperature:g}", moco, at, seeds))
        both = {**ring(0.9, 0.99), **at}
        rows.append(("Temperature", f"ring 90-99, temperature {temperature:g}", rings, both, seeds))
    return ConfigDict(
        dict(
            question=(
                "Which negatives? Rings, balls and the closest against all of the queue: accuracy beside the share of "
                "negatives that are none, and beside the share of anchors whose objective is a bound."
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
                    changes={**common, **OFTEN, **changes},
                    seeds=seeds,
                )
                for group, label, config, changes, seeds in rows
                if seeds
            ),
            evaluate=(
                dict(config="configs/evaluate/linear.py", changes={"task.epochs": 5} if variant == "tiny" else {}),
                dict(config="configs/evaluate/knn.py", changes=judge),
            ),
            columns=(
                "mi_nats", "mi_ceiling", "knn_top1", "same_class", "same_instance", "bound_share", "bound_gap",
                "images_per_second",
            ),
            figure=("linear", "knn", "mi_nats", "same_class", "same_instance", "bound_share"),
        )
    )  # fmt: skip
