"""From traces and positions to windows of five channels.

Shapes: N neurons, T frames, C channels (5), B windows, L frames in a window.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import logging

logger = logging.get_logger(__name__)

CHANNELS = ("own", "near mean", "near SD", "far mean", "far SD")
MIN_FRAMES = 32
# Said where neighbours are missing, to those who write Python and to those who write commands.
MASK_NEIGHBOURS = 'missing_neighbours="mask" (--missing-neighbours mask)'
MIN_NEURONS = 5
MIN_NEIGHBOURS = 2  # a standard deviation with ddof 1 needs two
NORMALIZATIONS = ("minmax", "zscore", "none")
RADIUS_UNITS = ("um", "px", "quantile")
# Bound what `neighbour_statistics` holds beside its result and the distances: float64 arrays of NEURON_BLOCK x N,
# N x FRAME_BLOCK and NEURON_BLOCK x FRAME_BLOCK.
NEURON_BLOCK = 1024
FRAME_BLOCK = 256


def scale_traces(traces: np.ndarray, normalization: str, scale_frames: int | None = None) -> np.ndarray:
    """Scale each neuron's trace over its whole recording, or by its first frames alone.

    Min-max, the original's choice, looks at every frame, hidden and future ones included, and depends on the length
    of the recording and on its noise. A forecast must not know its future: `scale_frames` keeps it out.

    Args:
        traces: (N, T), finite, and not constant over the frames that set the scale.
        normalization: "minmax" to [0, 1], "zscore" to mean 0 and standard deviation 1, or "none".
        scale_frames: Number of leading frames that set the scale, by default all; later ones may leave [0, 1].

    Returns:
        float32 (N, T), a new array.
    """
    traces = traces.astype(np.float32)
    if normalization == "none":
        return traces
    seen = traces[:, :scale_frames]
    if normalization == "zscore":
        offset, scale = seen.mean(1, dtype=np.float64), seen.std(1, dtype=np.float64)
    else:
        offset, scale = seen.min(1), np.ptp(seen, axis=1)
    return ((traces - offset[:, None]) / scale[:, None]).astype(np.float32)


def pairwise_distances(centroids: np.ndarray) -> np.ndarray:
    """Euclidean distances between positions (N, 2) -> float64 (N, N), in the unit of the positions."""
    x, y = centroids.T.astype(np.float64)
    distances = x[:, None] - x
    return np.hypot(distances, y[:, None] - y, out=distances)


def neighbour_statistics(
    traces: np.ndarray, distances: np.ndarray, radius: float, out: np.ndarray | None = None
) -> np.ndarray:
    """Mean and standard deviation (ddof 1) over near and over far neurons, frame by frame.

    Near is a distance below the radius, far one above it, the neuron itself excluded. The sums are matrix products in
    float64: in float32 the difference E[x²] − E[x]² loses three digits on real recordings, whose neighbours are alike.

    Args:
        traces: float (N, T).
        distances: float (N, N).
        radius: In the unit of the distances.
        out: float32 (N, T, 4) to write into, by default a new array.

    Returns:
        float32 (N, T, 4): near mean, near SD, far mean, far SD; NaN where fewer than two neurons are near, or far.
    """
    num_neurons, num_frames = traces.shape
    statistics = np.empty((num_neurons, num_frames, 4), dtype=np.float32) if out is None else out
    # torch and not numpy: what is between the products then uses every core as well.
    written, traces, distances = (torch.from_numpy(array) for array in (statistics, traces, distances))
    near = (distances < radius).fill_diagonal_(False)
    at_radius = (distances == radius).fill_diagonal_(False)
    for rows in _blocks(num_neurons, NEURON_BLOCK):
        near_rows = near[rows].double()
        tied_rows = at_radius[rows].double() if at_radius[rows].any() else None
        near_count = near_rows.sum(1, keepdim=True)
        far_count = num_neurons - 1 - near_count - at_radius[rows].sum(1, keepdim=True)
        for frames in _blocks(num_frames, FRAME_BLOCK):
            values = traces[:, frames].double()
            near_sum, far_sum = _near_and_far_sums(values, rows, near_rows, tied_rows)
            near_square, far_square = _near_and_far_sums(values.square(), rows, near_rows, tied_rows)
            written[rows, frames, 0], written[rows, frames, 1] = _moments(near_sum, near_square, near_count)
            written[rows, frames, 2], written[rows, frames, 3] = _moments(far_sum, far_square, far_count)
    return statistics


def _blocks(length: int, size: int) -> Iterable[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def _near_and_far_sums(
    values: torch.Tensor, rows: slice, near_rows: torch.Tensor, tied_rows: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of `values` over near and over far neurons: far = all − near − self − those exactly at the radius."""
    near = near_rows @ values
    far = values.sum(0) - near
    far -= values[rows]
    if tied_rows is not None:
        far -= tied_rows @ values
    return near, far


def _moments(total: torch.Tensor, squares: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation (ddof 1) from sums; NaN where the count is below two."""
    mean = total / torch.where(count >= MIN_NEIGHBOURS, count, torch.nan)
    deviation = squares.addcmul_(total, mean, value=-1).div_((count - 1).clamp(min=1)).clamp_(min=0).sqrt_()
    return mean, deviation


def window_bounds(num_frames: int, segment_starts: Sequence[int], length: int, stride: int) -> list[tuple[int, int]]:
    """First frame and end of each window; none crosses a segment border, the last of a segment may be short.

    Remainders under `MIN_FRAMES` are left out.

    Args:
        num_frames: Frames T of the recording.
        segment_starts: Frames at which segments begin, from 0.
        length: Frames in a whole window.
        stride: Frames from one window's start to the next one's.

    Raises:
        ValueError: If the segments do not begin with frame 0 and follow one another.
    """
    edges = [*map(int, segment_starts), num_frames]
    if edges[0] != 0 or any(start >= stop for start, stop in pairwise(edges)):
        raise ValueError(
            f"expected increasing segment_starts from 0 to below {num_frames} frames, got {edges[:-1][:5]}"
        )
    bounds = []
    for start, stop in pairwise(edges):
        for first in range(start, stop, stride):
            end = min(first + length, stop)
            if end - first >= MIN_FRAMES:
                bounds.append((first, end))
            if end == stop:
                break
    return bounds


class NeurtProcessor(ProcessorMixin):
    """Turns the traces and positions of one imaging field into windows of five channels.

    Args:
        window_length: Frames in a window.
        window_stride: Frames from one window's start to the next one's; by default `window_length`.
        neighbour_radius: Neurons closer than this are near, those farther are far.
        radius_unit: "um" or "px", or "quantile" of the distances between the field's neurons (between 0 and 1).
        normalization: "minmax", "zscore" or "none"; see `scale_traces`.
        trace_kind: Trace kind the model was trained on; another one gives a warning.
        sampling_rate: Rate in Hz the model was trained on; one that differs by over 10 % gives a warning.

    Raises:
        ValueError: If a setting is out of its range.
    """

    def __init__(
        self,
        window_length: int = 128,
        window_stride: int | None = None,
        neighbour_radius: float = 0.3,
        radius_unit: str = "quantile",
        normalization: str = "minmax",
        trace_kind: str | None = None,
        sampling_rate: float | None = None,
        **kwargs,
    ):
        self.window_length = window_length
        self.window_stride = window_length if window_stride is None else window_stride
        self.neighbour_radius = neighbour_radius
        self.radius_unit = radius_unit
        self.normalization = normalization
        self.trace_kind = trace_kind
        self.sampling_rate = sampling_rate
        self._check_settings()
        super().__init__(**kwargs)

    def __call__(
        self,
        traces: np.ndarray,
        centroids: np.ndarray | None = None,
        *,
        sampling_rate: float | None = None,
        coordinate_unit: str | None = None,
        segment_starts: Sequence[int] = (0,),
        trace_kind: str | None = None,
        missing_neighbours: str = "error",
    ) -> BatchFeature:
        """Cut one imaging field into windows, neuron by neuron.

        Args:
            traces: Activity (N, T).
            centroids: Positions (N, 2), or None.
            sampling_rate: Frames per second, Hz.
            coordinate_unit: "um" or "px".
            segment_starts: Frames at which concatenated trials or bouts begin.
            trace_kind: Checked against the processor's own.
            missing_neighbours: "error" refuses a field without positions and drops neurons without neighbours; "mask"
                keeps their own trace and marks the other channels as absent.

        Returns:
            `input_values` float32 (B, L, 5); `attention_mask` (B, L), 0 at padding; `neuron_index` (B,);
            `start_frame` (B,); `sampling_rate` (B,) in Hz, NaN if not given; with absent channels also
            `bool_masked_pos` (B, L, 5), True there. `dropped` maps each reason to the neurons left out for it.

        Raises:
            ValueError: If shapes, units or counts are not what they should be.
        """
        self.check_expectations(sampling_rate, trace_kind)
        channels, dropped = self.channels_and_dropped(traces, centroids, coordinate_unit, missing_neighbours)
        neurons = np.flatnonzero(~np.isnan(channels[:, 0, 0]))
        bounds = window_bounds(channels.shape[1], segment_starts, self.window_length, self.window_stride)
        if not bounds:
            raise ValueError(f"expected a segment of at least {MIN_FRAMES} frames, got {channels.shape[1]} in all")
        windows = [
            make_window(channels[neuron], first, end, self.window_length)
            for neuron in neurons
            for first, end in bounds
        ]
        batch = {name: np.stack([window[name] for window in windows]) for name in windows[0]}
        if not batch["bool_masked_pos"].any():
            del batch["bool_masked_pos"]
        batch["neuron_index"] = np.repeat(neurons, len(bounds))
        batch["start_frame"] = np.tile([first for first, _ in bounds], len(neurons))
        rate = np.nan if sampling_rate is None else sampling_rate
        batch["sampling_rate"] = np.full(len(windows), rate, dtype=np.float32)
        features = BatchFeature(batch, tensor_type="pt")
        features["dropped"] = dropped
        return features

    def neighbour_channels(
        self,
        traces: np.ndarray,
        centroids: np.ndarray | None = None,
        *,
        coordinate_unit: str | None = None,
        missing_neighbours: str = "error",
        scale_frames: int | None = None,
    ) -> np.ndarray:
        """The five channels of every neuron over the whole recording.

        Args:
            traces: Activity (N, T).
            centroids: Positions (N, 2), or None.
            coordinate_unit: "um" or "px".
            missing_neighbours: As in `__call__`.
            scale_frames: Number of leading frames that set the scale; by default all. See `scale_traces`.

        Returns:
            float32 (N, T, 5), scaled; rows of dropped neurons and absent channels are NaN.

        Raises:
            ValueError: As `__call__`.
        """
        return self.channels_and_dropped(traces, centroids, coordinate_unit, missing_neighbours, scale_frames)[0]

    def channels_and_dropped(
        self,
        traces: np.ndarray,
        centroids: np.ndarray | None,
        coordinate_unit: str | None,
        missing_neighbours: str,
        scale_frames: int | None = None,
    ) -> tuple[np.ndarray, dict[str, list[int]]]:
        """The five channels (N, T, 5), and the neurons dropped for each reason; arguments as `neighbour_channels`."""
        traces, centroids = check_arrays(traces, centroids, missing_neighbours)
        if scale_frames is not None and not 2 <= scale_frames <= traces.shape[1]:
            raise ValueError(f"expected scale_frames from 2 to {traces.shape[1]}, all frames, got {scale_frames}")
        finite = np.isfinite(traces).all(1)
        usable = finite.copy()
        usable[finite] = np.ptp(traces[finite, :scale_frames], axis=1) > 0
        dropped = {"NaN or infinite frames": ~finite, "constant trace": finite & ~usable}

        placed = usable & np.isfinite(centroids).all(1)
        if missing_neighbours == "error":
            dropped["no position"] = usable & ~placed
            usable = placed
        own = scale_traces(traces[usable], self.normalization, scale_frames)
        channels = self._usable_channels(own, centroids[usable], coordinate_unit, missing_neighbours)
        alone = np.isnan(channels[:, 0]).any(1)
        if missing_neighbours == "error" and alone.any():
            dropped[f"fewer than {MIN_NEIGHBOURS} near or far neurons"] = _scatter(alone, usable, False)
            channels[alone] = np.nan
        report = {reason: np.flatnonzero(mask).tolist() for reason, mask in dropped.items() if mask.any()}
        if np.isnan(channels[:, 0, 0]).all():
            counts = ", ".join(f"{len(neurons)} for {reason}" for reason, neurons in report.items())
            raise ValueError(f"expected neurons to make windows of, got none: of {len(traces)} dropped {counts}")
        return _scatter(channels, usable, np.nan), report

    def _usable_channels(
        self, own: np.ndarray, centroids: np.ndarray, coordinate_unit: str | None, missing_neighbours: str
    ) -> np.ndarray:
        """The five channels of scaled traces; those of missing neighbours are NaN."""
        channels = np.empty((*own.shape, len(CHANNELS)), dtype=np.float32)
        channels[..., 0] = own
        placed = np.isfinite(centroids).all(1)
        if placed.sum() < MIN_NEURONS:
            if missing_neighbours == "error":
                raise ValueError(
                    f"expected at least {MIN_NEURONS} neurons with positions and finite, varying traces, got "
                    f"{placed.sum()}; leave this recording out, or pass {MASK_NEIGHBOURS}"
                )
            channels[..., 1:] = np.nan
            return channels
        distances = pairwise_distances(centroids[placed])
        radius = self.radius_of(distances, coordinate_unit)
        if placed.all():
            neighbour_statistics(own, distances, radius, out=channels[..., 1:])
        else:
            channels[..., 1:] = _scatter(neighbour_statistics(own[placed], distances, radius), placed, np.nan)
        return channels

    def radius_of(self, distances: np.ndarray, coordinate_unit: str | None) -> float:
        """The neighbourhood radius in the unit of the distances."""
        if self.radius_unit == "quantile":
            return float(np.quantile(distances[~np.tri(len(distances), dtype=bool)], self.neighbour_radius))
        if coordinate_unit != self.radius_unit:
            raise ValueError(
                f"expected positions in {self.radius_unit}, the unit of neighbour_radius, got {coordinate_unit}; give "
                'the pixel size when importing, or use radius_unit="quantile"'
            )
        return self.neighbour_radius

    def _check_settings(self):
        for name, choices in {"radius_unit": RADIUS_UNITS, "normalization": NORMALIZATIONS}.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"expected {name} among {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.window_length < MIN_FRAMES:
            raise ValueError(f"expected window_length of at least {MIN_FRAMES} frames, got {self.window_length}")
        if self.window_stride < 1:
            raise ValueError(f"expected window_stride of at least 1 frame, got {self.window_stride}")
        largest = 1 if self.radius_unit == "quantile" else np.inf
        if not 0 < self.neighbour_radius < largest:
            expected = "between 0 and 1 (quantile)" if largest == 1 else f"above 0 ({self.radius_unit})"
            raise ValueError(f"expected neighbour_radius {expected}, got {self.neighbour_radius}")

    def check_expectations(self, sampling_rate: float | None, trace_kind: str | None):
        """Warn of a recording that is unlike those the model was trained on.

        Args:
            sampling_rate: Hz, or None if it is not known.
            trace_kind: As in `Recording`, or None if it is not known.

        Raises:
            ValueError: If the sampling rate is not above 0.
        """
        if sampling_rate is not None and not (np.isfinite(sampling_rate) and sampling_rate > 0):
            raise ValueError(f"expected a sampling_rate above 0 Hz, got {sampling_rate}")
        expected = self.sampling_rate
        if expected and sampling_rate and abs(sampling_rate / expected - 1) > 0.1:
            logger.warning("expected %g Hz, got %g Hz: resample, or expect other time scales", expected, sampling_rate)
        if self.trace_kind and trace_kind and trace_kind != self.trace_kind:
            logger.warning("expected traces of kind %s, got %s", self.trace_kind, trace_kind)


def check_arrays(
    traces: np.ndarray, centroids: np.ndarray | None, missing_neighbours: str
) -> tuple[np.ndarray, np.ndarray]:
    """Traces float32 (N, T) and positions (N, 2), all NaN where there are none; refuses what cannot be meant.

    Raises:
        ValueError: If a shape is wrong, seems transposed, or positions are missing and must not be.
    """
    if missing_neighbours not in ("error", "mask"):
        raise ValueError(f'expected missing_neighbours "error" or "mask", got {missing_neighbours!r}')
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is dropped as such
        traces = np.asarray(traces, dtype=np.float32)
    if traces.ndim != 2 or len(traces) == 0:
        raise ValueError(f"expected traces of shape (neurons, frames), got {traces.shape}")
    if traces.shape[1] < MIN_FRAMES:
        raise ValueError(
            f"expected at least {MIN_FRAMES} frames, got traces of shape {traces.shape} (neurons, frames)"
        )
    if centroids is None:
        if missing_neighbours == "error":
            raise ValueError(f"expected centroids, got none; pass {MASK_NEIGHBOURS} to use the own trace alone")
        return traces, np.full((len(traces), 2), np.nan)
    centroids = np.asarray(centroids, dtype=np.float64)
    if centroids.shape != (len(traces), 2):
        hint = "; the traces seem transposed" if len(centroids) == traces.shape[1] else ""
        raise ValueError(f"expected centroids of shape ({len(traces)}, 2), got {centroids.shape}{hint}")
    return traces, centroids


def _scatter(values: np.ndarray, where: np.ndarray, fill: Any) -> np.ndarray:
    """Spread `values` over the True entries of `where`; the other entries are `fill`."""
    if where.all():
        return values
    spread = np.full((len(where), *values.shape[1:]), fill, dtype=values.dtype)
    spread[where] = values
    return spread


def make_window(channels: np.ndarray, first: int, end: int, length: int) -> dict[str, np.ndarray]:
    """One neuron's window, padded to `length` frames.

    Args:
        channels: (T, C), NaN in absent channels.
        first: First frame.
        end: Frame after the last one.
        length: Frames L of the window.

    Returns:
        `input_values` (L, C), 0 where absent or padded; `attention_mask` (L,); `bool_masked_pos` (L, C), True where
        a real frame's channel is absent.
    """
    values = np.zeros((length, channels.shape[1]), dtype=np.float32)
    values[: end - first] = channels[first:end]
    absent = np.isnan(values)
    return {
        "input_values": np.where(absent, np.float32(0), values),
        "attention_mask": (np.arange(length) < end - first).astype(np.int64),
        "bool_masked_pos": absent,
    }


NeurtProcessor.register_for_auto_class()

__all__ = ["NeurtProcessor"]
