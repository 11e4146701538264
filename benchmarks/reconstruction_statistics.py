"""Errors at hidden values, kept for every window, and what is said of them: scores, intervals, ratios, ceilings.

All intervals come from one bootstrap over units: animals where there are five or more, else recordings, else neurons.

Shapes: B windows, L frames, C channels, G horizons (1 unless the task is a forecast), U units, S bootstrap samples.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from reconstruction_windows import FORECAST_SECONDS, Field, Windows
from scipy.signal import welch

FEWEST_UNITS = 5
SAMPLES = 2000
CONFIDENCE = 0.95
HORIZON_STEP = 0.25  # s
HORIZONS = np.arange(1, round(FORECAST_SECONDS / HORIZON_STEP) + 1) * HORIZON_STEP
NOISE_BAND = (0.25, 0.5)  # of the sampling rate
NOISE_FRAMES = 128  # of a stretch whose spectrum is taken


@dataclasses.dataclass(eq=False)
class Errors:
    """Sums over the hidden values of each window.

    Args:
        unit: "animal", "recording" or "neuron": what the bootstrap draws.
        owner: int (B,), which unit each window is of.
        n: (B, G, C), number of hidden values.
        offset: (C,), subtracted before the sums below, which loses no digits then.
        y: (B, C), sums of the truth less the offset.
        yy: (B, C), sums of its squares.
        within: (B, C), sums of squared deviations from the mean of the window's hidden values.
        noise: (B,), sums of the estimated variance of the own trace's white noise over hidden values; NaN where the
            estimate is not valid.
        squared: Squared errors (B, G, C) by predictor.
        absolute: Absolute errors (B, C) by predictor.
    """

    unit: str
    owner: np.ndarray
    n: np.ndarray
    offset: np.ndarray
    y: np.ndarray
    yy: np.ndarray
    within: np.ndarray
    noise: np.ndarray
    squared: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    absolute: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def errors_of(windows: Windows, task: str) -> Errors:
    """The truth's sums of some windows; errors are added with `add_predictor`."""
    n = horizon_sums(windows, windows.hidden, task)
    count = n.sum(1)
    hidden, values = windows.hidden, windows.values.astype(np.float64)
    offset = np.where(hidden, values, 0).sum((0, 1)) / np.maximum(count.sum(0), 1)
    truth = np.where(hidden, values - offset, 0)
    mean = truth.sum(1) / np.maximum(count, 1)
    unit, owner = units(windows)
    variances = np.concatenate([noise_variances(field) for field in windows.fields])
    first = np.cumsum([0, *(len(field.channels) for field in windows.fields)])
    return Errors(
        unit=unit,
        owner=owner,
        n=n,
        offset=offset,
        y=truth.sum(1),
        yy=np.square(truth).sum(1),
        within=np.where(hidden, np.square(truth - mean[:, None]), 0).sum(1),
        noise=count[:, 0] * variances[first[windows.field] + windows.neuron],
    )


def add_predictor(errors: Errors, name: str, prediction: np.ndarray, windows: Windows, task: str):
    """Add the errors of one predictor, (B, L, C) at the windows' hidden values."""
    error = np.where(windows.hidden, prediction - windows.values.astype(np.float64), 0)
    if not np.isfinite(error).all():
        raise ValueError(f"expected finite predictions, got {name} with NaN or infinity")
    errors.squared[name] = horizon_sums(windows, np.square(error), task)
    errors.absolute[name] = np.abs(error).sum(1)


def horizon_sums(windows: Windows, values: np.ndarray, task: str) -> np.ndarray:
    """Sums (B, G, C) over the frames of each horizon; over all frames, (B, 1, C), unless the task is a forecast.

    A frame belongs to the horizon that ends at its time after the last visible frame, or next after that; one that
    rounding to whole frames put behind the last horizon, to that.
    """
    if task != "forecast":
        return values.sum(1, dtype=np.float64)[:, None]
    hidden = windows.hidden.any(2)
    ahead = np.cumsum(hidden, axis=1) / windows.sampling_rate[:, None]  # s
    # Rounding of a rate must not move a frame to the next horizon.
    place = np.minimum(np.ceil(ahead / HORIZON_STEP - 1e-6).astype(int), len(HORIZONS)) - 1
    return np.stack(
        [np.where((hidden & (place == g))[..., None], values, 0).sum(1) for g in range(len(HORIZONS))], axis=1
    )


def units(windows: Windows) -> tuple[str, np.ndarray]:
    """What the bootstrap draws, and which of them each window is of."""
    fields = windows.fields
    choices = {
        "animal": [fields[i].subject_id for i in windows.field],
        "recording": [fields[i].recording_id for i in windows.field],
        "neuron": [
            f"{fields[i].subject_id} {fields[i].roi_ids[neuron]}"
            for i, neuron in zip(windows.field, windows.neuron, strict=True)
        ],
    }
    unit = next((name for name, ids in choices.items() if len(set(ids)) >= FEWEST_UNITS), "neuron")
    return unit, np.unique(choices[unit], return_inverse=True)[1]


def draws(num_units: int, seed: int = 0) -> np.ndarray:
    """How often each unit counts, (1 + S, U): once in the first row, as a bootstrap sample draws it in the others."""
    chances = np.full(num_units, 1 / num_units)
    samples = np.random.default_rng(seed).multinomial(num_units, chances, size=SAMPLES)
    return np.concatenate([np.ones((1, num_units)), samples])


def drawn_sums(errors: Errors, values: np.ndarray) -> np.ndarray:
    """Sums (1 + S, ...) of values (B, ...) over all windows and over those of each bootstrap sample's units."""
    num_units = int(errors.owner.max()) + 1
    sums = np.zeros((num_units, *values.shape[1:]))
    np.add.at(sums, errors.owner, values)
    return np.tensordot(draws(num_units), sums, axes=1)


def with_interval(name: str, values: np.ndarray) -> dict:
    """A statistic (1 + S,) as `draws` orders it: its value, and its percentile interval where it is defined."""
    samples = values[1:][np.isfinite(values[1:])]
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    bounds = np.quantile(samples, tails).tolist() if len(samples) else [float("nan")] * 2
    return {name: float(values[0]), f"{name}_interval": bounds}


def score_rows(errors: Errors, channels: Sequence[str], reference: str) -> list[dict]:
    """One row per predictor and channel that is hidden somewhere.

    Returns:
        Dicts of predictor, channel, n (hidden values), r2, r2_within, mae, squared_error (mean), and `ratio`, the
        squared error of the reference over that of this predictor; R² and ratio with their intervals, the latter
        paired.
    """
    count = errors.n.sum((0, 1))
    total = sum_of_squares(drawn_sums(errors, np.stack([errors.n.sum(1), errors.y, errors.yy], axis=-1)))
    within = drawn_sums(errors, errors.within)
    squared = {name: drawn_sums(errors, values.sum(1)) for name, values in errors.squared.items()}
    rows = []
    for (c, channel), name in itertools.product(enumerate(channels), squared):
        if count[c]:
            error = squared[name][:, c]
            row = {"predictor": name, "channel": channel, "n": int(count[c])}
            row |= with_interval("r2", 1 - _ratio(error, total[:, c]))
            row |= with_interval("r2_within", 1 - _ratio(error, within[:, c]))
            row["mae"] = float(errors.absolute[name][:, c].sum() / count[c])
            row["squared_error"] = float(error[0] / count[c])
            row |= with_interval("ratio", _ratio(squared[reference][:, c], error))
            rows.append(row)
    return rows


def horizon_rows(errors: Errors, channels: Sequence[str], reference: str) -> list[dict]:
    """One row per predictor, channel and horizon of a forecast.

    Returns:
        Dicts of predictor, channel, seconds (the horizon's end), squared_error (mean), and `ratio` as in `score_rows`.
    """
    count = errors.n.sum(0)
    squared = {name: drawn_sums(errors, values) for name, values in errors.squared.items()}
    rows = []
    for (c, channel), name, (g, seconds) in itertools.product(enumerate(channels), squared, enumerate(HORIZONS)):
        if count[g, c]:
            error = squared[name][:, g, c]
            row = {"predictor": name, "channel": channel, "seconds": float(seconds)}
            row["squared_error"] = float(error[0] / count[g, c])
            rows.append(row | with_interval("ratio", _ratio(squared[reference][:, g, c], error)))
    return rows


def better_until(rows: Sequence[dict], predictor: str, channel: str) -> float:
    """Seconds up to which the reference beats a predictor at every horizon, its interval below 1; 0 if at none."""
    reached = 0.0
    for row in rows:
        if (row["predictor"], row["channel"]) == (predictor, channel):
            if not row["ratio_interval"][1] < 1:
                break
            reached = row["seconds"]
    return reached


def ceiling_rows(errors: Errors) -> list[dict]:
    """What of the own trace's variance can be explained at all, and each predictor's share of it.

    White noise is independent from frame to frame, so no predictor can do better than its variance: R² is at most
    1 - (noise variance) / (total variance). The share is R² over that bound.

    Returns:
        Dicts of predictor, ceiling and share, pooled and within windows; empty where the estimate is not valid.
    """
    valid = np.isfinite(errors.noise)
    if not valid.any():
        return []
    noise = errors.noise[valid].sum()
    totals = {
        "": sum_of_squares(
            np.array([errors.n[valid, :, 0].sum(), errors.y[valid, 0].sum(), errors.yy[valid, 0].sum()])
        ),
        "_within": errors.within[valid, 0].sum(),
    }
    rows = []
    for name, squared in errors.squared.items():
        row = {"predictor": name}
        for suffix, total in totals.items():
            row[f"ceiling{suffix}"] = float(1 - noise / total)
            row[f"share{suffix}"] = float((total - squared[valid, :, 0].sum()) / (total - noise))
        rows.append(row)
    return rows


def noise_variances(field: Field) -> np.ndarray:
    """Variance (N,) of white noise in the own traces; NaN unless they are raw dF/F or fluorescence.

    The mean of the power spectral density in the upper half of the spectrum, times the width of the spectrum, is the
    variance of noise that is white (Pnevmatikakis et al. 2016, 10.1016/j.neuron.2015.11.037). Fast signal counts as
    noise there, so that slow recordings seem noisier than they are; denoised or deconvolved traces have lost the noise
    that is looked for, and resampled ones part of it.
    """
    if field.trace_kind not in ("dff", "fluorescence"):
        return np.full(len(field.channels), np.nan)
    segments = np.split(field.channels[..., 0].astype(np.float64), field.segment_starts[1:], axis=1)
    length = min(NOISE_FRAMES, max(segment.shape[1] for segment in segments))
    densities = []
    for segment in segments:
        if segment.shape[1] >= length:
            frequency, density = welch(segment, fs=1.0, nperseg=length, detrend="linear", axis=1)
            densities.append(density)
    in_band = (frequency >= NOISE_BAND[0]) & (frequency < NOISE_BAND[1])
    return np.mean(densities, axis=0)[:, in_band].mean(1) * 0.5  # the density is one-sided, from 0 to 1/2


def sum_of_squares(sums: np.ndarray) -> np.ndarray:
    """Sum of squared deviations from n, sum and sum of squares (..., 3)."""
    n, y, yy = np.moveaxis(sums, -1, 0)
    return yy - y**2 / np.maximum(n, 1)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where the denominator is not above 0."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)
