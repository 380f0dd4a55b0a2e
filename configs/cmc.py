"""Contrastive multiview coding: the lightness of an image against the colours of k others, and the reverse.

There are two networks and two banks. Evaluation reads the features of both networks side by side.

Results: Tian et al. 2020, released code, two ResNet-50 of half width: ImageNet-100 75.8; on ImageNet 60.0 after 240
epochs (Tian et al. 2020, InfoMin). Linear top-1 of Wu et al. 2021 with ResNet-18 (recalled): CIFAR-10 85.6, CIFAR-100
56.0, STL-10 63.0, ImageNet 48.2.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet. What Wu et al. 2021 set for
channels is unknown. These are their settings for configs/ir.py (ResNet-18 with the 7x7 stem, views of 224 pixels,
temperature .07, SGD at .03 by steps over 200 epochs) with the split, the networks of half width and the crops that
the code of Tian et al. 2020 has: flips alone, a least area of .2, and of .08 on ImageNet.
`mi_contrast.methods.papers` gives each value's source.

The number of draws is k on average (Poisson), so that it does not depend on how the bank is divided over devices.
Drawing follows the papers and saves nothing: the whole bank, support=dict(kind='all'), takes less time and has less
variance and a higher ceiling.

Differences from the released code: the two directions are averaged, not added. Under SGD this halves the step; give
each term the weight 1 for the released one. The own row is not a candidate of its anchor. The banks are written after
the optimiser's step. The first convolution has half the width too. The released binary NCE is
form=dict(kind='binary', momentum=1.). Crops of :imagenet have a fifth of the area or more.

Variants: :digits (default, embedded data; about 18 minutes on two busy cores), :cifar10_small (two ResNet-18 of width
8; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On :digits an example
is a frame: see configs/ir.py. Other splits: ydbdr, ycbcr, rgb (`recipes.set_split`).
"""

from mi_contrast.methods import papers
from mi_contrast.methods.recipes import pair_with_itself, recipe, set_split
from mi_contrast.methods.skeletons import make_split_bank_method


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    pair_with_itself(config)
    set_split(config, "lab", papers.LEAST_AREA.get(variant, 0.2))
    support = dict(kind="drawn", k=base.num_draws, of=dict(kind="all"))
    config.method = make_split_bank_method(support, base.bank_temperature, base.bank_start)
    return config
