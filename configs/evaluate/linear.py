"""Linear evaluation: fits a linear classifier on frozen features of one split and scores another split once.

Images are resized and centre-cropped. Features are extracted once and cached, so that a fit takes seconds (22,992
features of 128 numbers on 2 cores: about 3 s for 100 epochs of SGD, about 1 s for L-BFGS). The score is that of the
last epoch. Batch statistics stay as training left them. The fitted classifier is stored next to the result.

A learning rate fits one scale of features, so each recipe has a variant of its own:
  :standard  (default) Ring's optimiser on features standardised by the fitting split; suits any backbone
  :grid      the same at ten learning rates, fitted in one run. The rate is chosen on a fifth of the fitting split, and
             the classifier is fitted again on all of it. Report this one for a backbone whose scale is unknown
  :ring      Wu et al. 2021: SGD, lr .01, momentum .9, weight decay 1e-5, batches of 256, 100 epochs, features not
             standardised (pooled ResNet-18)
  :moco      He et al. 2020: SGD, lr 30 divided by ten at 60 and 80 % of 100 epochs, no weight decay, features not
             standardised (pooled ResNet-50). This rate is far too large for features of another scale
  :moco_grid MoCo's schedule at ten rates from .03 to 100, chosen as in :grid
  :logistic  logistic regression to its optimum, by L-BFGS: no learning rate and no randomness. The regulariser is
             chosen on a fifth of the fitting split

No choice uses the test split. If the best value lies at the edge of its grid, the result says so.

  features.layer=map     the last feature map, flattened, as in Wu et al. 2020. It has many more weights, so its scores
                         can't be compared with those of pooled features
  features.views=crops   fits on random crops and flips, features.copies of each image, as the probes of MoCo and Ring
                         do. 'train' takes the backbone's own augmentation; other policies have names, too. Test images
                         are not augmented. Flips make some labels, such as digits and signs, harder
  data.test_name=NAME    tests on a second set with the same classes; see cross_domain.py
"""

from mi_contrast.core import schedules
from mi_contrast.core.errors import unknown
from mi_contrast.evaluation.task_config import make_config

TIME = "3 seconds"  # a fit, once features are cached
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
    return make_config(TASKS[variant])
