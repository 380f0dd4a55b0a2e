"""How far apart should two views be? They are two patches of a photograph, d pixels apart along both axes.

This is a curve of Tian et al. 2020 (InfoMin): nearer patches share more nats, and accuracy rises and then falls with
the distance. There, patches of 64 pixels lay 64 to 384 pixels apart in photographs of 2,000 pixels, and about 128,
twice their side, was best. All of this is recalled, and only the order is compared. Their photographs are large because
in small ones a large d leaves only the borders. Here patches have 32 pixels in photographs of 768 x 512, so that d runs
from a quarter of a side to six sides.

The method is SimCLR's (configs/simclr.py) at temperature .2, with the two patches as views, not augmented. Both patches
lie in one tile of 224 pixels, wherever both fit. Tiles start at every eighth pixel, so that 24 photographs have 61,272
tiles, the same ones for each d. The nats are InfoNCE on 1,024 pairs in held-out tiles. These overlap with training
tiles, so the nats are those between parts of these photographs, not of others. Representations are judged on other data
sets.

Variants: :kodak24 (default; batches of 128, 600 steps, a tiny network of width 64, three seeds, minutes per run on 2
cores; needs --config.data_dir, a folder with cifar10 and dtd10 as TFDS has them and with the photographs in kodak24/).
Another folder of photographs can take that name; the sets may be links.
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import LOW_TEMPERATURE, MEASURE_AT_ENDS, TINY, make_runs
from mi_contrast.views.policies import patches

PAPER = "Tian et al. 2020"
DISTANCES = (8, 16, 32, 64, 96, 128, 192)
PHOTOGRAPHS = {
    "data.name": "folder:kodak24", "data.options": dict(tile=224, stride=8, groups="tile"), "data.resident": False,
}  # fmt: skip
VARIANTS = {"kodak24": (0, 1, 2)}


def get_config(variant="kodak24"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    group = "Distance of two patches of 32 pixels"
    rows = [(group, f"{distance} pixels", "simclr", {"views": patches(32, distance)}) for distance in DISTANCES]
    return ConfigDict(
        dict(
            question=(
                "How far apart? Two patches of a photograph at a diagonal distance: the nats they share and what they "
                "lead to on other images."
            ),
            data_dir=None,
            steps=None,
            reference="64 pixels",
            runs=make_runs(
                rows, "cifar10_small", {**PHOTOGRAPHS, **TINY, **LOW_TEMPERATURE, **MEASURE_AT_ENDS}, VARIANTS[variant]
            ),
            evaluate=tuple(
                dict(config="configs/evaluate/linear.py", changes={"data.name": name}) for name in ("cifar10", "dtd10")
            ),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear-cifar10", "linear-dtd10", "mi_nats"),
            curve="mi_nats",
        )
    )
