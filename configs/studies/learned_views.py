"""Learned views: channels as they are, against a generator's that learned without labels, with them, or by them alone.

The comparison of Tian et al. 2020 (InfoMin; recalled: raw RGB 81.5, unsupervised 82.4 +- 3.2, supervised 79.9,
semi-supervised 86.0 on STL-10): first a generator learns (configs/learn_views.py), then it is frozen, its networks are
thrown away, and fresh ones are trained on its views, from the same seed, with the same row, batch and steps as on raw
channels (configs/learned_views.py, configs/cmc_in_batch.py). The nats of the fresh networks, InfoNCE on 1,024 held-out
pairs, are those that the views share; the networks that the generator learned against are its adversaries, and their
nats are of no interest but to it.

The spread over seeds is part of the result: the unsupervised generator does not know the task.

Variants: :cifar10_small (default; batches of 128, 600 steps, two tiny networks of width 64, three seeds, 2 to 4 minutes
a run on 2 cores; give --config.data_dir), :digits (embedded data, 200 steps, one seed, to see that it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.config import load_config, plain
from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import AT_ENDS, TINY, runs

VARIANTS = {"cifar10_small": (TINY, (0, 1, 2)), "digits": ({"steps": 200}, (0,))}
OBJECTIVES = ("unsupervised", "supervised", "semi_supervised")


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, seeds = VARIANTS[variant]
    raw = plain(load_config(f"configs/cmc_in_batch.py:{variant}")[0])["views"]
    rows = [("Fresh networks", "ydbdr", "cmc_in_batch", {})]
    rgb = {**raw, "split": "rgb", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    rows += [("Fresh networks", "rgb", "cmc_in_batch", {"views": rgb, "model.split": "rgb"})]
    for objective in OBJECTIVES:
        learn = {"generator.learn.objective": objective}
        source = {"generator.start_from": f"study:learning, {objective}"}
        rows += [("Adversaries", f"learning, {objective}", "learn_views", learn)]
        rows += [("Fresh networks", f"learned, {objective}", "learned_views", source)]
    return ConfigDict(
        dict(
            question=(
                "Which views are good ones? Channels as they are, and channels of a generator that learned to leave "
                "little in common, with or without a word about the labels."
            ),
            data_dir=None,
            steps=None,
            reference="rgb",
            runs=runs(sorted(rows), variant, {**common, **AT_ENDS}, seeds),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
            curve="mi_nats",
        )
    )
