"""Nearest neighbours among frozen features: nothing is fitted, so nothing can be tuned on the test split.

Each test image takes the vote of its k nearest fitting images by cosine, a neighbour weighing e^{cos / temperature}
(Wu et al. 2018; k 200, temperature .07). Images are resized and centre-cropped, never augmented.
"""

from mi_contrast.evaluation.asked import config_of


def get_config():
    return config_of(dict(kind="knn", k=200, temperature=0.07))
