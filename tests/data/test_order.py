"""Permutations from integers alone, against sorting by hand, counts and pinned values."""

import itertools
import random
from collections import Counter

import numpy as np
from scipy import stats

from mi_contrast.data.order import draw_distinct, permutation, random_bits


def test_a_permutation_sorts_the_bits():
    bits = [int(x) for x in random_bits(50, 1, 2)]
    assert permutation(50, 1, 2).tolist() == sorted(range(50), key=lambda i: bits[i])


def test_the_same_everywhere():
    # Pinned: a change here changes every run's order of examples.
    assert permutation(10, 1, 0, 0).tolist() == [0, 6, 2, 1, 3, 7, 4, 9, 8, 5]
    assert permutation(10, 1, 0, 1).tolist() != permutation(10, 1, 0, 0).tolist()
    assert permutation(10, 1, 0).tolist() != permutation(10, 1, 0, 0).tolist()  # keys of other lengths are other keys
    assert permutation(0, 1).tolist() == [] and permutation(1, 1).tolist() == [0]


def test_every_order_is_as_likely():
    counts = Counter(tuple(permutation(4, 5, seed).tolist()) for seed in range(2400))
    assert set(counts) == set(itertools.permutations(range(4)))
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3
    # Control: swapping each place with any other, a common mistake, is caught by the same test.
    naive, draw = Counter(), random.Random(0)
    for _ in range(2400):
        order = list(range(4))
        for i in range(4):
            j = draw.randrange(4)
            order[i], order[j] = order[j], order[i]
        naive[tuple(order)] += 1
    assert stats.chisquare(list(naive.values())).pvalue < 1e-3


def test_epochs_are_unrelated():
    orders = np.stack([permutation(500, 1, 7, epoch) for epoch in range(4)])
    same = (orders[:, None] == orders[None]).mean(-1)
    assert (same[~np.eye(4, dtype=bool)] < 0.02).all() and (np.diag(same) == 1).all()


def test_draws_are_distinct_and_uniform_however_many():
    for count, size in ((40, 8), (40, 20), (40, 21), (40, 40), (1, 1)):
        drawn = draw_distinct(count, size, 1, 2)
        assert len(set(drawn.tolist())) == size and drawn.dtype == np.int32 and 0 <= drawn.min() <= drawn.max() < count
    pairs = Counter(tuple(draw_distinct(5, 2, 1, seed).tolist()) for seed in range(4000))
    assert set(pairs) == set(itertools.permutations(range(5), 2))
    assert stats.chisquare(list(pairs.values())).pvalue > 1e-3
    assert draw_distinct(1000, 5, 1, 0).tolist() != draw_distinct(1000, 5, 1, 1).tolist()
