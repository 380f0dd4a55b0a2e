"""Views that are learned: a generator g, pixel by pixel, whose channel 0 is one view and whose channels 1 and 2 are the
other, learns to leave them little in common while the networks learn what they have in common.

Row of the paper (Tian et al. 2020, InfoMin, views learned; recalled, STL-10 linear accuracy, mean and deviation):
from RGB, unsupervised 82.4 +- 3.2, supervised 79.9 +- 1.5, semi-supervised 86.0 +- 0.6, raw views 81.5 +- 0.2; from
YDbDr 84.3, 78.5, 87.0, 86.6. The unsupervised objective does not know the task and is unstable: look at several seeds.

Unknown there, and chosen here: 6 couplings of 16 hidden units; Adam at .001 down to 0 for the generator, .001 for the
classifiers (tiny networks); equal weights of nats and labels, as the paper writes them; a move of the generator at each
step of the networks; a tenth of the labels, met in the batch as they come, where the paper takes a second batch of
labelled images. The rate is what keeps a flow gentle enough for float32 to undo: after 150 steps on digits at .001
`inverse_error` was 6e-7, at .01 it was .03. The sections of `generator.learn`:

  objective    unsupervised, semi_supervised or supervised
  nats, labels   weights of the two, where the objective has them
  labelled     share of the training examples whose label may be looked at
  lr, every    of the generator: its rate, and at each how many steps of the networks it moves
  classifier   backbone, width and rate of the two classifiers

The flow is model.split.flow and views.split.flow: 'additive' (volume is preserved), 'affine', or 'free' (not
invertible). Afterwards fresh networks are trained on the frozen generator's views:

  python -m mi_contrast.main --config=configs/learned_views.py --config.generator.start_from=runs/learn_views-digits

Variants: :digits (default; embedded data, 10 to 20 minutes on 2 busy cores), :cifar10_small (10 to 20 minutes on 2
cores), :cifar10, :cifar100, :stl10 (its labels want split='train'), :imagenet (for accelerators).
"""

from ml_collections import ConfigDict

from mi_contrast.core.schedules import cosine
from mi_contrast.methods.recipes import GENERATOR, make_split_config

LEARN = dict(
    objective="unsupervised",
    nats=1.0,
    labels=1.0,
    labelled=0.1,
    lr=cosine(0.001, 0.0),
    every=1,
    classifier=dict(backbone="tiny", width=32, lr=0.001),
)


def get_config(variant="digits"):
    config = make_split_config(variant, GENERATOR)
    with config.unlocked():
        config.generator.learn = ConfigDict(LEARN)
    return config
