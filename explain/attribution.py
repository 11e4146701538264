"""What each value of a window adds to the log-odds of a class, and what they lose where it is hidden.

    found = attribute(model, windows, targets)
    print(found.summary)
    importance = neuron_importance(found.of_channels[:, 0], windows, recording)

Shapes: n windows, T frames, C channels, K classes, N neurons of a recording.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import IntegratedGradients

from ..dataset_scripts.recording import Recording
from ..masking import model_inputs
from ..modeling_neurt import NeurtForSequenceClassification
from ..processing_neurt import CHANNELS
from .explained import ExplainedWindows, Inputs, hide, log_odds, log_odds_of, logits_of, take
from .recording_map import mean_in_cells

# Points of the path from the baseline to a window.
STEPS = 32
# Which frame comes before which, all that tests ask, half as many tell: Spearman 0.999 with the map of 128.
STEPS_FOR_ORDER = 16
# Values that the points of one pass may have in one channel: 128 of 128 frames, for memory.
MOST_VALUES = 2**14
# Frames hidden at a time, within the longest spans that pretraining hides.
SPAN = 8

Progress = Callable[[Iterable], Iterable]


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each value adds to the log-odds of its window's target class, compared with a baseline.

    Args:
        values: float32 (n, T, C), 0 at padding and in absent channels.
        difference: Log-odds of each window less those of its baseline, (n,): what the values should sum to.
        baseline: What the windows were compared with, in words.
    """

    values: np.ndarray
    difference: np.ndarray
    baseline: str

    @property
    def of_channels(self) -> np.ndarray:
        """Sums over frames, (n, C)."""
        return self.values.sum(1)

    @property
    def completeness_error(self) -> np.ndarray:
        """How much more than the difference the values of each window sum to, (n,)."""
        return self.values.sum((1, 2)) - self.difference

    @property
    def relative_error(self) -> tuple[float, float]:
        """Median and 95th percentile of the size of the completeness error, relative to the typical difference.

        That is the median of its size over the windows: one that says the same as its baseline would be divided by 0.
        NaN where the model says so of most windows.
        """
        typical = np.median(np.abs(self.difference))
        if not typical:
            return math.nan, math.nan
        median, high = np.quantile(np.abs(self.completeness_error), [0.5, 0.95]) / typical
        return float(median), float(high)

    @property
    def summary(self) -> str:
        """The baseline and the error, in a line."""
        median, high = self.relative_error
        compared = f"Integrated gradients, compared with {self.baseline}."
        if math.isnan(median):
            return f"{compared} Most windows have the log-odds of that one, so that there is nothing to attribute."
        return (
            f"{compared} Completeness error, relative to the typical difference in log-odds: median {median:.1%}, "
            f"95th percentile {high:.1%}."
        )


def attribute(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    *,
    baseline: np.ndarray | None = None,
    steps: int = STEPS,
    progress: Progress = iter,
) -> Attribution:
    """Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) of log-odds, value by value.

    Each window is compared with a flat one, in which every channel stays at its baseline. A model that standardises
    windows changes most next to the flat one, where a channel's deviation falls to the least that it is divided by. So
    the third powers of Gauss-Legendre points are taken: most lie there, and the integral is the same.

    Args:
        model: A classifier.
        windows: What it is shown.
        targets: int (n,), the class of each window whose log-odds are explained.
        baseline: Level of each channel, (C,); by default its `mean_levels` in these windows.
        steps: Points of the path from the baseline to a window.
        progress: Wrapped around the batches, for a progress bar.
    """
    words = "" if baseline is not None else f", its mean over {len(np.unique(windows.subjects))} animals"
    baseline = mean_levels(windows) if baseline is None else np.asarray(baseline, dtype=np.float32)
    inputs, size = windows.inputs, max(1, MOST_VALUES // (steps * windows.real.shape[1]))
    parts = [slice(first, first + size) for first in range(0, len(windows), size)]
    found = [_attribute_batch(model, take(inputs, rows), targets[rows], baseline, steps) for rows in progress(parts)]
    values, difference = (np.concatenate(each) for each in zip(*found, strict=True))
    return Attribution(values, difference, f"a flat window, each channel at {_levels_in_words(baseline)}{words}")


def integrated_gradients(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    *,
    baseline: np.ndarray | None = None,
) -> np.ndarray:
    """What each frame adds to the log-odds of the targets, (n, T): `attribute`, summed over channels; fewer steps."""
    return attribute(model, windows, targets, baseline=baseline, steps=STEPS_FOR_ORDER).values.sum(2)


def mean_levels(windows: ExplainedWindows) -> np.ndarray:
    """The mean of each channel over all visible values, averaged over animals; float32 (C,).

    Each animal counts the same. A channel that is absent everywhere is 0.
    """
    of_animals = means_of_animals(visible_values(windows).mean(1), windows.subjects)
    return of_animals.mean(0).filled(0).astype(np.float32)


def means_of_animals(of_windows: np.ma.MaskedArray, subjects: np.ndarray) -> np.ma.MaskedArray:
    """The mean over the windows of each animal; (n, C) to (animals, C), animals sorted.

    Args:
        of_windows: Such as the mean of each channel, masked where it is absent.
        subjects: The animal of each window, (n,).
    """
    return np.ma.stack([of_windows[subjects == each].mean(0) for each in np.unique(subjects)])


def frame_ablation(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    *,
    span: int = SPAN,
    progress: Progress = iter,
) -> np.ndarray:
    """By how much the log-odds of the targets fall when a span of frames is hidden, one span after the other.

    Args:
        model: A classifier.
        windows: What it is shown.
        targets: int (n,), the class of each window.
        span: Frames hidden at a time, in all channels.
        progress: Wrapped around the spans, for a progress bar.

    Returns:
        float32 (n, T). The frames of a span share what its hiding takes; 0 at padding.
    """
    real, visible = windows.real, log_odds_of(model, windows.inputs, targets)
    importance = np.zeros(real.shape, dtype=np.float32)
    for first in progress(range(0, int(real.sum(1).max()), span)):
        hidden = np.zeros_like(real)
        hidden[:, first : first + span] = real[:, first : first + span]
        rows = hidden.any(1)
        lost = visible[rows] - log_odds_of(model, hide(take(windows.inputs, rows), hidden[rows]), targets[rows])
        importance[rows] += hidden[rows] * (lost / hidden[rows].sum(1))[:, None]
    return importance


def channel_ablation(
    model: NeurtForSequenceClassification, windows: ExplainedWindows, targets: np.ndarray
) -> np.ndarray:
    """By how much the log-odds of the targets fall when a whole channel is hidden; float32 (n, C).

    Pretraining hid the own trace alone, and mean and SD of a neighbourhood together.
    """
    visible, shape = log_odds_of(model, windows.inputs, targets), tuple(windows.inputs["input_values"].shape)
    lost = []
    for channel in range(shape[2]):
        hidden = np.zeros(shape, dtype=bool)
        hidden[:, :, channel] = True
        lost.append(visible - log_odds_of(model, hide(windows.inputs, hidden), targets))
    return np.stack(lost, axis=1)


def correlation(
    model: NeurtForSequenceClassification,
    windows: ExplainedWindows,
    targets: np.ndarray,
    *,
    among: ExplainedWindows | None = None,
) -> np.ndarray:
    """A map that takes no look inside the model: which channels are high where it gives the class high log-odds?

    The correlation over windows (Pearson) of a channel's mean with the log-odds of a class, times the value of the
    channel in standard deviations from its mean over all windows, summed over channels.

    Args:
        model: A classifier.
        windows: What it is shown.
        targets: int (n,), the class of each window.
        among: The windows over which correlations, means and deviations are taken; by default the same ones.

    Returns:
        float32 (n, T), 0 at padding.
    """
    among = windows if among is None else among
    values, logits = visible_values(among), torch.as_tensor(logits_of(model, among.inputs))
    standard = (visible_values(windows) - values.mean((0, 1))) / values.std((0, 1))
    importance = np.zeros(windows.real.shape, dtype=np.float32)
    for target in np.unique(targets):
        of_class = log_odds(logits, torch.full((len(among),), target)).numpy()
        weights = _correlations(values.mean(1), of_class)
        chosen = targets == target
        importance[chosen] = (standard[chosen] * weights).sum(2).filled(0)
    return importance


def neuron_importance(of_windows: np.ndarray, windows: ExplainedWindows, recording: Recording) -> np.ndarray:
    """Means over each neuron's windows, such as of what its own trace adds.

    Args:
        of_windows: (n,), for example `of_channels[:, 0]` of an attribution.
        windows: Where they are from; those of other recordings are left out.
        recording: The recording.

    Returns:
        float64 (N,), one for each accepted neuron; NaN without windows.
    """
    mine = np.array(windows.recording_ids)[windows.recording] == recording.recording_id
    return mean_in_cells(of_windows[mine], windows.neuron_index[mine], int(recording.accepted.sum()))


def channel_names(num_channels: int) -> tuple[str, ...]:
    """What the channels are called."""
    return CHANNELS if num_channels == len(CHANNELS) else tuple(f"channel {place}" for place in range(num_channels))


def visible_values(windows: ExplainedWindows) -> np.ma.MaskedArray:
    """The values of windows, masked at padding and where a channel is absent; float64 (n, T, C)."""
    values, absent = windows.inputs["input_values"].cpu().numpy(), windows.inputs.get("bool_masked_pos")
    hidden = np.broadcast_to(~windows.real[..., None], values.shape)
    if absent is not None:
        hidden = hidden | absent.cpu().numpy()
    return np.ma.masked_array(values.astype(np.float64), hidden)


def _attribute_batch(
    model: NeurtForSequenceClassification, inputs: Inputs, targets: np.ndarray, baseline: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Values (B, T, C) and differences (B,) of the windows of one batch."""
    inputs, targets = model_inputs(inputs, model.device), torch.as_tensor(targets, device=model.device)
    names = [name for name in inputs if name != "input_values"]

    def score(values: torch.Tensor, whole: torch.Tensor, targets: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        values = _nearer(values, torch.as_tensor(baseline, device=values.device), whole)
        logits = model(values, **dict(zip(names, others, strict=True))).logits
        return log_odds(logits.float(), targets)

    values = inputs["input_values"].clone().requires_grad_()
    flat = torch.as_tensor(baseline, device=values.device).expand_as(values)
    with_each = (inputs["input_values"], targets, *(inputs[name] for name in names))
    found = IntegratedGradients(score).attribute(
        values, flat, additional_forward_args=with_each, n_steps=steps, method="gausslegendre"
    )
    with torch.inference_mode():
        difference = score(values, *with_each) - score(flat, *with_each)
    return found.detach().float().cpu().numpy(), difference.cpu().numpy()


def _nearer(values: torch.Tensor, baseline: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Move values that are a share of the way from a baseline to the whole to the third power of that share."""
    way = whole - baseline
    share = (values - baseline) / torch.where(way == 0, 1, way)
    return baseline + share**3 * way


def _correlations(means: np.ma.MaskedArray, log_odds: np.ndarray) -> np.ndarray:
    """Pearson correlation of each channel's means (n, C) with log-odds (n,); 0 where either does not vary."""
    centered = means - means.mean(0)
    others = np.ma.masked_array(np.broadcast_to(log_odds[:, None], means.shape), np.ma.getmaskarray(means))
    others = others - others.mean(0)
    scale = np.ma.masked_equal(np.sqrt((centered**2).sum(0) * (others**2).sum(0)), 0)
    return ((centered * others).sum(0) / scale).filled(0)


def _levels_in_words(levels: np.ndarray) -> str:
    """Such as "own 0.12, near mean 0.10"."""
    return ", ".join(f"{name} {level:.3g}" for name, level in zip(channel_names(len(levels)), levels, strict=True))
