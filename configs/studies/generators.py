"""How should a generator of views be built and trained? Each run changes one choice of configs/learn_views.py.

Tian et al. 2020 (InfoMin) report neither depth nor width, learning rates nor loss weights of the generators that learn
views. Here a generator of each form is trained with a tenth of the labels (semi-supervised) and then frozen. New
networks are trained on its views from the same seed, with the same method, batch and steps as in
configs/studies/learned_views.py. The nats are InfoNCE of the new networks on 1,024 held-out pairs, at most log 1,024.

Variants: :cifar10_small (default; batches of 128, 600 steps, two tiny networks of width 64, one seed, 2 to 4 minutes
per run on 2 cores; needs --config.data_dir), :digits (data shipped with the package, 200 steps, one choice, to see that
it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.core.schedules import cosine
from mi_contrast.studies.settings import MEASURE_AT_ENDS, TINY, make_runs

PAPER = "Tian et al. 2020"


def form(**fields):
    """Returns changes of the generator's architecture, which the sections `views` and `model` must both have."""
    return {f"{part}.split.{name}": value for part in ("views", "model") for name, value in fields.items()}


FORMS = {  # changes of the run that trains the generator and of the run on its views
    "as chosen": {},
    "2 couplings": form(couplings=2),
    "64 hidden units": form(hidden=64),
    "affine": form(flow="affine"),
}
RATES = {  # changes only of the run that trains the generator
    "rate x 3": {"generator.learn.lr": cosine(0.003, 0.0)},
    "a move in five steps": {"generator.learn.every": 5},
    "labels x 10": {"generator.learn.labels": 10.0},
}
CHOICES = {
    **{label: (fields, {}) for label, fields in FORMS.items()},
    **{label: ({}, fields) for label, fields in RATES.items()},
}
VARIANTS = {"cifar10_small": (TINY, tuple(CHOICES)), "digits": ({"steps": 200}, ("as chosen",))}


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, labels = VARIANTS[variant]
    rows = []
    for label in labels:
        shared_changes, training_changes = CHOICES[label]
        learn = {"generator.learn.objective": "semi_supervised", **shared_changes, **training_changes}
        rows += [("Adversaries", f"learning, {label}", "learn_views", learn)]
        source = {"generator.start_from": f"study:learning, {label}"}
        rows += [("Fresh networks", label, "learned_views", {**shared_changes, **source})]
    return ConfigDict(
        dict(
            question="How should a generator of views be built and trained?",
            data_dir=None,
            steps=None,
            reference="as chosen",
            runs=make_runs(sorted(rows, key=lambda row: row[0]), variant, {**common, **MEASURE_AT_ENDS}, (0,)),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
        )
    )
