"""Linear evaluation: a linear classifier on frozen features, fitted on one split, scored once on another.

Images are resized and centre-cropped, never augmented; the features are taken once, so that a fit takes seconds
(22,992 features of 128 numbers on 2 cores: about 3 s for 100 epochs of SGD, about 1 s for L-BFGS). The score is that
of the last epoch. Batch statistics stay as training left them.

A learning rate belongs to a scale of features, so there is one variant a recipe, not one rate for all:
  :standard  (default) Ring's optimiser on features standardised by the fitting split: for any backbone
  :ring      Wu et al. 2021: SGD, lr .01, momentum .9, weight decay 1e-5, batches of 256, 100 epochs, features as they
             come (pooled ResNet-18)
  :moco      He et al. 2020: SGD, lr 30 divided by ten at 60 and 80 % of 100 epochs, no weight decay, features as they
             come (pooled ResNet-50); the rate is far too large for features of another scale
  :logistic  the optimum of the regularised problem, by L-BFGS: no rate to choose, nothing drawn

The papers' probes train on augmented crops; these don't, so their figures are not the papers' to the last point.
"""

from ml_collections import ConfigDict

from mi_contrast.core import schedules
from mi_contrast.core.errors import unknown

SGD = dict(kind="linear", solver="sgd", lr=0.01, momentum=0.9, weight_decay=1e-5, epochs=100, batch_size=256)
TASKS = {
    "standard": dict(SGD, standardise=True),
    "ring": dict(SGD, standardise=False),
    "moco": dict(SGD, standardise=False, lr=schedules.step((30.0, 3.0, 0.3), (0.6, 0.8)), weight_decay=0.0),
    "logistic": dict(kind="linear", solver="lbfgs", l2=1e-4, iterations=1000, tolerance=1e-5, standardise=True),
}


def get_config(variant="standard"):
    if variant not in TASKS:
        raise unknown("variant of linear", variant, TASKS)
    return ConfigDict(
        dict(
            task=TASKS[variant],
            # None: the backbone's own training set, its splits, options and label
            data=dict(name=None, dir=None, split=None, test_split=None, options=None, label=None),
            batch_size=256,  # of encoding; no score depends on it
            seed=0,
        )
    )
