"""Few-shot evaluation: episodes of a few classes with a few examples each, a classifier in closed form for each.

An episode draws 5 classes, k examples of each from the fitting split and 15 queries of each from the test split (so
nothing that lies in one split only is ever on both sides). The score is the mean over 1,000 episodes, its interval
1.96 standard errors of that mean: it speaks of the draw of episodes from this set, not of other sets. The classes are
the set's own; the backbone may have seen their images in training, without labels.

  :ridge       (default) ridge regression on one-hot labels, features of length 1, l2 .1; 5 shots
  :one_shot    the same with one example a class
  :prototypes  nearest mean (Snell et al. 2017), features of length 1; 5 shots
  :cosine      nearest mean by cosine; 5 shots
"""

from mi_contrast.core.errors import unknown
from mi_contrast.evaluation.asked import config_of

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
    return config_of(TASKS[variant])
