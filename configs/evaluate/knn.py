"""Nearest neighbours among frozen features: nothing is fitted, so nothing can be tuned on the test split.

Each test image gets the vote of its k nearest fitting images by cosine, each with weight e^{cos / temperature}
(Wu et al. 2018; k 200, temperature .07). Images are resized and centre-cropped, never augmented.
"""

from mi_contrast.evaluation.task_config import make_config

PAPER = "Wu et al. 2018"


def get_config():
    return make_config(dict(kind="knn", k=200, temperature=0.07))
