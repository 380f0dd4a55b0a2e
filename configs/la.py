"""Local aggregation: bank rows of the anchor's clusters as positives, its nearest rows as candidates.

Candidates are the 4,096 nearest rows. Rows that share a cluster with the anchor in any of several k-means clusterings
are positives. The bank's momentum is .5. Instance discrimination against the whole bank comes first.

Paper: Zhuang et al. 2019, ResNet-50 on ImageNet, linear top-1 58.8 after 200 epochs (as Tian et al. 2020 quote it).

Recipes of the paper: :paper_imagenet is that of Zhuang et al. 2019 for ResNet-18: batches of 128, SGD at .03, a tenth
of it from 80 % and a hundredth from 94 % of 200 epochs, 10 clusterings of 30,000, made anew each epoch, after 10
epochs of instance discrimination. The paper gives no other data set. :paper_cifar10, :paper_cifar100 and :paper_stl10
are ours: the recipe of configs/ir.py, under which Wu et al. 2020 compare, with those clusterings and as many examples
for each cluster as on ImageNet. `mi_contrast.methods.papers` gives each value's source.

Differences from the released code: the variants give a quarter of the run to instance discrimination, since the bank
of a short run takes longer, and make 3 clusterings, anew every 5 epochs. The own row is always a positive, beside
4,096 others, so that an anchor without close rows has the value of a ball and not log(1e-7). Clusterings exist from
the first step on and are made anew whatever the batch size. See also configs/ir.py.

Variants: :digits (default, data shipped with the package; about 11 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame. Its background tells it apart as well as its digit does, and a bank has one row for each
example, so the background cannot be redrawn: expect nats, but no digit.
"""

from mi_contrast.core.schedules import step
from mi_contrast.methods import papers
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method

PAPER = "Zhuang et al. 2019"
# The share of the run that is instance discrimination, then clusterings and epochs between them. Released: 10 of 200
# epochs, 10 clusterings, anew each epoch; the bank of a short run takes longer to learn something.
OURS, RELEASED = (0.25, 3, 5), (0.05, 10, 1)


def get_config(variant="digits"):
    base = recipe(variant, papers.LOCAL_AGGREGATION)
    config = base.config
    pair_with_itself(config)
    close = None if base.num_draws is None else base.num_draws + 1
    support = dict(kind="close", by="clusters", of=dict(kind="nearest", k=close))
    share, clusterings, every_epochs = RELEASED if variant in papers.LOCAL_AGGREGATION else OURS
    clusters = dict(number=base.num_clusters, clusterings=clusterings, every_epochs=every_epochs)
    method = make_bank_method(support, base.bank_temperature, base.bank_start, momentum=0.5, clusters=clusters)
    (local,) = method["terms"]
    discriminate = {**local, "support": dict(kind="all"), "weight": step((1.0, 0.0), (share,))}
    config.method = {**method, "terms": (discriminate, {**local, "weight": step((0.0, 1.0), (share,))})}
    return config
