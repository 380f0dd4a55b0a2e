"""How strong? The crop's least area and the colour jitter's strength, one at a time.

Two curves of Tian et al. 2020 (InfoMin) on ImageNet: stronger augmentation leaves fewer nats to share, and accuracy
rises and falls again, best with crops of .2 of the area or more and jitter of strength 1. Its other figures are not
known; orderings are compared.

Every row is SimCLR's (configs/simclr.py) at temperature .2, its two crops by plain numbers (views.policies.strengths),
which move away from SimCLR's own, crops of .08 of the area or more and jitter x 1: crops with jitter x 1, jitter with
crops of .08; greyscale .2, blur .5 and flips throughout. The nats are InfoNCE on 1,024 held-out pairs of embeddings, at
most log 1,024.

Variants: :cifar10_small (default; batches of 128, 600 steps, a tiny network of width 64, one seed of a crop, three of
a jitter, a few minutes a run on 2 cores; give --config.data_dir).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.methods.recipes import CIFAR_MEAN, CIFAR_STD
from mi_contrast.studies.settings import AT_ENDS, COLD, TINY, runs
from mi_contrast.views.policies import strengths

LOWS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
JITTERS = (0.0, 0.25, 0.5, 1.0, 1.5)
OWN = 0.08  # SimCLR's least area
VARIANTS = {"cifar10_small": ((0,), (0, 1, 2))}  # seeds of crops, of jitters


def of(low, jitter):
    """The change that gives SimCLR's views this least area and this jitter."""
    return {"views": {**strengths(32, low=low, jitter=jitter), "mean": CIFAR_MEAN, "std": CIFAR_STD}}


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    few, several = VARIANTS[variant]
    common = {**TINY, **COLD, **AT_ENDS}
    crops = [("Least area of a crop", f"area {low:g}", "simclr", of(low, 1.0)) for low in LOWS]
    jitters = [("Colour jitter", f"jitter x {jitter:g}", "simclr", of(OWN, jitter)) for jitter in JITTERS]
    return ConfigDict(
        dict(
            question=(
                "How strong? The least area of a crop and the strength of the colour jitter: the nats that two views "
                "then share and what they lead to."
            ),
            data_dir=None,
            steps=None,
            reference="jitter x 1",
            runs=(*runs(crops, variant, common, few), *runs(jitters, variant, common, several)),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "knn_top1", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
            curve="mi_nats",
        )
    )
