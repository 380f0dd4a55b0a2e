"""MoCo v3: both directions against the batch's keys, with a predictor on the online side and without a queue.

Candidates are the keys of the other view: B - 1 of them, and the positive. Results of Chen, Xie and He 2021, released
code, ImageNet linear top-1: ResNet-50 68.9, 72.8 and 74.6 after 100, 300 and 1,000 epochs; ViT-S 73.2 after 300.

Recipes of the paper: :paper_imagenet (100 epochs), :paper_imagenet_300 and :paper_imagenet_1000, ResNet-50 in batches
of 4,096 by LARS, temperature 1, and :paper_imagenet_vit, ViT-S/16 by AdamW, temperature .2, 300 epochs. In all of
them the target's momentum rises to 1 along a cosine. The released predictor of the ViT ends in a batch norm, this one
does not. `mi_contrast.methods.papers` gives each value's source.

Differences from the released code: the two directions are averaged, not added, and the loss is not scaled by twice
the temperature; neither matters to LARS or AdamW but beside the weight decay. The variants have a constant momentum,
their own optimiser and smaller heads.

A transformer takes the ResNet's place in any variant by flags, with its patch embedding held at its first values:
    --config.model.backbone=vit_small --config.optim.kind=adamw --config.optim.weight_decay=.1
Patches have 16 pixels a side in :imagenet and 4 elsewhere.

Variants: :digits (default, data shipped with the package; about 7 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods import papers
from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.views.policies import moco_v3

PAPER = "Chen et al. 2021"


def get_config(variant="digits"):
    base = recipe(variant, papers.MOCO_V3)
    config = base.config
    config.model.norm.groups = base.norm_groups
    if variant not in papers.MOCO_V3:
        set_views(config, moco_v3)
        config.model.head = dict(kind="mlp_bn", layers=2, hidden=512, dim=128)
        config.model.predictor = dict(hidden=512, layers=2)
    term = dict(support=dict(kind="all"), form="softmax", temperature=base.batch_temperature, weight=0.5)
    config.method = dict(
        views="two_crops",
        target="ema",
        momentum=base.target_momentum if variant in papers.MOCO_V3 else 0.99,
        pools=dict(keys=dict(kind="in_batch", views=("key",)), queries=dict(kind="in_batch", views=("query",))),
        terms=(
            dict(anchor="query", positive="key", pool="keys", **term),
            dict(anchor="key", positive="query", pool="queries", **term),
        ),
    )
    return config
