"""Estimators of mutual information in nats: from scores, from embeddings with pools of any size, and from samples.

They do not depend on networks. Use them as `from mi_contrast import estimators as mi`.
"""

from mi_contrast.estimators import tasks
from mi_contrast.estimators.binary import binary_nce, first_normaliser, moving_normaliser
from mi_contrast.estimators.bounds_above import club, leave_one_out
from mi_contrast.estimators.correlation import canonical_correlation
from mi_contrast.estimators.discrete import discrete, discrete_continuous
from mi_contrast.estimators.draws import multinomial_counts, poisson_counts
from mi_contrast.estimators.embeddings import contrast
from mi_contrast.estimators.honesty import bound_holds, ceiling
from mi_contrast.estimators.learned import estimate
from mi_contrast.estimators.matrices import donsker_varadhan, interpolated, nwj, tuba
from mi_contrast.estimators.multiple_positives import local_aggregation, supervised
from mi_contrast.estimators.neighbours import ksg, three_kl
from mi_contrast.estimators.pairwise import all_pairs, shifted_pairs
from mi_contrast.estimators.result import Estimate
from mi_contrast.estimators.reweighted import hard_negatives
from mi_contrast.estimators.samples import normal_scores
from mi_contrast.estimators.scores import ball, cave, contrastive, decoupled, info_nce, rank_weights, ring
from mi_contrast.estimators.statistics import Match, Statistics, contrast_statistics
from mi_contrast.estimators.supports import (
    All,
    Ball,
    Binary,
    Cave,
    Close,
    Decoupled,
    Drawn,
    Hard,
    Nearest,
    Ring,
    Softmax,
)
from mi_contrast.estimators.surrogates import Partition, jensen_shannon, mine, smile
from mi_contrast.estimators.trajectories import (
    SERIES,
    Twins,
    displacements,
    of_unit_size,
    prewhitened,
    second_differences,
    spread_shifts,
    twins,
)

__all__ = [
    "SERIES",
    "All",
    "Ball",
    "Binary",
    "Cave",
    "Close",
    "Decoupled",
    "Drawn",
    "Estimate",
    "Hard",
    "Match",
    "Nearest",
    "Partition",
    "Ring",
    "Softmax",
    "Statistics",
    "Twins",
    "all_pairs",
    "ball",
    "binary_nce",
    "bound_holds",
    "canonical_correlation",
    "cave",
    "ceiling",
    "club",
    "contrast",
    "contrast_statistics",
    "contrastive",
    "decoupled",
    "discrete",
    "discrete_continuous",
    "displacements",
    "donsker_varadhan",
    "estimate",
    "first_normaliser",
    "hard_negatives",
    "info_nce",
    "interpolated",
    "jensen_shannon",
    "ksg",
    "leave_one_out",
    "local_aggregation",
    "mine",
    "moving_normaliser",
    "multinomial_counts",
    "normal_scores",
    "nwj",
    "of_unit_size",
    "poisson_counts",
    "prewhitened",
    "rank_weights",
    "ring",
    "second_differences",
    "shifted_pairs",
    "smile",
    "spread_shifts",
    "supervised",
    "tasks",
    "three_kl",
    "tuba",
    "twins",
]
