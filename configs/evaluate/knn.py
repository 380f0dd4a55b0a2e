"""Nearest neighbours among frozen features: nothing is fitted, so nothing can be tuned on the test split.

Each test image gets the vote of its k nearest fitting images by cosine, each with weight e^{cos / temperature}
(Wu et al. 2018; k 200, temperature .07). With fewer than 200 fitting images k is a tenth of them, unless
--config.task.k=K says another; the result names it. Images are resized and centre-cropped, never augmented.
"""

from mi_contrast.evaluation.task_config import make_config

PAPER = "Wu et al. 2018"


def get_config():
    return make_config(dict(kind="knn", k=None, temperature=0.07))
