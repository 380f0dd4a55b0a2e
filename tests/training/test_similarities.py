"""Counts of similarities and the place of the ring, against loops over pairs."""

import math

import numpy as np
import pytest

from mi_contrast.core.schedules import Progress
from mi_contrast.training.held_out import count_hits
from mi_contrast.training.similarities import BINS, EDGES, count_similarities, find_ring

RNG = np.random.default_rng(0)
PAIRS = 40
COSINES = np.tanh(RNG.normal(size=(PAIRS, PAIRS))).astype(np.float32)
LABELS = RNG.integers(0, 3, PAIRS)


def test_every_pair_is_counted_once_in_its_group_and_bin():
    others = RNG.integers(-1, 3, PAIRS)  # some second views have no label
    expected = {name: [0] * BINS for name in ("positive", "same_class", "other_class")}
    for i in range(PAIRS):
        for j in range(PAIRS):
            group = "positive" if i == j else "same_class" if LABELS[i] == others[j] >= 0 else "other_class"
            place = next(b for b in range(BINS) if EDGES[b] <= COSINES[i, j] < EDGES[b + 1])
            expected[group][place] += 1
    assert count_similarities(COSINES, LABELS, others) == expected


def test_without_labels_there_is_one_group_of_negatives():
    counts = count_similarities(COSINES, np.full(PAIRS, -1), LABELS)
    assert set(counts) == {"positive", "negative"}
    assert (sum(counts["positive"]), sum(counts["negative"])) == (PAIRS, PAIRS * (PAIRS - 1))


def test_a_cosine_that_rounding_put_above_one_is_counted():
    over = np.full((2, 2), np.float32(1.0000002))
    assert count_similarities(over, np.zeros(2), np.ones(2))["positive"][-1] == 2


@pytest.mark.parametrize(
    "support",
    [
        {"kind": "ring", "lower": 0.5, "upper": 0.9},
        {"kind": "drawn", "k": 7, "of": {"kind": "ring", "lower": 0.5, "upper": 0.9}},
        {"kind": "ring", "lower": {"kind": "linear", "a": 0.0, "b": 1.0, "start": 0.0, "end": 1.0}, "upper": 0.9},
    ],
)
def test_the_ring_is_where_a_sorted_list_of_each_anchors_negatives_has_it(support):
    ring = find_ring(COSINES, support, Progress(50, 100))
    lows, highs = [], []
    for i in range(PAIRS):
        negatives = sorted(float(COSINES[i, j]) for j in range(PAIRS) if j != i)
        first, end = (math.floor(len(negatives) * p + 0.5) for p in (0.5, 0.9))
        lows.append(negatives[first])
        highs.append(negatives[end - 1])
    assert ring == pytest.approx({"lower": 0.5, "upper": 0.9, "from": np.mean(lows), "to": np.mean(highs)}, abs=1e-6)


@pytest.mark.parametrize(
    "support", [{"kind": "all"}, {"kind": "nearest", "k": 5}, {"kind": "ring", "lower": 0.98, "upper": 0.985}]
)
def test_there_is_no_ring_without_percentiles_or_with_too_few_negatives(support):
    assert find_ring(COSINES, support, Progress(0, 100)) is None


def test_a_ball_reaches_up_to_the_most_similar():
    ring = find_ring(COSINES, {"kind": "ball", "lower": 0.9}, Progress(0, 100))
    assert ring["to"] == pytest.approx(np.mean([max(np.delete(row, i)) for i, row in enumerate(COSINES)]), abs=1e-6)


def test_hits_are_counted_class_by_class():
    scores = RNG.normal(size=(60, 3))
    truth, groups = RNG.integers(0, 2, 60), np.arange(60) // 4  # class 2 has no query
    counted = count_hits({"knn_top1": scores}, truth, groups, 3)
    hits = [int(np.argmax(row)) == label for row, label in zip(scores, truth, strict=True)]
    assert counted["queries"] == [int((truth == c).sum()) for c in range(3)]
    assert counted["hits"]["knn_top1"] == [sum(h for h, t in zip(hits, truth, strict=True) if t == c) for c in range(3)]
    assert 15 <= counted["independent"]["knn_top1"] <= 60
