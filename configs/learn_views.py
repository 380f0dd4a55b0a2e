"""Learned views: a generator learns to leave its channels little in common while networks learn what they share.

The generator g works pixel by pixel. Channel 0 of its output is one view, channels 1 and 2 are the other.

Results of Tian et al. 2020 (InfoMin), STL-10 linear accuracy, mean and deviation (recalled): from RGB, unsupervised
82.4 +- 3.2, supervised 79.9 +- 1.5, semi-supervised 86.0 +- .6, raw views 81.5 +- .2; from YDbDr 84.3, 78.5, 87.0 and
86.6. The unsupervised objective does not know the task and is unstable: look at several seeds.

The paper's values of these are unknown, and chosen here: 6 couplings of 16 hidden units; Adam at .001 down to 0 for
the generator and at .001 for the classifiers, which are tiny networks; equal weights of nats and labels, as the paper
writes them; one move of the generator for each step of the networks; a tenth of the labels, met in the batch as they
come, where the paper takes a second batch of labelled images. The rate keeps a flow gentle enough for float32 to
invert: after 150 steps on digits `inverse_error` was 6e-7 at a rate of .001, and .03 at .01. The fields of
`generator.learn`:

  objective    unsupervised, semi_supervised or supervised
  nats, labels   weights of the two parts, where the objective has them
  labelled     share of the training examples whose label may be used
  lr, every    the generator's learning rate, and the number of the networks' steps for each of its own
  classifier   backbone, width and learning rate of the two classifiers

The flow is model.split.flow and views.split.flow: 'additive' (it preserves volume), 'affine', or 'free' (not
invertible). Afterwards, train fresh networks on the views of the frozen generator:

  python -m mi_contrast.main --config=configs/learned_views.py --config.generator.start_from=runs/learn_views-digits

Variants: :digits (default, data shipped with the package; 10 to 20 minutes on two busy cores), :cifar10_small (10 to 20
minutes on two cores), :cifar10, :cifar100, :stl10 (labels need data.split='train') and :imagenet (for accelerators).
"""

from ml_collections import ConfigDict

from mi_contrast.core.schedules import cosine
from mi_contrast.methods.recipes import GENERATOR, make_split_config

PAPER = "Tian et al. 2020"
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
