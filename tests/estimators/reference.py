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


def several(positive, row, close, background, reduce):
    """`contrastive` with the positive among both, close * background as more positives."""
    close, background = np.asarray(close, np.float64), np.asarray(background, np.float64)
    scores = np.append(np.asarray(row, np.float64), positive)
    return contrastive(scores, np.append(close * background, 1.0), np.append(background, 1.0), reduce)


def decoupled(positive, row, weights):
    """f+ minus the log of the candidates' mean e^f."""
    some = [(w, f) for f, w in zip(row, weights, strict=True) if w > 0 and f != -np.inf]
    if not some or positive == -np.inf:
        return 0.0
    return positive - np.log(sum(w * np.exp(np.float64(f)) for w, f in some) / sum(w for w, _ in some))


def hard_negatives(positive, row, weights, beta, prior, floor=None):
    """The re-weighted mass of negatives, less the share of false ones, kept from below."""
    some = [(s, np.float64(f)) for f, s in zip(row, weights, strict=True) if s > 0 and f != -np.inf]
    if not some or positive == -np.inf:
        return 0.0
    n = sum(s for s, _ in some)
    mass = n * sum(s * np.exp((1 + beta) * f) for s, f in some) / sum(s * np.exp(beta * f) for s, f in some)
    least = 0.0 if floor is None else n * np.exp(floor)
    negative = max((mass - prior * n * np.exp(np.float64(positive))) / (1 - prior), least)
    return positive - np.log((np.exp(np.float64(positive)) + negative) / (n + 1))


def binary_nce(positive, row, weights, log_normaliser, data_size, eps=0.0):
    """Minus the loss of one anchor as released; its eps is 1e-7."""
    some = [(w, np.float64(f)) for f, w in zip(row, weights, strict=True) if w > 0 and f != -np.inf]
    if not some or positive == -np.inf:
        return 0.0
    noise = sum(w for w, _ in some) / data_size
    p = np.exp(np.float64(positive) - log_normaliser)
    value = np.log(p / (p + noise + eps))
    for w, f in some:
        value += w * np.log(noise / (np.exp(f - log_normaliser) + noise + eps))
    return value


def slopes(value, at, step=1e-6):
    """Central differences of a float64 function of a vector."""
    at = np.asarray(at, np.float64)
    moves = step * np.eye(len(at))
    return np.array([(value(at + move) - value(at - move)) / (2 * step) for move in moves])
