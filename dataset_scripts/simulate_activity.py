"""The stages of a simulated field: positions, rates, spikes, calcium, fluorescence. Pure functions of arrays.

Symbols: N regions of interest, T frames, K latent factors. Randomness comes from the generator handed in.
"""

import numpy as np
from scipy.signal import lfilter
from scipy.spatial.distance import cdist

# Rise and decay time constants (s) of a difference of exponentials whose time to peak and half-decay from the peak
# are those published for single action potentials in mouse visual cortex: 179 and 550 ms for GCaMP6s, 45 and 142 ms
# for GCaMP6f (Chen et al., Nature 499:295, 2013).
INDICATORS = {"GCaMP6s": (0.0706, 0.6860), "GCaMP6f": (0.0175, 0.1783)}

# Random sequential placement of discs jams at 0.547 of the area (Feder, J. Theor. Biol. 87:237, 1980); well below it
# a free place is found in a few dozen tries.
MAX_COVERAGE = 0.45


def place_neurons(count: int, extent: tuple[float, float], min_distance: float, rng: np.random.Generator):
    """Draw uniform positions (N, 2) in µm, no two nearer than `min_distance`, at least half of it from the border.

    Args:
        count: N, how many to place.
        extent: Width and height of the field in µm.
        min_distance: Smallest distance between two centres in µm.
        rng: Source of all randomness.

    Raises:
        ValueError: If that many neurons do not fit.
    """
    check_room(count, extent, min_distance)
    margin, size = min_distance / 2, np.subtract(extent, min_distance)
    positions = np.empty((0, 2))
    while len(positions) < count:
        candidate = margin + size * rng.random(2)
        if not len(positions) or cdist(candidate[None], positions).min() >= min_distance:
            positions = np.vstack([positions, candidate])
    return positions


def check_room(count: int, extent: tuple[float, float], min_distance: float) -> None:
    """Raise ValueError unless `count` neurons, `min_distance` µm apart, fit into a field of `extent` µm."""
    width, height = np.maximum(np.subtract(extent, min_distance), 0)
    if count * np.pi * (min_distance / 2) ** 2 > MAX_COVERAGE * width * height:
        raise ValueError(
            f"expected a field of view with room for {count} neurons at least {min_distance:g} µm apart, got "
            f"{extent[0]:g} × {extent[1]:g} µm: widen the field or take fewer neurons"
        )


def latent_loadings(positions: np.ndarray, num_latents: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """Draw how strongly each latent drives each position: smooth in space, (N, K), every row of unit length.

    Each latent is a Gaussian field with covariance exp(-d² / 2 length²), d and length in µm, made of random cosines
    (Rahimi and Recht, NeurIPS 2007), so that the cost grows with N and not with N³.
    """
    num_waves = 64
    waves = rng.standard_normal((num_latents, num_waves, 2)) / length
    phases = rng.uniform(0, 2 * np.pi, (num_latents, num_waves))
    fields = np.cos(np.einsum("nx,kwx->nkw", positions, waves) + phases).sum(axis=-1)
    return fields / np.linalg.norm(fields, axis=1, keepdims=True)


def smooth_noise(shape: tuple[int, int], time_constant: float, sampling_rate: float, rng: np.random.Generator):
    """Draw Ornstein-Uhlenbeck series of unit variance along the last axis; `time_constant` in s, rate in Hz."""
    decay = np.exp(-1 / (time_constant * sampling_rate))
    steps = rng.standard_normal(shape)
    # The first value has the stationary variance, so that no recording begins with a transient.
    steps[:, 1:] *= np.sqrt(1 - decay**2)
    return lfilter([1.0], [1.0, -decay], steps, axis=-1)


def modulated_rates(base_rates: np.ndarray, drive: np.ndarray, coupling: float) -> np.ndarray:
    """Return firing rates (N, T) in Hz: `base_rates` (N,) times exp(coupling × drive), scaled to a mean of 1.

    The drive (N, T) is Gaussian with unit variance, hence the term that keeps the mean.
    """
    return base_rates[:, None] * np.exp(coupling * drive - coupling**2 / 2)


def hyperactivity(rates: np.ndarray, planted: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the rates (N, T) of the neurons in `planted` (N,) by `factor`."""
    return rates * np.where(planted, factor, 1.0)[:, None]


def variability(rates: np.ndarray, planted: np.ndarray, drive: np.ndarray, coupling: float) -> np.ndarray:
    """Let the rates (N, T) of the neurons in `planted` (N,) follow exp(coupling × drive), and keep their means.

    It is the mean over these T frames that is kept, neuron by neuron. `modulated_rates` would keep the expectation
    only: under strong coupling that rests on excursions which most recordings are too short to have, so that a typical
    neuron would fire less.
    """
    # Relative to the largest value, so that no coupling overflows.
    course = np.exp(coupling * (drive - drive.max(axis=1, keepdims=True)))
    varied = rates.mean(axis=1, keepdims=True) * course / course.mean(axis=1, keepdims=True)
    return np.where(planted[:, None], varied, rates)


def synchrony(private: np.ndarray, planted: np.ndarray, local: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the variance of the private drive (N, T) of the neurons in `planted` (N,) by `factor`, 0 to 1.

    What is missing is made up from the `local` drive (N, T), which is independent, Gaussian, and of the same law for
    each neuron alone. So is the sum.
    """
    kept = np.where(planted, factor, 1.0)[:, None]
    return np.sqrt(kept) * private + np.sqrt(1 - kept) * local


def local_mixture(sources: np.ndarray, positions: np.ndarray, length: float) -> np.ndarray:
    """Mix independent sources (N, T) of one law into Gaussian drives (N, T) of that law which neighbours share.

    Weights fall as exp(-d² / length²), d and length in µm; where neurons lie dense, drives correlate as
    exp(-d² / 2 length²), as those of latents do. A neuron without neighbours keeps its own source.
    """
    weights = np.exp(-((cdist(positions, positions) / length) ** 2))
    return weights / np.linalg.norm(weights, axis=1, keepdims=True) @ sources


def calcium(spikes: np.ndarray, rise: float, decay: float, sampling_rate: float) -> np.ndarray:
    """Return the indicator's response (N, T) to spike counts (N, T); one spike peaks at 1.

    The kernel is exp(-t / decay) - exp(-t / rise), time constants in s. A spike falls anywhere within its frame and is
    seen at the frame's end, so each exponential enters with its mean over the frame, exact at any sampling rate (Hz).
    """
    response = 0.0
    for sign, constant in ((1, decay), (-1, rise)):
        step = 1 / (sampling_rate * constant)
        gain = -np.expm1(-step) / step
        response = response + sign * lfilter([gain], [1.0, -np.exp(-step)], spikes, axis=-1)
    return response / kernel_peak(rise, decay)[1]


def kernel_peak(rise: float, decay: float) -> tuple[float, float]:
    """Return when exp(-t / decay) - exp(-t / rise) peaks (s) and how high."""
    time = rise * decay / (decay - rise) * np.log(decay / rise)
    return time, np.exp(-time / decay) - np.exp(-time / rise)


def local_average(signals: np.ndarray, positions: np.ndarray, length: float) -> np.ndarray:
    """Return, for each of the N positions, the mean of the other rows of `signals` (N, T) nearby: its neuropil.

    Weights fall as exp(-d² / 2 length²), d and length in µm.
    """
    distances = cdist(positions, positions)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.min(axis=1, keepdims=True)
    if not np.isfinite(nearest).all():
        return np.zeros_like(signals)
    # Relative to the nearest neighbour, so that weights of isolated neurons do not all underflow to 0.
    weights = np.exp((nearest**2 - distances**2) / (2 * length**2))
    return weights / weights.sum(axis=1, keepdims=True) @ signals
