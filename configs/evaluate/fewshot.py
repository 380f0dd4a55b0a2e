"""Few-shot evaluation: many episodes of a few classes with a few examples each, with a classifier in closed form.

An episode draws 5 classes, k examples of each from the fitting split and 15 queries of each from the test split, so
that no image is on both sides. The score is the mean over 1,000 episodes, and its interval is 1.96 standard errors of
that mean. The interval covers the draw of episodes from this data set, not other data sets. The classes are those of
the set; the backbone may have been trained on their images, without labels.

  :ridge       (default) ridge regression on one-hot labels, unit-norm features, l2 .1; 5 shots
  :one_shot    the same with one example per class
  :prototypes  nearest mean (Snell et al. 2017), unit-norm features; 5 shots
  :cosine      nearest mean by cosine; 5 shots
"""

from mi_contrast.core.errors import unknown
from mi_contrast.evaluation.task_config import make_config

PAPER = "Snell et al. 2017"
RIDGE = dict(kind="fewshot", by="ridge", ways=5, shots=5, queries=15, episodes=1000, l2=0.1, normalise=True)
TASKS = {
    "ridge": RIDGE,
    "one_shot": dict(RIDGE, shots=1),
    "prototypes": dict(RIDGE, by="prototypes"),
    "cosine": dict(RIDGE, by="cosine"),
}


def get_config(variant="ridge"):
    if variant not in TASKS:
        raise unknown("variant of fewshot", variant, TASKS)
    return make_config(TASKS[variant])
