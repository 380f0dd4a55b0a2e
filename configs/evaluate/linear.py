"""Linear evaluation: a linear classifier on frozen features, fitted on one split, scored once on another.

Images are resized and centre-cropped; the features are taken once, and kept, so that a fit takes seconds (22,992
features of 128 numbers on 2 cores: about 3 s for 100 epochs of SGD, about 1 s for L-BFGS). The score is that of the
last epoch. Batch statistics stay as training left them. The fitted classifier lies beside the result.

A learning rate belongs to a scale of features, so there is one variant a recipe, not one rate for all:
  :standard  (default) Ring's optimiser on features standardised by the fitting split: for any backbone
  :grid      the same at ten learning rates, all fitted in one run; the rate is chosen on a fifth of the fitting split
             that is kept apart, then fitted anew on the whole of it: what to report of a backbone of unknown scale
  :ring      Wu et al. 2021: SGD, lr .01, momentum .9, weight decay 1e-5, batches of 256, 100 epochs, features as they
             come (pooled ResNet-18)
  :moco      He et al. 2020: SGD, lr 30 divided by ten at 60 and 80 % of 100 epochs, no weight decay, features as they
             come (pooled ResNet-50); the rate is far too large for features of another scale
  :moco_grid MoCo's schedule at ten rates from .03 to 100, chosen as in :grid
  :logistic  the optimum of the regularised problem, by L-BFGS: no rate to choose, nothing drawn; the regulariser is
             chosen on a fifth of the fitting split that is kept apart

No choice looks at the test split; where the best lies at the edge of its grid, the result says so.

  features.layer=map     the last map, flattened, as Wu et al. 2020 have it: many more weights, so its figures are not
                         comparable with those of pooled features
  features.views=crops   fits on random crops and flips, features.copies of each image, as MoCo's and Ring's probes do;
                         'train' takes the backbone's own augmentation, or give a policy's name. Test images stay as
                         they are. Flips make some labels (digits, signs) harder
  data.test_name=NAME    tests on another set of the same classes (its data.test_split; data.test_dir)
"""

from mi_contrast.core import schedules
from mi_contrast.core.errors import unknown
from mi_contrast.evaluation.asked import config_of

SGD = dict(kind="linear", solver="sgd", lr=0.01, momentum=0.9, weight_decay=1e-5, epochs=100, batch_size=256)
MOCO = dict(SGD, standardise=False, lr=schedules.step((30.0, 3.0, 0.3), (0.6, 0.8)), weight_decay=0.0)
LBFGS = dict(kind="linear", solver="lbfgs", iterations=1000, tolerance=1e-5, standardise=True)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # times lr
TASKS = {
    "standard": dict(SGD, standardise=True),
    "grid": dict(SGD, standardise=True, factors=RATES, validation=0.2),
    "ring": dict(SGD, standardise=False),
    "moco": MOCO,
    "moco_grid": dict(MOCO, factors=(0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 1.0, 2.0, 3.3), validation=0.2),
    "logistic": dict(LBFGS, l2=(1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5), validation=0.2),
}


def get_config(variant="standard"):
    if variant not in TASKS:
        raise unknown("variant of linear", variant, TASKS)
    return config_of(TASKS[variant])
