"""Decoupled contrastive learning: SimCLR with the positive left out of the candidates.

Row of the paper (Yeh et al. 2022): figures unknown. No bound on mutual information, and no ceiling.

Deviations from the released code: the two directions are averaged, not added; candidates are this step's other
examples over all devices, both views, 2B - 2 of them and the positive; head and optimiser as the variant has them
(released: three layers with batch norm, LARS); bilinear crops.

Variants: :digits (default; embedded data, about 5 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    config.method = make_batch_method(dict(kind="all"), "decoupled", base.batch_temperature)
    return config
