"""Baselines that know nothing but a window's visible frames: copy-last, cubic splines, Gaussian processes.

Shapes: B windows, L frames, C channels.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from neurt.sampling import evenly_spaced
from scipy.interpolate import CubicSpline

LENGTHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # frames
NOISES = (1e-3, 0.03, 0.3, 1.0)  # variance of the noise over that of the process
SMOOTHNESS = (0.5, 1.5)
FITTED_WINDOWS = 8


def copy_last(shown: np.ndarray) -> np.ndarray:
    """Repeat the last visible value; before the first one, that one.

    Args:
        shown: (B, L, C), NaN where hidden; a channel with nothing visible is 0.
    """
    frames = np.arange(shown.shape[1])[:, None]
    visible = ~np.isnan(shown)
    last = np.maximum.accumulate(np.where(visible, frames, -1), axis=1)
    first = np.argmax(visible, axis=1)[:, None]
    return np.nan_to_num(np.take_along_axis(shown, np.where(last < 0, first, last), axis=1))


def cubic_spline(shown: np.ndarray) -> np.ndarray:
    """A cubic spline (not-a-knot) through the visible frames; before the first and after the last, their value.

    Args:
        shown: (B, L, C), NaN where hidden, in all channels at once; at least four visible frames.
    """
    frames = np.arange(shown.shape[1])
    filled = np.empty(shown.shape)
    for window, result in zip(shown.astype(np.float64), filled, strict=True):
        seen = np.flatnonzero(~np.isnan(window[:, 0]))
        result[:] = CubicSpline(seen, window[seen])(np.clip(frames, seen[0], seen[-1]))
    return filled


def matern(length: float, smoothness: float, num_frames: int) -> np.ndarray:
    """Matérn correlation (L, L) of smoothness 1/2 or 3/2 (Rasmussen & Williams 2006, equation 4.17); length in
    frames."""
    distance = np.abs(np.subtract.outer(np.arange(num_frames), np.arange(num_frames))) / length
    if smoothness == 0.5:
        return np.exp(-distance)
    return (1 + np.sqrt(3) * distance) * np.exp(-np.sqrt(3) * distance)


def kernels(num_frames: int) -> Iterator[tuple[np.ndarray, float]]:
    """The kernels to choose from: correlation (L, L), variance of the noise over that of the process."""
    for length, smoothness, noise in itertools.product(LENGTHS, SMOOTHNESS, NOISES):
        yield matern(length, smoothness, num_frames), noise


def gaussian_process(shown: np.ndarray, correlation: np.ndarray, noise: float) -> np.ndarray:
    """Posterior mean of a Gaussian process about the mean of the visible frames.

    Args:
        shown: (B, L, C), NaN where hidden, in all channels at once.
        correlation: (L, L).
        noise: Variance of the noise over that of the process.

    Returns:
        float64 (B, L, C).
    """
    values, visible, mean = _centred(shown)
    covariance = _visible_covariance(visible, correlation, noise)
    return mean + correlation @ np.linalg.solve(covariance, values)


def most_likely_kernels(shown: np.ndarray) -> list[int]:
    """For each channel, which of `kernels` makes the visible frames of some windows likeliest.

    The amplitude of the process is that of the largest likelihood in each window.

    Args:
        shown: (B, L, C), NaN where hidden, in all channels at once; `FITTED_WINDOWS` of them are used.
    """
    some = evenly_spaced(len(shown), FITTED_WINDOWS)
    values, visible, _ = _centred(shown[some])
    count = visible.sum(1)[:, None]
    varies = np.square(values).sum(1) > 0  # a constant window is likely under any kernel that hardly varies
    likelihoods = []
    for correlation, noise in kernels(shown.shape[1]):
        factor = np.linalg.cholesky(_visible_covariance(visible, correlation, noise))
        whitened = np.linalg.solve(factor, values)
        log_determinant = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(1)[:, None]
        amplitude = np.where(varies, np.square(whitened).sum(1) / count, 1.0)
        likelihoods.append(-0.5 * np.where(varies, count * np.log(amplitude) + log_determinant, 0).sum(0))
    return np.argmax(likelihoods, axis=0).tolist()


def smooth_by_gaussian_process(shown: np.ndarray) -> np.ndarray:
    """The windows of one recording, each channel with the kernel that is likeliest there.

    Args:
        shown: (B, L, C), NaN where hidden, in all channels at once.
    """
    chosen = most_likely_kernels(shown)
    smooth = np.empty(shown.shape)
    for index, (correlation, noise) in enumerate(kernels(shown.shape[1])):
        channels = [c for c, kernel in enumerate(chosen) if kernel == index]
        if channels:
            smooth[..., channels] = gaussian_process(shown[..., channels], correlation, noise)
    return smooth


def _centred(shown: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values less the mean of the visible ones, 0 where hidden; where they are visible (B, L); the means."""
    shown = shown.astype(np.float64)
    mean = np.nanmean(shown, axis=1, keepdims=True)
    return np.nan_to_num(shown - mean), ~np.isnan(shown[..., 0]), mean


def _visible_covariance(visible: np.ndarray, correlation: np.ndarray, noise: float) -> np.ndarray:
    """Covariance (B, L, L) of visible frames; the others, independent with variance 1, have no part in anything."""
    both = visible[:, :, None] & visible[:, None, :]
    diagonal = np.where(visible, noise, 1.0)[..., None] * np.eye(len(correlation))
    return np.where(both, correlation, 0.0) + diagonal
