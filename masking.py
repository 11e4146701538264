"""Masks over windows, and the collators that make batches of windows.

Shapes: B windows, L frames in a window, C channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

MODEL_INPUTS = ("input_values", "attention_mask", "bool_masked_pos", "sampling_rate")


def model_inputs(batch: Mapping[str, Any], device: torch.device | str) -> dict[str, torch.Tensor]:
    """What of a batch a model takes to make its output, on its device; the labels are left out."""
    return {name: batch[name].to(device) for name in MODEL_INPUTS if batch.get(name) is not None}


GEOMETRIC_P = 0.2  # the original's


def span_mask(
    num_frames: int, generator: np.random.Generator, mask_ratio: float = 0.15, max_span: int = 10
) -> np.ndarray:
    """Hide spans of frames, as the original does, with a visible frame between any two.

    Args:
        num_frames: Frames to choose from.
        generator: Source of randomness.
        mask_ratio: Share of frames to hide.
        max_span: Longest span, in frames; lengths follow a geometric law of `GEOMETRIC_P`, cut here.

    Returns:
        bool (num_frames,), True where hidden. Every frame is hidden as often as any other, the first and last
        included, where a span may be cut; in the original the last frame never was hidden.
    """
    lengths = np.arange(1, max_span + 1)
    law = (1 - GEOMETRIC_P) ** lengths
    law /= law.sum()
    budget = max(1, round(mask_ratio * num_frames))
    spans = []
    while budget:
        spans.append(min(int(generator.choice(lengths, p=law)), budget))
        budget -= spans[-1]
    # On a ring, whose places are all alike, a visible frame follows each span; the others fall anywhere between.
    free = max(num_frames - sum(spans) - len(spans), 0)
    gaps = np.sort(generator.integers(0, free + 1, size=len(spans)))
    starts = gaps + np.concatenate([[0], np.cumsum(spans[:-1])]).astype(int) + np.arange(len(spans))
    hidden = np.zeros(num_frames, dtype=bool)
    for start, span in zip(starts, spans, strict=True):
        hidden[start : start + span] = True
    # Where every second frame is hidden there may be no room for the last visible one, and nothing to turn.
    return hidden if hidden[0] and hidden[-1] else np.roll(hidden, generator.integers(num_frames))


# Channels that a task hides for the whole window, in the order of the processor's CHANNELS.
HIDDEN_CHANNELS = {"neuron": [0], "near": [1, 2], "far": [3, 4], "population": [1, 2, 3, 4]}
MASK_TASKS = ("span", *HIDDEN_CHANNELS, "forecast")
# The weight of each in pretraining, that of the shipped weights included; most of it is for gaps, which a model is
# asked for most.
PRETRAINING_TASKS = {"span": 16.0, "neuron": 1.0, "near": 0.5, "far": 0.5, "population": 0.5, "forecast": 2.0}


def channel_mask(num_frames: int, num_channels: int, task: str) -> np.ndarray:
    """Hide channels for a whole window.

    Args:
        num_frames: Frames T.
        num_channels: Channels C.
        task: "neuron" (the own trace, predicted from the population: co-smoothing), "near" or "far" (mean and SD of a
            neighbourhood) or "population" (of both, predicted from the own trace).

    Returns:
        bool (T, C), True where hidden.
    """
    hidden = np.zeros((num_frames, num_channels), dtype=bool)
    hidden[:, HIDDEN_CHANNELS[task]] = True
    return hidden


FORECAST_SECONDS = 1.0


def forecast_mask(num_frames: int, sampling_rate: float, seconds: float = FORECAST_SECONDS) -> np.ndarray:
    """Hide the last seconds of a window, in all channels; at least one frame, at most half of them.

    Args:
        num_frames: Frames T.
        sampling_rate: Frames per second (Hz).
        seconds: How much is hidden.

    Returns:
        bool (T,), True where hidden.
    """
    hidden = np.zeros(num_frames, dtype=bool)
    hidden[num_frames - int(np.clip(round(seconds * sampling_rate), 1, num_frames // 2)) :] = True
    return hidden


def collate_windows(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack windows into a batch: arrays and numbers become tensors, strings a list.

    Raises:
        ValueError: If the windows do not carry the same entries.
    """
    odd = next((window for window in windows if window.keys() != windows[0].keys()), None)
    if odd is not None:
        names = ", ".join(sorted(odd.keys() ^ windows[0].keys()))
        raise ValueError(
            f"expected the same entries in each window of a batch, got some with and some without {names}; make all "
            "data sets with the same missing_neighbours and label"
        )
    batch = {}
    for name, first in windows[0].items():
        values = [window[name] for window in windows]
        batch[name] = values if isinstance(first, str) else torch.as_tensor(np.stack(values))
    return batch


class MaskedSignalCollator:
    """Stacks windows and hides parts of their real frames, by one task or by several, drawn for each window.

    Masks are drawn from (seed, epoch, window index) alone, so they depend on neither workers nor processes, and an
    evaluation meets the same masks each time.

    Args:
        seed: Seed of all masks.
        tasks: Weight of each task, for example `{"span": 3, "neuron": 1}`; names as in `MASK_TASKS`, by default spans
            alone. A window that lacks channels gets spans instead of a task that hides whole channels.
        default_sampling_rate: Frames per second (Hz) of windows that tell none, for "forecast".

    Raises:
        ValueError: If a task is not known, or a weight or the rate not above 0.
    """

    def __init__(self, seed: int = 0, *, tasks: Mapping[str, float] | None = None, default_sampling_rate: float = 8.0):
        if not 0 < default_sampling_rate < np.inf:
            raise ValueError(f"expected a default_sampling_rate above 0 Hz, got {default_sampling_rate}")
        self.seed = seed
        self.tasks = _shares({"span": 1.0} if tasks is None else tasks)
        self.default_sampling_rate = default_sampling_rate

    def __call__(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate windows that carry `window_index`, and `epoch` if it is not 0.

        Returns:
            The batch with `bool_masked_pos`, (B, L), or (B, L, C) where windows have absent channels or a task hides
            channels; the targets as `labels` (B, L, C), NaN in absent channels (without `labels` in the batch
            `Trainer` gives no eval loss); and `mask_task`, the name of each window's task.
        """
        if "window_index" not in windows[0]:
            raise ValueError(
                f"expected windows with window_index, got {', '.join(windows[0])}; with Trainer, set "
                "TrainingArguments(remove_unused_columns=False)"
            )
        tasks, masks = zip(*map(self._task_and_mask, windows), strict=True)
        hidden = torch.as_tensor(np.stack(masks))
        drawn = ("window_index", "epoch")
        batch = collate_windows([{k: v for k, v in window.items() if k not in drawn} for window in windows])
        batch["labels"] = batch["input_values"]
        if "bool_masked_pos" in batch:
            batch["labels"] = batch["labels"].masked_fill(batch["bool_masked_pos"], torch.nan)
            hidden = batch["bool_masked_pos"] | (hidden if hidden.ndim == 3 else hidden.unsqueeze(-1))
        batch["bool_masked_pos"] = hidden
        batch["mask_task"] = list(tasks)
        return batch

    def _task_and_mask(self, window: Mapping[str, Any]) -> tuple[str, np.ndarray]:
        """Draw the task of a window and its mask, (L,), or (L, C) where any task hides channels."""
        generator = np.random.default_rng([self.seed, int(window.get("epoch", 0)), int(window["window_index"])])
        task = self._draw_task(window, generator)
        real = np.flatnonzero(np.asarray(window["attention_mask"]))
        num_channels = np.shape(window["input_values"])[-1]
        if task in HIDDEN_CHANNELS:
            mask = channel_mask(len(real), num_channels, task)
        elif task == "forecast":
            mask = forecast_mask(len(real), self._rate(window))
        else:
            mask = span_mask(len(real), generator)
        if mask.ndim == 1 and not HIDDEN_CHANNELS.keys().isdisjoint(self.tasks):
            mask = np.repeat(mask[:, None], num_channels, axis=1)
        hidden = np.zeros((len(window["attention_mask"]), *mask.shape[1:]), dtype=bool)
        hidden[real] = mask
        return task, hidden

    def _draw_task(self, window: Mapping[str, Any], generator: np.random.Generator) -> str:
        if len(self.tasks) == 1:
            # Nothing is drawn, so that the spans of a window are the same with and without the choice of tasks.
            task = next(iter(self.tasks))
        else:
            task = str(generator.choice(list(self.tasks), p=list(self.tasks.values())))
        absent = np.any(window.get("bool_masked_pos", False))
        return "span" if absent and task in HIDDEN_CHANNELS else task

    def _rate(self, window: Mapping[str, Any]) -> float:
        rate = float(window.get("sampling_rate", np.nan))
        return rate if np.isfinite(rate) else self.default_sampling_rate


def _shares(tasks: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each task."""
    unknown = [name for name in tasks if name not in MASK_TASKS]
    if unknown or not tasks:
        raise ValueError(f"expected tasks among {', '.join(MASK_TASKS)}, got {', '.join(map(str, unknown)) or 'none'}")
    weights = np.array([float(weight) for weight in tasks.values()])
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"expected a weight above 0 for each task, got {dict(tasks)}")
    return dict(zip(tasks, (weights / weights.sum()).tolist(), strict=True))
