"""PIRL: an image and its jigsaw, each against a bank of images.

Row of the papers (Misra and van der Maaten 2020: ImageNet linear top-1 63.6, ResNet-50, 800 epochs; re-implemented
beside InfoMin: 61.7, 200 epochs). The bank row is the positive of both branches and takes the image's embedding
alone; each branch has half the weight.

Drawing is there to reproduce the papers' k. It saves nothing: the whole bank, support=dict(kind='all'), takes less
time, its value has less variance and a higher ceiling.

Batch statistics pass through the image first, then its nine patches. Deviations from the released code: the own row
is left out of an anchor's candidates, which are the draws of `ir`; patches see no jitter, as in the re-
implementation.

Variants: :digits (default; embedded data, about 21 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame: see `ir`.
"""

from mi_contrast.methods.recipes import pair_with_itself, recipe, set_views
from mi_contrast.views.policies import pirl


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    set_views(config, pirl)
    config.model.jigsaw = dict(dim=128)
    term = dict(
        positive="row",
        pool="bank",
        support=dict(kind="drawn", k=base.num_draws, of=dict(kind="all")),
        form="softmax",
        temperature=base.bank_temperature,
        weight=0.5,
    )
    config.method = dict(
        views="jigsaw",
        target="none",
        pools=dict(bank=dict(momentum=0.5, start=base.bank_start, takes="query")),
        terms=(dict(anchor="query", **term), dict(anchor="jigsaw", **term)),
    )
    return config
