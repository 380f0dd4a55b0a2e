"""Estimators of mutual information, in nats: from scores, per anchor, and from embeddings at any size of pool.

They know nothing of networks: `from mi_contrast import estimators as mi`.
"""

from mi_contrast.estimators import tasks
from mi_contrast.estimators.embeddings import contrast
from mi_contrast.estimators.honesty import bound_holds, ceiling
from mi_contrast.estimators.scores import ball, cave, contrastive, info_nce, rank_weights, ring
from mi_contrast.estimators.statistics import Match, Statistics, contrast_statistics
from mi_contrast.estimators.supports import All, Ball, Ring, Softmax

__all__ = [
    "All",
    "Ball",
    "Match",
    "Ring",
    "Softmax",
    "Statistics",
    "ball",
    "bound_holds",
    "cave",
    "ceiling",
    "contrast",
    "contrast_statistics",
    "contrastive",
    "info_nce",
    "rank_weights",
    "ring",
    "tasks",
]
