"""InfoMin: MoCo with stronger views, RandAugment among them, and a jigsaw branch.

The query and its jigsaw share the queue and the positive, which is the other crop's key. Each branch has half the
weight. Results of Tian et al. 2020, released code, ImageNet linear top-1, ResNet-50: 67.4, 70.1 and 73.0 after 100,
200 and 800 epochs.

Recipes of the paper: :paper_imagenet (200 epochs) and :paper_imagenet_800: ResNet-50, SGD at .03 by a cosine to a
thousandth of it, batches of 256, temperature .15, a queue of 65,536, patches encoded by a head of two layers. The
exact command of the 800-epoch run was never published; it differs here in its length alone.
`mi_contrast.methods.papers` gives each value's source.

Differences from the released code: those of configs/moco.py. Batch statistics pass through the query first, then
through its patches. In the variants the head of the patches is linear.

Variants: :digits (default, data shipped with the package; about 9 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits the crops stay light, and the jigsaw is added.
"""

from mi_contrast.methods import papers
from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.views.policies import infomin

PAPER = "Tian et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant, papers.INFOMIN)
    config = base.config
    config.model.norm.groups = base.norm_groups
    set_views(config, infomin)
    config.model.jigsaw = dict(kind="mlp", dim=128) if variant in papers.INFOMIN else dict(dim=128)
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
