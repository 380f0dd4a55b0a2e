"""Does a ring help once learning has run its course? ir and moco against their rings, at length, by a plan made before.

Wu et al. 2021 report 2 to 5 points more with ring negatives, after 200 epochs. The other studies have runs of a few
hundred or thousand steps. This one follows docs/studies/plans/ring_trial.md, which was written before its first run:
hypothesis, settings and the split they are chosen on, seeds, and what would count as shown.

CIFAR-10, of which the data set at hand may hold a part: 25,000 images train here, less the twentieth that every run
holds out. The network is a ResNet-18 of width 16 with the 7x7 stem and the pool after it, as the paper's, so that an
epoch is affordable on one core. All four methods draw 4,095 negatives for an anchor: ir from a bank of all images, moco
from a queue of 16,384 keys, and the rings from the band that 90 to 99 % of those candidates lie below.

Variants:
  :choose  chooses the temperature of each method, and whether its ring is annealed, in ten epochs of the first nine
           tenths of the training split, judged on the last tenth. One seed, 18 runs of about five minutes on one core
  :trial   (default) four methods with the chosen settings, three seeds, 100 epochs, judged on the test split: 12 runs
           of about an hour on one core. A seed is complete before the next begins
  :tiny    four runs of a few steps, to see that it works

Two processes share the work, a core each, by --only='*ir*' and --only='*moco*' on one folder. Needs --config.data_dir.
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.core.schedules import linear

PAPER = "Wu et al. 2021"
TERM = "method.terms.0"
NUM_DRAWS, QUEUE = 4095, 16_384
TEMPERATURES = (0.07, 0.1, 0.2)
ANNEALED = {"lower": linear(0.0, 0.90, end=0.5), "upper": linear(0.90, 0.99, end=0.5)}
CONSTANT = {"lower": 0.90, "upper": 0.99}
# The settings of :trial, by the table of :choose. Until that is made they are the values of the configs themselves.
CHOSEN = {
    "ir": (0.1, None),
    "ring_ir": (0.1, ANNEALED),
    "moco": (0.1, None),
    "ring_moco": (0.1, ANNEALED),
}
IMAGES = {"trial": 23_750, "choose": 21_375}  # of 25,000, and of their first nine tenths, less a held-out twentieth
EPOCHS = {"trial": 100, "choose": 10}
BATCH = 256
TINY = {
    "steps": 6, "data.batch": 32, "model.width": 8, "eval.pairs": 16, "eval.knn_bank": 64, "log.every": 3,
    "data.split": "train[:2%]", "data.test_split": "train[98%:]", f"{TERM}.support.k": 63,
}  # fmt: skip


def make_changes(method, temperature, band):
    """Returns the changes of one setting: how candidates are drawn, the band of the ring, and the temperature."""
    kind = dict(kind="all") if band is None else dict(kind="ring", **band)
    changes = {f"{TERM}.support": dict(kind="drawn", k=NUM_DRAWS, of=kind), f"{TERM}.temperature": temperature}
    return changes | ({"method.pools.queue.size": QUEUE} if method.endswith("moco") else {})


def list_settings(variant):
    """Returns (label, method, temperature, band) of each setting."""
    if variant != "choose":
        return [(method, method, *settings) for method, settings in CHOSEN.items()]
    bands = {"ir": (None,), "moco": (None,), "ring_ir": (ANNEALED, CONSTANT), "ring_moco": (ANNEALED, CONSTANT)}
    return [
        (f"{'constant ' if band is CONSTANT else ''}{method}, temperature {temperature:g}", method, temperature, band)
        for method in CHOSEN
        for band in bands[method]
        for temperature in TEMPERATURES
    ]


def get_config(variant="trial"):
    if variant not in (*EPOCHS, "tiny"):
        raise unknown("variant", variant, (*EPOCHS, "tiny"))
    common = {"model.stem": "imagenet", "data.order": "epochs", "log.tensorboard": False}
    if variant == "tiny":
        common |= {"eval.every": 1000} | TINY
    else:
        epoch = IMAGES[variant] // BATCH
        common |= {"steps": EPOCHS[variant] * epoch, "eval.every": 5 * epoch, "checkpoint.every": 2 * epoch}
    if variant == "choose":
        common |= {"data.split": "train[:90%]", "data.test_split": "train[90%:]"}
    return ConfigDict(
        dict(
            question=(
                "Does a ring help once learning has run its course? ir and moco against their rings, 100 epochs of "
                "CIFAR-10, by a plan made before."
            ),
            data_dir=None,
            steps=None,
            reference=None,
            order="seeds",
            runs=tuple(
                dict(
                    group="",
                    label=label,
                    config=f"configs/{method}.py",
                    variant="cifar10_small",
                    changes={**make_changes(method, temperature, band), **common},
                    seeds=(0, 1, 2) if variant == "trial" else (0,),
                )
                for label, method, temperature, band in list_settings(variant)
            ),
            evaluate=(
                dict(config="configs/evaluate/linear.py", changes={"task.epochs": 2} if variant == "tiny" else {}),
                dict(config="configs/evaluate/knn.py", changes={"task.k": 20} if variant == "tiny" else {}),
            ),
            columns=(
                "mi_nats", "mi_ceiling", "knn_top1", "same_class", "same_instance", "bound_share", "bound_gap",
                "images_per_second",
            ),
            figure=("linear", "knn", "mi_nats", "same_class", "bound_share"),
        )
    )  # fmt: skip
