"""Cross-domain evaluation: a classifier fitted on one data set and tested on a second one with the same classes.

How well do the features carry over to images of another kind? The features are frozen. Both sets are resized to the
backbone's size.

  python -m mi_contrast.evaluate --config=configs/evaluate/cross_domain.py --backbone=runs/x
      --config.data.test_name=NAME

For example, a backbone trained on moving_digits, fitted on their digits and tested on MNIST:

      --config.data.test_name=mnist --config.data.test_label=label --config.data.test_dir=/data/tfds

  :logistic  (default) logistic regression by L-BFGS; the regulariser is chosen on a fifth of the fitting split
  :sgd       SGD at ten learning rates, of which one is chosen on a fifth of the fitting split
  :knn       vote of the 200 nearest neighbours in the fitting split

The classifier is fitted on data.name (by default the backbone's training set), its split data.split and its label
data.label. It is tested on these fields of the second set:

  data.test_name     name of the set, or folder:PATH
  data.test_split    'test' by default
  data.test_dir      folder of the set; data.dir by default
  data.test_label    name of its label; data.label by default
  data.test_options  options of the set, such as size=32 of moving_digits; none by default

Classes are matched by name, in any order. If a class is in one of the sets only, the evaluation is refused, and the
message names the class. The choice of a setting uses the fitting split only, so the second set plays no part in it.

For an upper limit, evaluate with configs/evaluate/linear.py --config.data.name=NAME, which fits on the second set.
"""

from mi_contrast.core.config import load_config
from mi_contrast.core.errors import unknown

TASKS = {"logistic": "linear.py:logistic", "sgd": "linear.py:grid", "knn": "knn.py"}


def get_config(variant="logistic"):
    if variant not in TASKS:
        raise unknown("variant of cross_domain", variant, TASKS)
    config, *_ = load_config(f"configs/evaluate/{TASKS[variant]}")
    config.data.test_name = ""  # must be given
    return config
