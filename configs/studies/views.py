"""Which augmentations matter? Each augmentation of MoCo v2 is left out in turn.

This is a question of Wu et al. 2021. A representation can keep only what two views share. What an augmentation removes
therefore shows in the accuracy and in the nats between the views. More shared nats need not mean a better
representation.

Variants: :digits (default; data shipped with the package, 2,000 steps, one seed, three to four minutes per run on 2
cores; a pair is two frames with the same digit, so its views differ by more than their augmentation), :cifar10_small
(as in configs/moco.py, 5 to 10 minutes per run on 2 cores; needs --config.data_dir).
"""

from ml_collections import ConfigDict

from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import unknown
from mi_contrast.methods.recipes import recipe
from mi_contrast.studies.settings import SAVE_OFTEN
from mi_contrast.views.policies import moco_v2, two_crops

PAPER = "Wu et al. 2021"
VARIANTS = {"digits": ({"steps": 2000}, (0,)), "cifar10_small": ({}, (0,))}


def get_config(variant="digits"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, seeds = VARIANTS[variant]
    base = to_plain_data(recipe(variant).config.views)
    whole = moco_v2(base["size"])["query"]
    ops = {name: whole[name] for name in whole["order"]}
    rows = [("all five", ops)]
    rows += [(f"without {left_out}", {name: op for name, op in ops.items() if name != left_out}) for left_out in ops]
    rows += [("crop alone", {"crop": ops["crop"]})]
    return ConfigDict(
        dict(
            question=(
                "Which views? Each augmentation of MoCo v2 left out in turn: what it is worth in accuracy, and what "
                "the two views then share in nats."
            ),
            data_dir=None,
            steps=None,
            reference="all five",
            runs=tuple(
                dict(
                    label=label,
                    config="configs/moco.py",
                    variant=variant,
                    changes={
                        **common,
                        **SAVE_OFTEN,
                        "views": two_crops(base["size"], ops_of_run, base["mean"], base["std"]),
                    },
                    seeds=seeds,
                )
                for label, ops_of_run in rows
            ),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "knn_top1", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats", "alignment", "uniformity"),
        )
    )
