"""Windows of real recordings and what is hidden in them, for the reconstruction benchmark.

Shapes: N neurons, T frames of a recording, B windows, L frames of a window, C channels: five, or the own trace alone
where a set has no positions.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from neurt.dataset_scripts.recording import Recording
from neurt.forecasting import forecast_bounds, past_frames
from neurt.masking import HIDDEN_CHANNELS, channel_mask, forecast_mask, span_mask
from neurt.processing_neurt import NeurtProcessor, neighbour_statistics, pairwise_distances, window_bounds
from neurt.sampling import evenly_spaced

FORECAST_SECONDS = 2.0
CLOSE_UM = 15.0  # nearer neighbours may be parts of the same cell, or share its neuropil
NEURON_NOT_CLOSE = "neuron, none within 15 µm"
TASKS = ("span", "neuron", NEURON_NOT_CLOSE, "near", "far", "population", "forecast")
WHOLE_CHANNEL = ("neuron", NEURON_NOT_CLOSE, "near", "far", "population")
FOLDS = 5
MOST_NEURONS = 100  # of a recording without positions; others would never be sampled


@dataclasses.dataclass(frozen=True, eq=False)
class Field:
    """The channels of one recording.

    Args:
        channels: float32 (N, T, C), scaled.
        recording_id: Its name.
        subject_id: The animal.
        roi_ids: Names (N,).
        groups: int (N,), who a neuron stands for when a baseline is fitted to others: its animal, or in a set of one
            animal one of `FOLDS` parts of its neurons.
        sampling_rate: Hz.
        segment_starts: Frames at which segments begin.
        trace_kind: As in `Recording`.
        past: Leading frames that set the scale and may be fitted to, all T unless the task is a forecast.
    """

    channels: np.ndarray
    recording_id: str
    subject_id: str
    roi_ids: np.ndarray
    groups: np.ndarray
    sampling_rate: float
    segment_starts: tuple[int, ...]
    trace_kind: str
    past: int

    @property
    def num_channels(self) -> int:
        return self.channels.shape[2]


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Windows with hidden values.

    Args:
        fields: The recordings.
        field: int (B,), which recording each is of.
        neuron: int (B,), row of the recording's channels.
        first: int (B,), first frame.
        values: float32 (B, L, C), with the hidden values; 0 in padding.
        real: Bool (B, L), False in padding.
        hidden: Bool (B, L, C), True where hidden; never in padding.
    """

    fields: Sequence[Field]
    field: np.ndarray
    neuron: np.ndarray
    first: np.ndarray
    values: np.ndarray
    real: np.ndarray
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.field)

    def only(self, rows: np.ndarray) -> "Windows":
        """Some of the windows."""
        parts = {name: array[rows] for name, array in vars(self).items() if name != "fields"}
        return dataclasses.replace(self, **parts)

    @property
    def visible(self) -> np.ndarray:
        """Bool (B, L, C)."""
        return self.real[..., None] & ~self.hidden

    @property
    def shown(self) -> np.ndarray:
        """The values with NaN where they are not visible, float32 (B, L, C)."""
        return np.where(self.visible, self.values, np.nan)

    @property
    def sampling_rate(self) -> np.ndarray:
        """Hz, (B,)."""
        return np.array([field.sampling_rate for field in self.fields])[self.field]


def make_fields(
    recordings: Sequence[Recording], processor: NeurtProcessor, task: str
) -> tuple[list[Field], dict[str, str]]:
    """The channels of a set's recordings, as a task needs them, and why recordings give none.

    Args:
        recordings: Those of one set.
        processor: Scales and cuts.
        task: One of `TASKS`.
    """
    positioned = any(recording.centroids is not None for recording in recordings)
    one_animal = len({recording.subject_id for recording in recordings}) == 1
    fields, skipped = [], {}
    for recording in recordings:
        try:
            fields.append(_make_field(recording, processor, task, positioned, one_animal))
        except ValueError as error:
            skipped[recording.recording_id] = str(error)
    return fields, skipped


def _make_field(
    recording: Recording, processor: NeurtProcessor, task: str, positioned: bool, one_animal: bool
) -> Field:
    if not positioned and recording.num_neurons > MOST_NEURONS:
        some = evenly_spaced(recording.num_neurons, MOST_NEURONS)
        recording = recording.only(np.isin(np.arange(recording.num_neurons), some))
    past = past_frames(recording.num_frames) if task == "forecast" else recording.num_frames
    channels = processor.neighbour_channels(
        recording.traces,
        recording.centroids if positioned else None,
        coordinate_unit=recording.coordinate_unit,
        missing_neighbours="error" if positioned else "mask",
        scale_frames=past,
    )
    if task == NEURON_NOT_CLOSE:
        channels = without_close_neighbours(channels, recording, processor)
    channels = channels if positioned else channels[..., :1]
    kept = ~np.isnan(channels[:, 0]).any(1)
    if not kept.any():
        raise ValueError("no neuron has two near and two far neurons")
    roi_ids = np.array(recording.roi_ids)
    # Blocks, so that an even choice of neurons has some of every fold.
    folds = np.unique(roi_ids, return_inverse=True)[1] * FOLDS // len(roi_ids)
    return Field(
        channels=channels[kept],
        recording_id=recording.recording_id,
        subject_id=recording.subject_id,
        roi_ids=roi_ids[kept],
        groups=folds[kept] if one_animal else np.array([recording.subject_id] * int(kept.sum())),
        sampling_rate=recording.sampling_rate,
        segment_starts=recording.segment_starts,
        trace_kind=recording.trace_kind,
        past=past,
    )


def without_close_neighbours(channels: np.ndarray, recording: Recording, processor: NeurtProcessor) -> np.ndarray:
    """The channels with near neighbours that are at least `CLOSE_UM` away.

    Args:
        channels: (N, T, 5), NaN for neurons that were dropped.
        recording: What they are of, with positions in µm.
        processor: What they were made with.

    Returns:
        float32 (N, T, 5), NaN also for neurons that are left with fewer than two near neurons.

    Raises:
        ValueError: If the positions are in pixels.
    """
    if recording.coordinate_unit != "um":
        raise ValueError(f"positions are in {recording.coordinate_unit}, so no distance in µm is known")
    usable = np.isfinite(recording.traces).all(1) & (np.ptp(recording.traces, axis=1) > 0) & recording.positioned
    distances = pairwise_distances(recording.centroids[usable])
    radius = processor.neighbour_radius
    if processor.radius_unit == "quantile":
        radius = float(np.quantile(distances[~np.tri(len(distances), dtype=bool)], radius))
    # What lies exactly at the radius is neither near nor far.
    distances[distances < CLOSE_UM] = radius
    changed = np.full_like(channels, np.nan)
    own = processor.neighbour_channels(recording.traces, missing_neighbours="mask")[usable, :, 0]
    changed[usable, :, 0] = own
    changed[usable, :, 1:] = neighbour_statistics(own, distances, radius)
    changed[np.isnan(changed[:, 0]).any(1)] = np.nan
    return changed


def sample_windows(fields: Sequence[Field], task: str, length: int, most: int, seed: int) -> Windows:
    """Windows of each recording, spread evenly over neurons and time, and what the task hides in them.

    Args:
        fields: The recordings, as made for the task.
        task: One of `TASKS`.
        length: Frames L of a window.
        most: Windows of one recording at most.
        seed: Of the sample and the masks.

    Raises:
        ValueError: If no recording gives a window.
    """
    rows = []
    for index, field in enumerate(fields):
        bounds = window_bounds(field.channels.shape[1], field.segment_starts, length, length)
        if task == "forecast":
            bounds = forecast_bounds(
                field.channels.shape[1], field.segment_starts, length, field.sampling_rate, FORECAST_SECONDS
            )
        chosen = spread(len(field.channels) * len(bounds), most, np.random.default_rng([seed, index]))
        rows += [(index, row // len(bounds), *bounds[row % len(bounds)]) for row in chosen.tolist()]
    if not rows:
        raise ValueError("no recording is long enough for a window")
    field, neuron, first, end = np.array(rows).T
    longest = int((end - first).max())
    values = np.zeros((len(rows), longest, fields[0].num_channels), dtype=np.float32)
    hidden = np.zeros(values.shape, dtype=bool)
    for b, (index, row, start, stop) in enumerate(rows):
        values[b, : stop - start] = fields[index].channels[row, start:stop]
        generator = np.random.default_rng([seed, index, row, start])
        hidden[b, : stop - start] = task_mask(
            task, stop - start, values.shape[2], fields[index].sampling_rate, generator
        )
    real = np.arange(longest) < (end - first)[:, None]
    return Windows(fields, field, neuron, first, values, real, hidden)


def spread(total: int, most: int, generator: np.random.Generator) -> np.ndarray:
    """At most `most` of `total` rows, one drawn from each of as many equal parts, so that no rhythm can matter."""
    if total <= most:
        return np.arange(total)
    edges = np.linspace(0, total, most + 1).round().astype(int)
    return generator.integers(edges[:-1], edges[1:])


def task_mask(
    task: str, num_frames: int, num_channels: int, sampling_rate: float, generator: np.random.Generator
) -> np.ndarray:
    """What a task hides in a window, bool (frames, channels)."""
    if task in WHOLE_CHANNEL:
        return channel_mask(num_frames, num_channels, mask_name(task))
    if task == "forecast":
        hidden = forecast_mask(num_frames, sampling_rate, FORECAST_SECONDS)
    else:
        hidden = span_mask(num_frames, generator)
    return np.repeat(hidden[:, None], num_channels, axis=1)


def mask_name(task: str) -> str:
    """The name of a task in `neurt.masking`."""
    return "neuron" if task == NEURON_NOT_CLOSE else task


def hidden_channels(task: str, num_channels: int) -> list[int]:
    """Channels that a task hides."""
    return HIDDEN_CHANNELS.get(mask_name(task), list(range(num_channels)))
