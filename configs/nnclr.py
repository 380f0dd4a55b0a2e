"""NNCLR: the anchor's nearest neighbour in a queue stands in for the anchor.

The neighbour is looked up before the queue takes this step's embeddings. It carries no gradient. Gradients flow through
the other view's predictions, both the positive's and the other examples'. Results of Dwibedi et al. 2021 on ImageNet:
unknown.

Differences from solo-learn's code: the example's own older rows are no neighbours. While the queue is empty the
embedding is its own neighbour. The two directions are averaged. Batch statistics pass through the second view first.
As there, the queue takes the first view's embeddings.

Variants: :digits (default, data shipped with the package; about 5 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.views.policies import simclr

PAPER = "Dwibedi et al. 2021"


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    config.model.head = dict(kind="mlp_bn", layers=3, hidden=512, dim=128)
    config.model.predictor = dict(hidden=512, layers=2)
    term = dict(
        look_up="queue", support=dict(kind="all"), form="softmax", temperature=base.queue_temperature, weight=0.5
    )
    config.method = dict(
        views="two_crops",
        target="none",
        pools=dict(
            queue=dict(size=base.queue_size, takes="query"),
            keys=dict(kind="in_batch", views=("key",)),
            queries=dict(kind="in_batch", views=("query",)),
        ),
        terms=(
            dict(anchor="query", positive="key", pool="keys", **term),
            dict(anchor="key", positive="query", pool="queries", **term),
        ),
    )
    return config
