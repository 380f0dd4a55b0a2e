"""Float64 numpy loops over the pairs of a square matrix, straight from the equations; -inf removes a pair.

Each estimator has its value and, where another function gives the gradient, its surrogate.
"""

import numpy as np


def joint(F):
    return [F[i, i] for i in range(len(F)) if F[i, i] != -np.inf]


def of_row(F, i):
    return [F[i, j] for j in range(len(F)) if j != i and F[i, j] != -np.inf]


def crossed(F):
    return [f for i in range(len(F)) for f in of_row(F, i)]


def log_mean(values):
    values = np.asarray(values, np.float64)
    return values.max() + np.log(np.mean(np.exp(values - values.max())))


def softplus(x):
    return np.log1p(np.exp(-abs(x))) + max(x, 0)


def tuba(F, log_a):
    log_a = np.broadcast_to(log_a, len(F))
    first = np.mean([F[i, i] - log_a[i] for i in range(len(F)) if F[i, i] != -np.inf])
    return 1 + first - np.mean([np.exp(f - log_a[i]) for i in range(len(F)) for f in of_row(F, i)])


def nwj(F):
    return tuba(F, 1.0)


def donsker_varadhan(F):
    return np.mean(joint(F)) - log_mean(crossed(F))


def corrected_average(past, F, decay):
    """Log of the mean of b_1 ... b_t, the last of them this matrix's, with weights decay^(t - s) that sum to 1."""
    batches = [*past, np.exp(log_mean(crossed(F)))]
    weights = [decay ** (len(batches) - 1 - s) for s in range(len(batches))]
    return np.log(np.dot(weights, batches) / np.sum(weights))


def mine_surrogate(F, log_average):
    return np.mean(joint(F)) - np.exp(log_mean(crossed(F)) - log_average)


def jensen_shannon(F):
    return 1 + np.mean(joint(F)) - np.mean([np.exp(f) for f in crossed(F)])


def divergence(F):
    return -np.mean([softplus(-f) for f in joint(F)]) - np.mean([softplus(f) for f in crossed(F)])


def smile(F, clip):
    return np.mean(joint(F)) - log_mean([min(max(f, -clip), clip) for f in crossed(F)])


def interpolated(F, alpha, log_q=1.0, strict=False):
    size = len(F)
    q = np.exp(np.broadcast_to(np.asarray(log_q, np.float64), size))
    first, second = [], []
    for i in range(size):
        negatives = [np.exp(f) for f in of_row(F, i)]
        if F[i, i] != -np.inf:
            own = np.exp(F[i, i])
            left = [[*negatives[:k], *negatives[k + 1 :]] for k in range(len(negatives))] if strict else []
            logs = [np.log(alpha * np.mean([own, *rest]) + (1 - alpha) * q[i]) for rest in left or [negatives]]
            first.append(F[i, i] - np.mean(logs))
        second += [e / (alpha * np.mean(negatives) + (1 - alpha) * q[i]) for e in negatives]
    return 1 + np.mean(first) - np.mean(second)


def club(F):
    return np.mean(joint(F)) - np.mean(crossed(F))


def leave_one_out(F):
    each = [(F[i, i], of_row(F.T, i)) for i in range(len(F)) if F[i, i] != -np.inf]
    return np.mean([f - log_mean(others) if others else 0.0 for f, others in each])


def slopes(function, F, step=1e-6):
    """Central differences over every score that is there; 0 where it was removed."""
    found = np.zeros(F.shape)
    for place in np.ndindex(F.shape):
        if F[place] != -np.inf:
            moved = []
            for sign in (1, -1):
                other = F.copy()
                other[place] += sign * step
                moved.append(function(other))
            found[place] = (moved[0] - moved[1]) / (2 * step)
    return found
