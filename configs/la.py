"""Local aggregation: bank rows of the anchor's clusters as positives, its nearest rows as candidates.

Row of the paper (Zhuang et al. 2019): ImageNet ResNet-18, 10 clusterings of 30,000. Background the 4,096 nearest
rows, bank momentum .5; close rows share a cluster in any of 3 clusterings, made anew before the first step and every
5 epochs.

Deviations from the released code: instance discrimination comes first for a quarter of the run, against the whole
bank, where the release gives it 10 epochs; the own row is always a positive, beside 4,096 others, so that an anchor
without close neighbours has a ball's value and not log(1e-7); the clusterings are there from the first step on and are
made anew whatever the batch size; see also `ir`.

Variants: :digits (default; embedded data, about 11 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame, so that its background tells it apart as well as its digit; a row of the bank can't share one and redraw the
other. Expect nats, and no digit.
"""

from mi_contrast.core.schedules import step
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method

START = 0.25  # of the run is instance discrimination (released: 10 of 200 epochs; a short run's bank takes longer)


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    support = dict(kind="close", by="clusters", of=dict(kind="nearest", k=base.num_draws + 1))
    clusters = dict(number=base.num_clusters, clusterings=3, every_epochs=5)
    method = make_bank_method(support, base.bank_temperature, base.bank_start, momentum=0.5, clusters=clusters)
    (local,) = method["terms"]
    discriminate = {**local, "support": dict(kind="all"), "weight": step((1.0, 0.0), (START,))}
    config.method = {**method, "terms": (discriminate, {**local, "weight": step((0.0, 1.0), (START,))})}
    return config
