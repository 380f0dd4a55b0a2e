"""InfoMin: MoCo with stronger views, RandAugment among them, and a jigsaw branch.

Row of the paper (Tian et al. 2020, released code, ImageNet linear top-1, ResNet-50): 67.4, 70.1 and 73.0 at 100, 200
and 800 epochs; temperature .15, queue of 65,536, momentum .999. The query and its jigsaw share the positive, the
other crop's key, and the queue; each branch has half the weight.

Deviations from the released code: as `moco`; batch statistics pass through the query first, then its patches; the head
of the patches is linear, where the release has two layers (model.jigsaw=dict(kind='mlp', dim=128)).

Variants: :digits (default; embedded data, about 9 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits the crops stay light
and the jigsaw is added.
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.views.policies import infomin


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    config.model.norm.groups = base.norm_groups
    set_views(config, infomin)
    config.model.jigsaw = dict(dim=128)
    term = dict(
        positive="key",
        pool="queue",
        support=dict(kind="all"),
        form="softmax",
        temperature=0.2 if variant == "digits" else 0.15,
        weight=0.5,
    )
    config.method = dict(
        views="jigsaw",
        target="ema",
        momentum=base.target_momentum,
        pools=dict(queue=dict(size=base.queue_size)),
        terms=(dict(anchor="query", **term), dict(anchor="jigsaw", **term)),
    )
    return config
