"""What does the form of a generator do? One choice of configs/learn_views.py changed at a time.

Tian et al. 2020 (InfoMin) give neither depth nor width, rates nor weights of the generators that learn views. Here a
generator learns with a tenth of the labels (semi-supervised) in each form; then it is frozen and fresh networks are
trained on its views, from the same seed, with the same row, batch and steps (as configs/studies/learned_views.py). The
nats are InfoNCE of the fresh networks on 1,024 held-out pairs, at most log 1,024.

Variants: :cifar10_small (default; batches of 128, 600 steps, two tiny networks of width 64, one seed, 2 to 4 minutes a
run on 2 cores; give --config.data_dir), :digits (embedded data, 200 steps, one choice, to see that it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.core.schedules import cosine
from mi_contrast.studies.settings import AT_ENDS, TINY, runs


def form(**fields):
    """Changes of the generator's own form, which its views and the networks' branches share."""
    return {f"{part}.split.{name}": value for part in ("views", "model") for name, value in fields.items()}


FORMS = {  # of the generator: the run that learns it and the run on its views
    "as chosen": {},
    "2 couplings": form(couplings=2),
    "64 hidden units": form(hidden=64),
    "affine": form(flow="affine"),
}
RATES = {  # of the run that learns alone
    "rate x 3": {"generator.learn.lr": cosine(0.003, 0.0)},
    "a move in five steps": {"generator.learn.every": 5},
    "labels x 10": {"generator.learn.labels": 10.0},
}
CHOICES = {**{label: (both, {}) for label, both in FORMS.items()}, **{label: ({}, own) for label, own in RATES.items()}}
VARIANTS = {"cifar10_small": (TINY, tuple(CHOICES)), "digits": ({"steps": 200}, ("as chosen",))}


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, labels = VARIANTS[variant]
    rows = []
    for label in labels:
        both, own = CHOICES[label]
        learn = {"generator.learn.objective": "semi_supervised", **both, **own}
        rows += [("Adversaries", f"learning, {label}", "learn_views", learn)]
        source = {"generator.start_from": f"study:learning, {label}"}
        rows += [("Fresh networks", label, "learned_views", {**both, **source})]
    return ConfigDict(
        dict(
            question="What does the form of a generator of views do, and how it learns?",
            data_dir=None,
            steps=None,
            reference="as chosen",
            runs=runs(sorted(rows, key=lambda row: row[0]), variant, {**common, **AT_ENDS}, (0,)),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
        )
    )
