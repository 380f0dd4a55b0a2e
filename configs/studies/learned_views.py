"""Which views are good? Fixed colour channels against those of a generator trained without, with, or only with labels.

This is the comparison of Tian et al. 2020 (InfoMin; recalled, on STL-10: raw RGB 81.5, unsupervised 82.4 +- 3.2,
supervised 79.9, semi-supervised 86.0). First a generator is trained (configs/learn_views.py). Then it is frozen, its
networks are discarded, and new ones are trained on its views (configs/learned_views.py), from the same seed and with
the same method, batch and steps as on raw channels (configs/cmc_in_batch.py). The nats that the views share are those
of the new networks, InfoNCE on 1,024 held-out pairs. The networks that the generator was trained against are its
adversaries, and their nats mean nothing for the views.

The spread over seeds is part of the result, because the unsupervised generator doesn't know the task.

Variants: :cifar10_small (default; batches of 128, 600 steps, two tiny networks of width 64, three seeds, 2 to 4 minutes
per run on 2 cores; needs --config.data_dir), :digits (data shipped with the package, 200 steps, one seed, to see that
it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import MEASURE_AT_ENDS, TINY, make_runs

PAPER = "Tian et al. 2020"
VARIANTS = {"cifar10_small": (TINY, (0, 1, 2)), "digits": ({"steps": 200}, (0,))}
OBJECTIVES = ("unsupervised", "supervised", "semi_supervised")


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, seeds = VARIANTS[variant]
    raw = to_plain_data(load_config(f"configs/cmc_in_batch.py:{variant}")[0])["views"]
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
            runs=make_runs(sorted(rows), variant, {**common, **MEASURE_AT_ENDS}, seeds),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
            curve="mi_nats",
        )
    )
