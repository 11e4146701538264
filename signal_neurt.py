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


# What a standard deviation is at least: a share of that of the window's most variable channel, and a thousandth of the
# range that min-max scaling gives a trace. So what is silent while visible is not divided by nothing.
SMALLEST_SHARE, SMALLEST_SCALE = 0.1, 0.001
# Interpolation that is nearly right by chance must not weigh without limit.
SMALLEST_ERROR_SHARE, SMALLEST_ERROR = 0.1, 0.003
NEARBY_FRAMES = 11  # just beyond the longest span that is hidden
SMALLEST_ROUGHNESS = 0.01


def visible_center_and_scale(values: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of each channel over visible frames, and their standard deviation, (B, 1, C) each, never quite 0.

    A channel without a visible frame takes the mean center and scale of the channels that have one, or 0 and 1 where
    none has.

    Args:
        values: (B, T, C), 0 where not visible.
        visible: Bool (B, T, C).
    """
    center, variance = _mean_and_variance(values, visible)
    smallest = SMALLEST_SHARE**2 * variance.amax(-1, keepdim=True) + SMALLEST_SCALE**2
    scale = (variance + smallest).sqrt()
    seen = visible.any(1, keepdim=True)
    return _borrow(center, seen, 0.0), _borrow(scale, seen, 1.0)


def _mean(values: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean over the frames of each channel that are True in `where`, (B, 1, C); 0 where none is."""
    return torch.where(where, values, 0.0).sum(1, keepdim=True) / where.sum(1, keepdim=True).clamp(min=1)


def _mean_and_variance(values: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    center = _mean(values, where)
    return center, _mean((values - center).square(), where)


def _borrow(statistic: torch.Tensor, seen: torch.Tensor, fallback: float) -> torch.Tensor:
    """Give channels that are not seen the mean over those that are; all (B, 1, C)."""
    count = seen.sum(-1, keepdim=True)
    mean = torch.where(count > 0, (statistic * seen).sum(-1, keepdim=True) / count.clamp(min=1), fallback)
    return torch.where(seen, statistic, mean)


def visible_roughness(values: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """How far a frame lies from the mean of its two neighbours (RMS over visible triples), (B, 1, C).

    1.2 for white noise of unit variance, near 0 where lines between visible frames are nearly right; 1 without a
    visible triple.

    Args:
        values: (B, T, C), of unit variance.
        visible: Bool (B, T, C).
    """
    triples = visible[:, :-2] & visible[:, 1:-1] & visible[:, 2:]
    bends = values[:, 1:-1] - (values[:, :-2] + values[:, 2:]) / 2
    roughness = _mean(bends.square(), triples).sqrt()
    return torch.where(triples.any(1, keepdim=True), roughness, 1.0).clamp(min=SMALLEST_ROUGHNESS)


def filling_error(
    filled: torch.Tensor, targets: torch.Tensor, real: torch.Tensor, scored: torch.Tensor
) -> torch.Tensor:
    """RMS error of filling a channel with straight lines, and at least a share of its spread; (B, 1, C).

    The larger of two: over scored frames, and over visible frames nearby if those were hidden instead. By the first
    alone, errors in a sparse signal would weigh most where nothing happened in a gap and least where something did,
    which teaches to predict less than the mean.

    Args:
        filled: (B, T, C).
        targets: (B, T, C); NaN is left out.
        real: Bool (B, T, C), False at padding.
        scored: Bool (B, T, C).
    """
    real = real & ~targets.isnan()
    values = torch.where(real, targets.float(), 0.0)
    _, variance = _mean_and_variance(values, real)
    here = _mean((filled - values).square(), scored)
    nearby = _error_nearby(values, real & ~scored, scored)
    errors = torch.maximum(torch.maximum(here, nearby), SMALLEST_ERROR_SHARE**2 * variance)
    return (errors + SMALLEST_ERROR**2).sqrt()


def _error_nearby(values: torch.Tensor, visible: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Mean squared error of lines across visible frames `NEARBY_FRAMES` from scored ones; 0 where there are none."""
    nearby = torch.zeros_like(scored)
    nearby[:, NEARBY_FRAMES:] |= scored[:, :-NEARBY_FRAMES]
    nearby[:, :-NEARBY_FRAMES] |= scored[:, NEARBY_FRAMES:]
    nearby &= visible
    rest = visible & ~nearby
    lines = fill_linearly(torch.where(rest, values, 0.0), rest)
    return _mean((lines - values).square(), nearby & rest.any(1, keepdim=True))


def masked_squared_error(
    reconstruction: torch.Tensor,
    targets: torch.Tensor,
    scored: torch.Tensor,
    num_items: torch.Tensor | int | None = None,
    unit: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Sum of squared errors over `scored` positions divided by `num_items`, by default their number.

    Args:
        unit: What an error of 1 is: a number, or (B, 1, C).
    """
    errors = torch.where(scored, (reconstruction.float() - targets.float()) / unit, 0.0)
    if num_items is None:
        num_items = scored.sum().clamp(min=1)
    return errors.square().sum() / num_items
