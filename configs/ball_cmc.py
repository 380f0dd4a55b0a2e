"""Contrastive multiview coding against draws from the closest part of the other channel's bank.

Row of the papers (Wu et al. 2020): figures unknown. The ball begins as the whole bank and narrows to its closest
tenth over the first half of training; as many draws as `cmc` has.

Drawing is there to reproduce the papers' k. It saves nothing: the whole ball, support=ball, takes less time and its
value has less variance.

Deviations from the released code: the two directions are averaged, not added; the own row is left out of an anchor's
candidates; banks are written after the optimiser's step. The release's binary NCE is form=dict(kind='binary',
momentum=1.).

Variants: :digits (default; embedded data, about 18 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame: see `ir`. Other splits: ydbdr, ycbcr, rgb (recipes.set_split).
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import pair_with_itself, recipe, set_split
from mi_contrast.methods.skeletons import make_split_bank_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    set_split(config, "lab")
    ball = dict(kind="ball", lower=linear(0.0, 0.90, end=0.5))
    support = dict(kind="drawn", k=base.num_draws, of=ball)
    config.method = make_split_bank_method(support, base.bank_temperature, base.bank_start)
    return config
