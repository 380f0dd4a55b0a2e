"""Supervised contrastive learning: every example of the anchor's class is a positive.

It reads labels in training, which no other method does: it shows what the others could reach at best. Results of Khosla
et al. 2020, released code, ResNet-50, temperature .1, 1,000 epochs: CIFAR-10 96.0, CIFAR-100 76.5 (their SimCLR: 93.6
and 70.7).

Differences from the released code: the loss is not scaled by temperature / .07, and the two directions are averaged.

Variants: :digits (default, data shipped with the package; about 5 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr

PAPER = "Khosla et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    config.method = make_batch_method(
        dict(kind="close", by="label", of=dict(kind="all")), dict(kind="softmax", reduce="mean"), base.queue_temperature
    )
    return config
