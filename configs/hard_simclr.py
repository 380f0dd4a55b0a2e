"""SimCLR with hard negatives: candidates weighed by e^{beta f}, false negatives subtracted.

Row of the paper (Robinson et al. 2021, released code): STL-10 87.44 with beta 1, prior .1, 84.26 debiased alone;
ResNet-50, 400 epochs, temperature .5. With prior > 0 the value is no bound on mutual information.

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
    config.method = make_batch_method(dict(kind="all"), dict(kind="hard", beta=1.0, prior=0.1), base.batch_temperature)
    return config
