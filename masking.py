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


def span_mask(
    num_frames: int,
    generator: np.random.Generator,
    mask_ratio: float = 0.15,
    max_span: int = 10,
    geometric_p: float = 0.2,
) -> np.ndarray:
    """Hide spans of frames, as the original does, with a visible frame between any two.

    Args:
        num_frames: Frames to choose from.
        generator: Source of randomness.
        mask_ratio: Share of frames to hide.
        max_span: Longest span, in frames.
        geometric_p: Span lengths follow a geometric law with this parameter, cut at `max_span` (the original's 0.2).

    Returns:
        bool (num_frames,), True where hidden. The first and last frames are hidden as well, but less often than
        others, for no span reaches over an end; in the original the last frame never was.
    """
    lengths = np.arange(1, max_span + 1)
    law = (1 - geometric_p) ** lengths
    law /= law.sum()
    budget = max(1, round(mask_ratio * num_frames))
    spans = []
    while budget:
        spans.append(min(int(generator.choice(lengths, p=law)), budget))
        budget -= spans[-1]
    # The visible frames that are not needed as separators fall at random before, between and after the spans.
    free = num_frames - sum(spans) - (len(spans) - 1)
    gaps = np.sort(generator.integers(0, free + 1, size=len(spans)))
    starts = gaps + np.concatenate([[0], np.cumsum(spans[:-1])]).astype(int) + np.arange(len(spans))
    hidden = np.zeros(num_frames, dtype=bool)
    for start, span in zip(starts, spans, strict=True):
        hidden[start : start + span] = True
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
    """Stacks windows and hides spans of their real frames.

    Masks are drawn from (seed, epoch, window index) alone, so they depend on neither workers nor processes, and an
    evaluation meets the same masks each time.

    Args:
        seed: Seed of all masks.
        mask_ratio: Share of real frames to hide.
        max_span: Longest hidden span, in frames.
        geometric_p: Parameter of the span lengths' law; see `span_mask`.

    Raises:
        ValueError: If a value is out of its range.
    """

    def __init__(self, seed: int = 0, mask_ratio: float = 0.15, max_span: int = 10, geometric_p: float = 0.2):
        if not 0 < mask_ratio <= 0.5:
            raise ValueError(f"expected mask_ratio above 0 and at most 0.5, got {mask_ratio}")
        if max_span < 1:
            raise ValueError(f"expected max_span of at least 1 frame, got {max_span}")
        if not 0 < geometric_p < 1:
            raise ValueError(f"expected geometric_p above 0 and below 1, got {geometric_p}")
        self.seed = seed
        self.span_options = {"mask_ratio": mask_ratio, "max_span": max_span, "geometric_p": geometric_p}

    def __call__(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate windows that carry `window_index`, and `epoch` if it is not 0.

        Returns:
            The batch with `bool_masked_pos`, (B, L), or (B, L, C) where windows have absent channels, and the targets
            as `labels` (B, L, C), NaN in absent channels; without `labels` in the batch `Trainer` gives no eval loss.
        """
        if "window_index" not in windows[0]:
            raise ValueError(
                f"expected windows with window_index, got {', '.join(windows[0])}; with Trainer, set "
                "TrainingArguments(remove_unused_columns=False)"
            )
        hidden = torch.as_tensor(np.stack([self._mask(window) for window in windows]))
        drawn = ("window_index", "epoch")
        batch = collate_windows([{k: v for k, v in window.items() if k not in drawn} for window in windows])
        batch["labels"] = batch["input_values"]
        if "bool_masked_pos" in batch:
            batch["labels"] = batch["labels"].masked_fill(batch["bool_masked_pos"], torch.nan)
            hidden = batch["bool_masked_pos"] | hidden.unsqueeze(-1)
        batch["bool_masked_pos"] = hidden
        return batch

    def _mask(self, window: Mapping[str, Any]) -> np.ndarray:
        generator = np.random.default_rng([self.seed, int(window.get("epoch", 0)), int(window["window_index"])])
        real = np.flatnonzero(np.asarray(window["attention_mask"]))
        hidden = np.zeros(len(window["attention_mask"]), dtype=bool)
        hidden[real] = span_mask(len(real), generator, **self.span_options)
        return hidden
