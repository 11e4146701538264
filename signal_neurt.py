"""What NEuRT does to the values of a window before encoding and after decoding.

Shapes: B windows, T frames, C channels.
"""

import torch


def expand_mask_to_channels(bool_masked_pos: torch.Tensor, input_values: torch.Tensor) -> torch.Tensor:
    """Bring a mask over frames (B, T), or over frames and channels (B, T, C), to bool (B, T, C)."""
    mask = bool_masked_pos.bool()
    if mask.ndim == 2:
        mask = mask.unsqueeze(-1)
    return mask.expand_as(input_values)


def fill_linearly(values: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Straight lines between the visible values of each channel.

    Before the first and after the last visible frame stands the nearest visible value; a channel with none is 0.

    Args:
        values: (B, T, C), 0 where not visible.
        visible: Bool (B, T, C).
    """
    num_frames = values.shape[1]
    frames = torch.arange(num_frames, device=values.device).view(1, -1, 1)
    before = torch.where(visible, frames, -1).cummax(1).values
    after = torch.where(visible, frames, num_frames).flip(1).cummin(1).values.flip(1)
    left = torch.where(before >= 0, before, after).clamp(max=num_frames - 1)
    right = torch.where(after < num_frames, after, left)
    share = (frames - left) / (right - left).clamp(min=1)
    return torch.lerp(values.gather(1, left), values.gather(1, right), share.to(values.dtype))


# Added in quadrature to every standard deviation, so that what is silent while visible is not divided by nothing: a
# fiftieth of the range that min-max scaling gives a trace.
SMALLEST_SCALE = 0.02


def visible_center_and_scale(values: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of each channel over visible frames, and their standard deviation, (B, 1, C) each.

    A channel without a visible frame takes the mean center and scale of the channels that have one, or 0 and 1 where
    none has.

    Args:
        values: (B, T, C), 0 where not visible.
        visible: Bool (B, T, C).
    """
    count = visible.sum(1, keepdim=True).clamp(min=1)
    center = values.sum(1, keepdim=True) / count
    deviations = torch.where(visible, values - center, 0.0)
    scale = (deviations.square().sum(1, keepdim=True) / count + SMALLEST_SCALE**2).sqrt()
    seen = visible.any(1, keepdim=True)
    return _borrow(center, seen, 0.0), _borrow(scale, seen, 1.0)


def _borrow(statistic: torch.Tensor, seen: torch.Tensor, fallback: float) -> torch.Tensor:
    """Give channels that are not seen the mean over those that are; all (B, 1, C)."""
    count = seen.sum(-1, keepdim=True)
    mean = torch.where(count > 0, (statistic * seen).sum(-1, keepdim=True) / count.clamp(min=1), fallback)
    return torch.where(seen, statistic, mean)


def masked_squared_error(
    reconstruction: torch.Tensor,
    targets: torch.Tensor,
    scored: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Sum of squared errors over `scored` positions divided by `num_items`, by default their number."""
    errors = torch.where(scored, reconstruction.float() - targets.float(), 0.0)
    if num_items is None:
        num_items = scored.sum().clamp(min=1)
    return errors.square().sum() / num_items
