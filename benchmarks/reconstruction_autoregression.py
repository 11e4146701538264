"""Autoregression as a baseline: fitted to visible frames by least squares, filled in by its conditional mean.

Shapes: B series, L frames, p the largest order.
"""

from collections.abc import Sequence

import numpy as np

ORDERS = (1, 2, 4, 8, 12)
LARGEST_ROOT = 0.995
FILLED_AT_ONCE = 512


def separated(series: np.ndarray, segment_starts: Sequence[int]) -> np.ndarray:
    """The series (T, ...) with a frame of NaN before each later segment, which no lag then crosses."""
    return np.insert(series, list(segment_starts[1:]), np.nan, axis=0)


def lag_products(series: np.ndarray, order: int = ORDERS[-1]) -> tuple[np.ndarray, int]:
    """Sums of products of a series, less its mean, with itself up to `order` frames before.

    Args:
        series: (T, C), NaN where it must not be looked at.
        order: Largest lag p.

    Returns:
        float64 (C, p + 1, p + 1), and the number of frames summed over: those with all p before them visible in all
        channels.
    """
    if len(series) <= order:
        return np.zeros((series.shape[1], order + 1, order + 1)), 0
    centred = series.astype(np.float64) - np.nanmean(series, axis=0, dtype=np.float64)
    rows = np.lib.stride_tricks.sliding_window_view(centred, order + 1, axis=0)[..., ::-1]
    rows = rows[np.isfinite(rows).all((1, 2))].transpose(1, 0, 2)
    return rows.transpose(0, 2, 1) @ rows, rows.shape[1]


def fit_autoregression(products: np.ndarray, count: np.ndarray | int, orders: Sequence[int] = ORDERS) -> np.ndarray:
    """Least-squares coefficients, the order chosen by Akaike's criterion corrected for small samples.

    The criterion is n log(RSS / n) + 2q + 2q(q + 1) / (n - q - 1) for order q (Hurvich & Tsai 1989,
    10.1093/biomet/76.2.297).

    Args:
        products: (..., p + 1, p + 1) of `lag_products`.
        count: (...), frames summed over.
        orders: To choose from, none above p.

    Returns:
        float64 (..., p), 0 beyond the chosen order; stationary, see `pull_in`.
    """
    size = products.shape[-1]
    # A constant series has no products at all; with a small diagonal its coefficients are 0.
    jitter = 1e-9 * np.trace(products, axis1=-2, axis2=-1)[..., None, None] / size + 1e-12
    products = products + jitter * np.eye(size)
    count = np.broadcast_to(np.asarray(count, dtype=np.float64), products.shape[:-2])
    best = np.full(count.shape, np.inf)
    chosen = np.zeros((*count.shape, size - 1))
    for q in orders:
        lags, target = products[..., 1 : q + 1, 1 : q + 1], products[..., 1 : q + 1, 0]
        coefficients = np.linalg.solve(lags, target[..., None])[..., 0]
        residual = np.maximum(products[..., 0, 0] - (coefficients * target).sum(-1), 1e-12)
        spare = np.maximum(count - q - 1, 1e-9)
        criterion = count * np.log(residual / np.maximum(count, 1)) + 2 * q + 2 * q * (q + 1) / spare
        better = criterion < best
        best = np.where(better, criterion, best)
        padded = np.concatenate([coefficients, np.zeros((*count.shape, size - 1 - q))], axis=-1)
        chosen = np.where(better[..., None], padded, chosen)
    return pull_in(chosen)


def pull_in(coefficients: np.ndarray) -> np.ndarray:
    """Make processes stationary: where the largest root exceeds `LARGEST_ROOT`, shrink all roots by one factor.

    Coefficient k times factor**k has every root times the factor.

    Args:
        coefficients: (..., p).
    """
    order = coefficients.shape[-1]
    companion = np.zeros((*coefficients.shape[:-1], order, order))
    companion[..., 0, :] = coefficients
    companion[..., np.arange(1, order), np.arange(order - 1)] = 1
    largest = np.abs(np.linalg.eigvals(companion)).max(-1, keepdims=True)
    factor = np.minimum(1, LARGEST_ROOT / np.maximum(largest, 1e-9))
    return coefficients * factor ** np.arange(1, order + 1)


def precision_matrix(coefficients: np.ndarray, num_frames: int) -> np.ndarray:
    """Inverse covariance of `num_frames` of a stationary autoregression whose innovations have variance 1.

    It is A A' - B B' of two lower triangular Toeplitz matrices (Gohberg & Semencul 1972): A's first column is
    (1, -phi_1, ..., -phi_p, 0, ...), B's (0, ..., 0, -phi_p, ..., -phi_1). Only p diagonals beside the main one are
    not 0.

    Args:
        coefficients: (B, p).
        num_frames: L, above p.

    Returns:
        float64 (B, L, L).
    """
    batch, order = coefficients.shape
    forward, backward = np.zeros((2, batch, num_frames))
    forward[:, 0] = 1
    forward[:, 1 : order + 1] = -coefficients
    backward[:, num_frames - order :] = -coefficients[:, ::-1]
    matrix = np.zeros((batch, num_frames, num_frames))
    for k in range(order + 1):
        diagonal = sum(
            sign * np.cumsum(column[:, : num_frames - k] * column[:, k:], axis=1)
            for sign, column in ((1, forward), (-1, backward))
        )
        frames = np.arange(num_frames - k)
        matrix[:, frames, frames + k] = matrix[:, frames + k, frames] = diagonal
    return matrix


def fill_autoregression(shown: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Conditional mean of what is hidden given all visible frames, the process's own mean unknown.

    With precision matrix P, hidden frames h and mean m minimise (x - m)' P (x - m): of all linear predictors without
    bias the one with the smallest error, if the process is what was fitted (ordinary kriging).

    Args:
        shown: (B, L), NaN where hidden; at least one visible frame each.
        coefficients: (B, p), stationary.

    Returns:
        float64 (B, L), visible values unchanged.
    """
    parts = [slice(start, start + FILLED_AT_ONCE) for start in range(0, len(shown), FILLED_AT_ONCE)]
    return np.concatenate([_fill(shown[part].astype(np.float64), coefficients[part]) for part in parts])


def _fill(shown: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    hidden = np.isnan(shown)
    matrix = precision_matrix(coefficients, shown.shape[1])
    sums = matrix.sum(2, keepdims=True)  # of rows: what the mean is multiplied with
    bordered = np.concatenate([matrix, -sums], axis=2)
    last = np.concatenate([-sums[..., 0], sums.sum(1)], axis=1)
    bordered = np.concatenate([bordered, last[:, None]], axis=1)  # (B, L + 1, L + 1), the mean as one frame more

    known = np.where(hidden, 0.0, shown)
    right = -(bordered[:, :, :-1] @ known[..., None])[..., 0]
    unknown = np.concatenate([hidden, np.ones((len(shown), 1), dtype=bool)], axis=1)
    count = unknown.sum(1)
    places = np.argsort(~unknown, axis=1, kind="stable")[:, : count.max()]
    batch = np.arange(len(shown))[:, None]
    system = bordered[batch[..., None], places[:, :, None], places[:, None, :]]
    spare = np.arange(count.max()) >= count[:, None]  # where a series has fewer unknowns than others
    system[spare[:, :, None] | spare[:, None, :]] = 0
    system[:, np.arange(count.max()), np.arange(count.max())] += spare
    solution = np.linalg.solve(system, np.where(spare, 0, right[batch, places])[..., None])[..., 0]

    extended = np.concatenate([known, np.zeros((len(shown), 1))], axis=1)
    extended[batch, places] = np.where(spare, extended[batch, places], solution)
    return extended[:, :-1]
