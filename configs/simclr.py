"""SimCLR: two views of a batch, every other example of it a candidate.

Row of the paper (Chen et al. 2020; released code): ImageNet linear top-1 69.1, ResNet-50, 1,000 epochs; CIFAR-10
about 91, ResNet-18, batch 512.

Candidates are this step's other examples over all devices, both views, 2B - 2 of them, and the positive.

Deviations from the released code: the two directions are averaged, not added; head and optimiser as the variant has
them (released: three layers with batch norm, LARS); pixels are normalised by the data's mean and deviation (released:
[0, 1] as they are); on small images jitter of strength 1 and blur (released: .5 and none); bilinear crops.

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
    config.method = make_batch_method(dict(kind="all"), "softmax", base.batch_temperature)
    return config
