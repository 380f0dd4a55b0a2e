"""Contrastive multiview coding: the lightness of an image against the colours of k others, and the reverse.

Row of the papers (Tian et al. 2020, released code: ImageNet-100 75.8, two ResNet-50 of half width; Wu et al. 2021,
recalled: CIFAR-10 85.6, ImageNet 48.2, ResNet-18). Two networks, two banks; evaluation reads both, side by side.

Drawing is there to reproduce the papers' k. It saves nothing: the whole bank, support=dict(kind='all'), takes less
time, its value has less variance and a higher ceiling.

Deviations from the released code: the two directions are averaged, not added; the own row is left out of an anchor's
candidates; draws are k in the mean; banks are written after the optimiser's step; crops of :imagenet are of a fifth of
the area or more, where the release takes .08 for ResNets. The release's binary NCE is form=dict(kind='binary',
momentum=1.).

Variants: :digits (default; embedded data, about 18 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame: see `ir`. Other splits: ydbdr, ycbcr, rgb (recipes.set_split).
"""

from mi_contrast.methods.recipes import pair_with_itself, recipe, set_split
from mi_contrast.methods.skeletons import make_split_bank_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    set_split(config, "lab")
    support = dict(kind="drawn", k=base.num_draws, of=dict(kind="all"))
    config.method = make_split_bank_method(support, base.bank_temperature, base.bank_start)
    return config
