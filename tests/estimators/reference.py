"""Float64 numpy, loops and sorting, straight from the equations: what the package is held against."""

from fractions import Fraction

import numpy as np


def rank(percentile, count):
    """floor(n P / 10^6 + 1/2) in exact fractions, P = round(10^6 p)."""
    return (Fraction(count) * round(percentile * 10**6) / 10**6 + Fraction(1, 2)).__floor__()


def band_weights(row, valid, lower, upper):
    """Sort, slice, and let equal scores share what their group got."""
    row = np.asarray(row, np.float64)
    here = np.asarray(valid, bool) & (row != -np.inf)
    in_order = np.sort(row[here])
    band = in_order[rank(lower, len(in_order)) : rank(upper, len(in_order))]
    weights = np.zeros(len(row))
    for score in np.unique(band):
        tied = here & (row == score)
        weights[tied] = (band == score).sum() / tied.sum()
    return weights


def one_positive(positive, row, weights):
    """f+ - log((e^{f+} + sum w e^f) / (1 + sum w)), its slope to f+, and its slopes to the row."""
    row, weights = np.asarray(row, np.float64), np.asarray(weights, np.float64)
    inside = weights > 0
    scores = np.append(row[inside], positive).astype(np.float64)
    top = scores.max()
    terms = np.append(weights[inside], 1.0) * np.exp(scores - top)
    value = positive - top - np.log(terms.sum() / (weights[inside].sum() + 1))
    slopes = np.zeros(len(row))
    slopes[inside] = -terms[:-1] / terms.sum()
    return value, 1 - terms[-1] / terms.sum(), slopes


def band_value(positive, row, valid, lower, upper):
    """`one_positive` over the percentile band."""
    return one_positive(positive, row, band_weights(row, valid, lower, upper))


def contrastive(scores, positives, candidates, reduce):
    """Reduce over positives minus log-mean-exp over candidates, of one anchor."""
    p = [(w, f) for f, w in zip(scores, positives, strict=True) if w > 0 and f != -np.inf]
    c = [(w, f) for f, w in zip(scores, candidates, strict=True) if w > 0 and f != -np.inf]
    if not p or not c:
        return 0.0
    log_mean = lambda s: np.log(sum(w * np.exp(f) for w, f in s) / sum(w for w, _ in s))  # noqa: E731
    mean = sum(w * f for w, f in p) / sum(w for w, _ in p)
    return (mean if reduce == "mean" else log_mean(p)) - log_mean(c)
