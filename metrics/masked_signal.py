"""Scores of a reconstructed signal at the positions that were hidden from the model, channel by channel.

    metric = evaluate.load("metrics/masked_signal.py")
    metric.compute(predictions=reconstruction, references=truth, mask=hidden)

`evaluate` passes its inputs through Arrow tables as nested lists, which costs about a second per thousand windows of
128 frames. For more than that, add up `masked_sums` of each batch with `merge_sums`, then call `scores`: the same
numbers, in constant memory. `neurt.evaluation` does so.

Shapes: B windows, T frames, C channels.
"""

from dataclasses import dataclass

import datasets
import evaluate
import numpy as np

_DESCRIPTION = """
Reconstruction of hidden values, one score per channel, over the scored values (those that `mask` marks and whose
reference is not NaN) of all windows:

- r2: 1 - sum err^2 / sum (y - mean of the channel)^2. Over many neurons most of that denominator is differences
  between neurons, so this number flatters.
- r2_within: 1 - sum err^2 / sum (y - window mean)^2, the mean taken over the scored frames of that window and channel.
  It asks for the time course and not for the level, and harshly: that mean is not known to a predictor, so the mean
  of the visible frames scores below 0.
- mae: mean absolute error.
- squared_error: mean squared error.
- cosine: cosine similarity of the vectors of all predictions and all references.
- n: number of scored values.

A score that is not defined (nothing scored in the channel; a constant reference for r2; zeros only for cosine) is NaN.
"""

_INPUTS = """
Args:
    predictions: Float (windows, frames, channels), the reconstruction.
    references: Float (windows, frames, channels), the truth; NaN is never scored.
    mask: Bool (windows, frames, channels), True where the value was hidden and is scored.

Returns:
    A dict of lists with one entry per channel: r2, r2_within, mae, squared_error, cosine, n.
"""


@dataclass(frozen=True)
class MaskedSums:
    """What has to be remembered of the windows seen so far, one entry per channel; arrays of shape (C,), float64.

    Args:
        n: Number of scored values.
        mean: Mean of the references.
        total: Sum of squared deviations of the references from `mean`.
        within: Sum of squared deviations of the references from their window's mean.
        squared_error: Sum of squared errors.
        absolute_error: Sum of absolute errors.
        product: Sum of prediction times reference.
        prediction_square: Sum of squared predictions.
        reference_square: Sum of squared references.
    """

    n: np.ndarray
    mean: np.ndarray
    total: np.ndarray
    within: np.ndarray
    squared_error: np.ndarray
    absolute_error: np.ndarray
    product: np.ndarray
    prediction_square: np.ndarray
    reference_square: np.ndarray


def masked_sums(predictions: np.ndarray, references: np.ndarray, mask: np.ndarray) -> MaskedSums:
    """Sums over one batch of windows.

    Args:
        predictions: (B, T, C).
        references: (B, T, C); NaN is never scored.
        mask: Bool (B, T, C), True where the value is scored.

    Raises:
        ValueError: If the shapes differ or a reference that is to be scored is infinite.
    """
    predictions, references, mask = _checked(predictions, references, mask)
    truth = np.where(mask, references, 0.0)
    predicted = np.where(mask, predictions, 0.0)
    error = predicted - truth

    window_n = mask.sum(axis=1)  # (B, C)
    window_mean, within = _moments(references, mask)
    n = window_n.sum(axis=0)
    mean, between = _pooled_moments(window_n, window_mean)
    return MaskedSums(
        n=n.astype(np.float64),
        mean=mean,
        total=within.sum(axis=0) + between,
        within=within.sum(axis=0),
        squared_error=np.square(error).sum(axis=(0, 1)),
        absolute_error=np.abs(error).sum(axis=(0, 1)),
        product=(predicted * truth).sum(axis=(0, 1)),
        prediction_square=np.square(predicted).sum(axis=(0, 1)),
        reference_square=np.square(truth).sum(axis=(0, 1)),
    )


def merge_sums(first: MaskedSums, second: MaskedSums) -> MaskedSums:
    """Sums over the windows of both; the means and deviations combine as in Chan, Golub & LeVeque (1979)."""
    mean, between = _pooled_moments(np.stack([first.n, second.n]), np.stack([first.mean, second.mean]))
    added = {name: value + getattr(second, name) for name, value in vars(first).items()}
    return MaskedSums(**{**added, "mean": mean, "total": added["total"] + between})


def scores(sums: MaskedSums) -> dict[str, np.ndarray]:
    """Turn sums into scores, arrays of shape (C,); what is not defined is NaN.

    Returns:
        r2, r2_within, mae, squared_error, cosine (see the module's description), and n as int64.
    """
    norms = np.sqrt(sums.prediction_square) * np.sqrt(sums.reference_square)
    return {
        "r2": 1 - _ratio(sums.squared_error, sums.total),
        "r2_within": 1 - _ratio(sums.squared_error, sums.within),
        "mae": _ratio(sums.absolute_error, sums.n),
        "squared_error": _ratio(sums.squared_error, sums.n),
        "cosine": _ratio(sums.product, norms),
        "n": sums.n.astype(np.int64),
    }


def masked_signal_scores(
    predictions: np.ndarray, references: np.ndarray, mask: np.ndarray
) -> dict[str, list[float] | list[int]]:
    """Scores of one set of windows, as lists with one entry per channel.

    Args:
        predictions: (B, T, C).
        references: (B, T, C); NaN is never scored.
        mask: Bool (B, T, C), True where the value is scored.

    Raises:
        ValueError: If the shapes differ or a reference that is to be scored is infinite.
    """
    return {name: values.tolist() for name, values in scores(masked_sums(predictions, references, mask)).items()}


def _checked(predictions, references, mask):
    predictions = _window_array("predictions", predictions, np.float64)
    references = _window_array("references", references, np.float64)
    mask = _window_array("mask", mask, bool)
    if not predictions.shape == references.shape == mask.shape:
        raise ValueError(
            "expected predictions, references and mask of one shape (windows, frames, channels), got "
            f"{predictions.shape}, {references.shape} and {mask.shape}"
        )
    mask = mask & ~np.isnan(references)
    if np.isinf(references[mask]).any():
        raise ValueError("expected finite or NaN references, got an infinite one; leave it out with the mask")
    return predictions, references, mask


def _window_array(name, values, dtype):
    try:
        array = np.asarray(values, dtype=dtype)
    except ValueError:
        array = None
    if array is None or array.ndim != 3:
        got = "windows of different lengths" if array is None else array.shape
        raise ValueError(f"expected {name} of shape (windows, frames, channels), got {got}; pad windows to one length")
    return array


def _moments(values, mask):
    """Mean and sum of squared deviations over frames of the masked values, (B, C) each."""
    # Taken relative to a value of the window itself: a trace that sits high above zero loses no digits, and a
    # constant one has deviations of exactly 0.
    origin = np.take_along_axis(values, mask.argmax(axis=1)[:, None, :], axis=1) if values.shape[1] else 0.0
    shifted = np.where(mask, values - origin, 0.0)
    shifted_mean = _ratio(shifted.sum(axis=1), mask.sum(axis=1))
    deviations = np.where(mask, shifted - shifted_mean[:, None, :], 0.0)
    mean = np.where(mask.any(axis=1), shifted_mean + np.squeeze(origin, axis=1), 0.0)
    return mean, np.square(deviations).sum(axis=1)


def _pooled_moments(counts, means):
    """Mean of groups with these counts and means, and the sum of squares between the groups; (C,) each."""
    n = counts.sum(axis=0)
    if not len(counts):
        return np.zeros(n.shape), np.zeros(n.shape)
    origin = np.take_along_axis(means, (counts > 0).argmax(axis=0)[None], axis=0)
    shifted = means - origin
    shifted_mean = np.where(n > 0, _ratio((counts * shifted).sum(axis=0), n), 0.0)
    between = (counts * np.square(shifted - shifted_mean)).sum(axis=0)
    return np.where(n > 0, shifted_mean + origin[0], 0.0), between


def _ratio(numerator, denominator):
    """Division that gives NaN, without a warning, where the denominator is 0."""
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)


class MaskedSignal(evaluate.Metric):
    """The scores above as an `evaluate` module."""

    def _info(self):
        windows = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": windows,
                    "references": windows,
                    "mask": datasets.Sequence(datasets.Sequence(datasets.Value("bool"))),
                }
            ),
        )

    def _compute(self, predictions, references, mask):
        return masked_signal_scores(predictions, references, mask)
