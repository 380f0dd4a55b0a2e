"""MoCo v3: both directions against the batch's keys, with a predictor on the online side, without a queue.

Row of the paper (Chen et al. 2021, released code): ImageNet linear top-1 68.9, 72.8 and 74.6 at 100, 300 and 1,000
epochs, ResNet-50, batch 4,096, LARS. Candidates are the keys of the other view, B - 1 of them and the positive.

Deviations from the released code: the two directions are averaged, not added, and not scaled by 2 temperature;
momentum is constant where the release lets it rise to 1 by a flag; optimiser and sizes as the variant has them.

The paper's transformers take the ResNet's place by flags, their patch embedding held at its first values:
    --config.model.backbone=vit_small --config.optim.kind=adamw --config.optim.weight_decay=.1
patches are of 16 pixels in :imagenet and of 4 elsewhere. (Released: 12 heads, model.heads=12 and model.width=32; a head
of 3 layers, hidden 4,096, dim 256; lr 1.5e-4 x batch / 256 after 40 epochs of warmup.)

Variants: :digits (default; embedded data, about 7 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.views.policies import moco_v3


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    config.model.norm.groups = base.norm_groups
    set_views(config, moco_v3)
    config.model.head = dict(kind="mlp_bn", layers=2, hidden=512, dim=128)
    config.model.predictor = dict(hidden=512, layers=2)
    term = dict(support=dict(kind="all"), form="softmax", temperature=base.batch_temperature, weight=0.5)
    config.method = dict(
        views="two_crops",
        target="ema",
        momentum=0.99,
        pools=dict(keys=dict(kind="in_batch", views=("key",)), queries=dict(kind="in_batch", views=("query",))),
        terms=(
            dict(anchor="query", positive="key", pool="keys", **term),
            dict(anchor="key", positive="query", pool="queries", **term),
        ),
    )
    return config
