"""Which views? Each augmentation of MoCo v2 left out in turn.

The question of Wu et al. 2020: two views bound what a representation may keep, so what each augmentation takes away
shows in the accuracy and in the nats that the views share. More shared nats need not mean a better representation.

Variants: :digits (default; embedded data, 2,000 steps, one seed, three to four minutes a run on 2 cores; pairs are two
frames that share the digit, so the views differ by more than their augmentations), :cifar10_small (as
configs/moco.py has it, 5 to 10 minutes a run on 2 cores; give --config.data_dir).
"""

from ml_collections import ConfigDict

from mi_contrast.core.config import plain
from mi_contrast.core.errors import unknown
from mi_contrast.methods.recipes import recipe
from mi_contrast.studies.settings import OFTEN
from mi_contrast.views.policies import moco_v2, two_crops

VARIANTS = {"digits": ({"steps": 2000}, (0,)), "cifar10_small": ({}, (0,))}


def get_config(variant="digits"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, seeds = VARIANTS[variant]
    base = plain(recipe(variant).config.views)
    whole = moco_v2(base["size"])["query"]
    ops = {name: whole[name] for name in whole["order"]}
    rows = [("all five", ops)]
    rows += [(f"without {out}", {name: op for name, op in ops.items() if name != out}) for out in ops]
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
                        **OFTEN,
                        "views": two_crops(base["size"], kept, base["mean"], base["std"]),
                    },
                    seeds=seeds,
                )
                for label, kept in rows
            ),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "knn_top1", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats", "alignment", "uniformity"),
        )
    )
