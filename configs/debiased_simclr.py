"""SimCLR debiased: the share of false negatives subtracted.

Row of the paper (Chuang et al. 2020, released code): STL-10 84.26 with prior .1, 80.15 without; ResNet-50,
temperature .5. Hard negatives with beta 0.

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
    config.method = make_batch_method(dict(kind="all"), dict(kind="hard", beta=0.0, prior=0.1), base.batch_temperature)
    return config
