"""The attention within one window, its frames pooled into time bins.

bertviz draws a line for each weight and writes them all into its page: 96 MB for 512 frames, 4 layers and 4 heads.

Shapes: L layers, H heads, T frames, b bins.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..masking import model_inputs
from ..modeling_neurt import NeurtPreTrainedModel
from .explained import take

DECIMALS = 4  # of weights; more would only make pages longer


@dataclass(frozen=True, eq=False)
class BinnedAttention:
    """What the time bins of a window take from one another.

    Args:
        weights: float64 (L, H, b, b), how much of a bin's attention (row) each bin gets (column); rows add to one, but
            for rounding.
        labels: (b,), when each bin begins, as `bin_labels` has it.
        frames_per_bin: Frames of each bin; the last may have fewer.
    """

    weights: torch.Tensor
    labels: tuple[str, ...]
    frames_per_bin: int


def bin_attention(model: NeurtPreTrainedModel, inputs: Mapping[str, Any], bins: int, row: int = 0) -> BinnedAttention:
    """Run a model on one window of a batch and pool its attention into time bins; padding is left out.

    Args:
        model: Any NEuRT model, loaded with `attn_implementation="eager"`.
        inputs: A batch of windows, as `NeurtProcessor` gives it. Labels count from the start of the recording with
            `start_frame`, else of the window; in seconds with `sampling_rate`, else in frames.
        bins: Most bins.
        row: Which window of the batch.

    Raises:
        ValueError: If the model keeps no attention, or the number of bins is below two.
    """
    window = take(model_inputs(inputs, model.device), slice(row, row + 1))
    real = window.get("attention_mask", torch.ones(window["input_values"].shape[:2]))[0].bool()
    num_frames = int(real.sum())
    frames_per_bin = frames_in_bin(num_frames, bins)
    attention = attention_of(model, window)[..., real, :][..., real].cpu()
    rate = float(window["sampling_rate"][0]) if "sampling_rate" in window else math.nan
    first = int(inputs["start_frame"][row]) if "start_frame" in inputs else 0
    labels = bin_labels(hidden_frames(window)[real].cpu(), frames_per_bin, first, rate)
    return BinnedAttention(pool_frames(attention, frames_per_bin).round(decimals=DECIMALS), labels, frames_per_bin)


def attention_of(model: NeurtPreTrainedModel, window: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The attention weights of every layer and head, (L, H, T, T), of a batch of one window."""
    kind = model.config._attn_implementation
    if kind != "eager":
        raise ValueError(
            f"expected a model that keeps its attention, got one with {kind} attention, which does not; load it with "
            'attn_implementation="eager"'
        )
    with torch.inference_mode():
        return torch.cat(model(**window, output_attentions=True).attentions)


def hidden_frames(window: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Which frames of a batch of one window the model sees nothing of; bool (T,)."""
    hidden = window.get("bool_masked_pos")
    if hidden is None:
        return torch.zeros_like(window["input_values"][0, :, 0], dtype=torch.bool)
    return hidden[0] if hidden.ndim == 2 else hidden[0].all(-1)


def frames_in_bin(num_frames: int, bins: int) -> int:
    """The fewest frames a bin that make no more than so many bins.

    Raises:
        ValueError: If fewer than two bins are asked for.
    """
    if bins < 2:
        raise ValueError(f"expected at least 2 bins, got {bins}")
    return math.ceil(num_frames / bins)


def pool_frames(attention: torch.Tensor, frames_per_bin: int) -> torch.Tensor:
    """Average rows and add up columns over the frames of each bin, so that rows still add to one.

    Args:
        attention: (..., T, T), rows adding to one.
        frames_per_bin: The last bin may have fewer.

    Returns:
        float64 (..., b, b).
    """
    rows = [some.mean(-2) for some in attention.double().split(frames_per_bin, dim=-2)]
    columns = torch.stack(rows, -2).split(frames_per_bin, dim=-1)
    return torch.stack([some.sum(-1) for some in columns], -1)


def bin_labels(hidden: torch.Tensor, frames_per_bin: int, start_frame: int, sampling_rate: float) -> tuple[str, ...]:
    """When each bin begins, like "12.8 s", or "12.8 s hidden" if the model does not see half of its frames or more.

    Args:
        hidden: bool (T,).
        frames_per_bin: The last bin may have fewer.
        start_frame: Frame of the recording at which the window begins.
        sampling_rate: Hz; NaN if it is not known, then bins are labelled by frames, like "frame 64".
    """
    times = time_labels(range(start_frame, start_frame + len(hidden), frames_per_bin), sampling_rate)
    marks = [" hidden" if some.double().mean() >= 0.5 else "" for some in hidden.split(frames_per_bin)]
    return tuple(f"{time}{mark}" for time, mark in zip(times, marks, strict=True))


def time_labels(frames: range, sampling_rate: float) -> list[str]:
    """The times of frames at equal distances, with as many decimals as it takes to tell them apart, one at least."""
    if not math.isfinite(sampling_rate):
        return [f"frame {frame}" for frame in frames]
    decimals = max(1, math.ceil(math.log10(sampling_rate / frames.step)))
    return [f"{frame / sampling_rate:.{decimals}f} s" for frame in frames]
