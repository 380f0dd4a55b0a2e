"""PIRL: an image and its jigsaw, each against a bank of images.

The example's row of the bank is the positive of both branches, and takes only the image's embedding. Each branch has
half the weight. Results on ImageNet, linear top-1, ResNet-50: Misra and van der Maaten 2020 63.6 after 800 epochs;
the code of Tian et al. 2020 (InfoMin) 61.7 after 200.

The number of draws is k on average (Poisson), so that it does not depend on how the bank is divided over devices.
Drawing follows the papers and saves nothing: the whole bank, support=dict(kind='all'), takes less time and has less
variance and a higher ceiling.

Batch statistics pass through the image first, then through its nine patches. Differences from the released code: the
own row is not a candidate of its anchor. There are as many draws as in configs/ir.py. Patches have no jitter, as in
the code of Tian et al. 2020.

Variants: :digits (default, data shipped with the package; about 21 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame: see configs/ir.py.
"""

from mi_contrast.methods.recipes import pair_with_itself, recipe, set_views
from mi_contrast.views.policies import pirl

PAPER = "Misra et al. 2020"


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
