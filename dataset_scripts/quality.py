"""What can be measured of one recording before anything is trained on it: noise, drift, duplicates, distances.

Shapes: N neurons, T frames. NaN and infinite samples are left out of every measure and counted on their own.
"""

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import norm

from ..processing_neurt import MIN_NEIGHBOURS, pairwise_distances
from ..sampling import evenly_spaced
from .recording import Recording

QUANTILES = (0.1, 0.3, 0.5, 0.9, 1.0)
# Two ROIs this close (µm or px) whose traces are this much alike are likely one cell that was cut in two.
SPLIT_DISTANCE, SPLIT_CORRELATION = 10.0, 0.95
# No tissue packs more cells that close to each cell: such positions are wrong, and comparing their pairs never ends.
_MOST_CLOSE = 50
# Every pair of this many neurons takes half a gigabyte; larger fields are judged by neurons picked evenly among them.
_MOST_COMPARED = 5000
_MOST_GUESSED_FROM = 1000
_BASELINE_PERCENTILE = 10
_SATURATED_SHARE, _SATURATED_FRAMES = 0.01, 10
# In 69 real two-photon recordings the median neuron never stepped by more than 3.3.
_SHARED_STEP, _FEWEST_TO_SHARE = 5, 5


@dataclasses.dataclass(frozen=True)
class Distances:
    """How the neurons of a field lie; lengths in the unit of the positions.

    Args:
        quantiles: Of the distances between all pairs (of 5,000 neurons where there are more), at `QUANTILES`; the last
            is the largest distance.
        extent: Width and height of the area that the neurons fill.
        same_position: Rows of the neurons that lie exactly where another one before them does.
        crowded: Whether there are more neurons within 10 µm or px of each other than tissue can hold.
        radius: The neighbourhood radius; None where it is given in another unit than the positions.
        alone: Rows of the neurons with fewer than two near or two far neurons, which give no windows; None without a
            radius or with more than 5,000 neurons.
    """

    quantiles: tuple[float, ...]
    extent: tuple[float, float]
    same_position: tuple[int, ...]
    crowded: bool
    radius: float | None
    alone: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Quality:
    """The measures of one recording, of its accepted neurons. Rows count those, as `roi_ids` names them.

    Args:
        rejected: Neurons that the curator rejected; they are not measured.
        positioned: Neurons with a position.
        longest_segment: Frames in the longest stretch without a border.
        nan_neurons: Rows of the neurons with a NaN or infinite sample.
        nan_frames: Frames in which some neuron has one.
        nan_share: Their share of all samples.
        constant: Rows of the neurons whose trace has one value only, or none.
        saturated: Rows of the neurons that spend over 1 % of the frames exactly at their maximum.
        identical: Rows of the neurons with exactly the trace of another one before them.
        shared_steps: Frames at which most neurons jump together, see `shared_steps`.
        split_pairs: Pairs of rows within 10 µm or px whose traces correlate by over 0.95, see `split_pairs`.
        noise: Noise level of each neuron, float64 (N,), see `noise_levels`.
        noise_is_absolute: True where it is in % of ΔF/F per √Hz, False where in % of the trace's own SD per √Hz.
        drift: Drift of each neuron, float64 (N,), see `drifts`.
        looks_like: The trace kinds that the traces look like, see `guess_trace_kinds`.
        distances: None with fewer than two positions.
    """

    recording_id: str
    simulated: bool
    roi_ids: tuple[str, ...]
    frames: int
    sampling_rate: float
    sampling_rate_from: str
    trace_kind: str
    segments: int
    longest_segment: int
    rejected: int
    positioned: int
    coordinate_unit: str | None
    notes: tuple[str, ...]
    digest: str | None
    nan_neurons: tuple[int, ...]
    nan_frames: int
    nan_share: float
    constant: tuple[int, ...]
    saturated: tuple[int, ...]
    identical: tuple[int, ...]
    shared_steps: tuple[int, ...]
    split_pairs: tuple[tuple[int, int], ...]
    noise: np.ndarray
    noise_is_absolute: bool
    drift: np.ndarray
    looks_like: tuple[str, ...]
    distances: Distances | None

    @property
    def neurons(self) -> int:
        return len(self.roi_ids)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.sampling_rate

    @property
    def unit(self) -> str:
        """The unit of the positions as it is written; empty without positions."""
        return (self.coordinate_unit or "").replace("um", "µm")


def measure(recording: Recording, radius: float = 0.3, radius_unit: str = "quantile") -> Quality:
    """Measure the accepted neurons of a recording.

    Args:
        recording: Its traces may hold NaN.
        radius: The processor's `neighbour_radius`.
        radius_unit: "um", "px" or "quantile".

    Raises:
        ValueError: If no neuron is accepted.
    """
    rejected = int((~recording.accepted).sum())
    recording = recording.accepted_neurons()
    placed = int(recording.positioned.sum())
    return Quality(
        **_description(recording),
        **_activity(recording),
        rejected=rejected,
        positioned=placed,
        split_pairs=() if recording.centroids is None else split_pairs(recording.traces, recording.centroids),
        distances=None if placed < 2 else measure_distances(recording, radius, radius_unit),
    )


def _description(recording: Recording) -> dict[str, Any]:
    edges = [*recording.segment_starts, recording.num_frames]
    return {
        "recording_id": recording.recording_id,
        "simulated": recording.simulated,
        "roi_ids": recording.roi_ids,
        "frames": recording.num_frames,
        "sampling_rate": float(recording.sampling_rate),
        "sampling_rate_from": recording.source.get("sampling_rate_from") or "unknown",
        "trace_kind": recording.trace_kind,
        "segments": len(recording.segment_starts),
        "longest_segment": int(np.diff(edges).max()),
        "coordinate_unit": recording.coordinate_unit,
        "notes": tuple(recording.source.get("notes") or ()),
        "digest": recording.source.get("sha256"),
    }


def _activity(recording: Recording) -> dict[str, Any]:
    traces, absolute = recording.traces, recording.trace_kind == "dff"
    bad = ~np.isfinite(traces)
    varying = [row for row, trace in enumerate(traces) if _varies(trace)]
    return {
        "nan_neurons": _rows(bad.any(axis=1)),
        "nan_frames": int(bad.any(axis=0).sum()),
        "nan_share": float(bad.mean()),
        "constant": tuple(sorted({*range(len(traces))} - {*varying})),
        "saturated": tuple(row for row in varying if _is_saturated(traces[row])),
        "identical": _repeats({row: hashlib.sha256(traces[row].tobytes()).digest() for row in varying}),
        "noise": noise_levels(traces, recording.sampling_rate, recording.segment_starts, relative=not absolute),
        "noise_is_absolute": absolute,
        "drift": drifts(traces),
        "shared_steps": shared_steps(traces, recording.segment_starts),
        "looks_like": guess_trace_kinds(traces),
    }


def noise_levels(
    traces: np.ndarray, sampling_rate: float, segment_starts: Sequence[int] = (0,), *, relative: bool = False
) -> np.ndarray:
    """Noise of each trace, as CASCADE standardises it (Rupprecht et al. 2021, 10.1038/s41593-021-00895-5).

    ν = median over t of |F(t + 1) − F(t)| / √rate, times 100; steps across borders of segments are left out. In a slow
    recording much activity is counted with the noise.

    Args:
        traces: (N, T), ΔF/F where ν is to be in % per √Hz.
        sampling_rate: Frames per second (Hz).
        segment_starts: Frames at which segments begin.
        relative: Divide by the trace's standard deviation, for traces whose scale means nothing.

    Returns:
        float64 (N,); NaN where most steps are exactly 0, as in constant traces and those that a model of the activity
        made, and where no two finite frames follow one another.
    """
    per_cent = 100 / np.sqrt(sampling_rate)
    levels = np.full(len(traces), np.nan)
    for n, trace in enumerate(traces):
        steps = np.abs(np.diff(np.where(np.isfinite(trace), trace, np.nan).astype(np.float64)))
        steps[np.asarray(segment_starts[1:], dtype=int) - 1] = np.nan
        steps = steps[np.isfinite(steps)]
        median = np.median(steps) if len(steps) else 0
        if median > 0:
            levels[n] = median * per_cent / (_finite(trace).std() if relative else 1)
    return levels


def drifts(traces: np.ndarray) -> np.ndarray:
    """Wander of each trace's baseline over the recording, in standard deviations of the trace.

    The baseline is the 10th percentile of each third of the recording; the drift is the largest less the smallest.
    White noise of 500 frames alone gives about 0.2.

    Args:
        traces: (N, T).

    Returns:
        float64 (N,); NaN for constant traces and where a third has no finite frame.
    """
    drift = np.full(len(traces), np.nan)
    for n, trace in enumerate(traces):
        thirds = [_finite(third) for third in np.array_split(trace, 3)]
        if _varies(trace) and all(map(len, thirds)):
            drift[n] = np.ptp([np.percentile(third, _BASELINE_PERCENTILE) for third in thirds]) / _finite(trace).std()
    return drift


def shared_steps(traces: np.ndarray, segment_starts: Sequence[int] = (0,)) -> tuple[int, ...]:
    """Return the frames at which most neurons jump the same way, as movement or a change of the light moves them.

    There the median over neurons (1,000 of them where there are more) of the step from the frame before is over 5, up
    or down, in units of each neuron's noise: the standard deviation that normal steps of its median magnitude have.

    Args:
        traces: (N, T).
        segment_starts: Frames at which segments begin; steps across these borders do not count.

    Returns:
        None with fewer than five neurons that have noise.
    """
    with np.errstate(invalid="ignore"):
        steps = np.diff(evenly(traces, _MOST_GUESSED_FROM), axis=1)
    steps = np.where(np.isfinite(steps), steps, 0)
    steps[:, np.asarray(segment_starts[1:], dtype=int) - 1] = 0
    noise = np.median(np.abs(steps), axis=1) / norm.ppf(0.75) if steps.shape[1] else np.zeros(len(steps))
    if (noise > 0).sum() < _FEWEST_TO_SHARE:
        return ()
    shared = np.median(steps[noise > 0] / noise[noise > 0, None], axis=0)
    return tuple((np.flatnonzero(np.abs(shared) > _SHARED_STEP) + 1).tolist())


def guess_trace_kinds(traces: np.ndarray) -> tuple[str, ...]:
    """The trace kinds that traces (N, T) look like; none where they could be anything. A guess changes no data.

    Each rule looks at medians over neurons (1,000 of them where there are more), in this order:

    1. At least 30 % exact zeros and nothing below 0 is the output of a model of the activity: "deconvolved" or
       "events" where neighbouring frames correlate by under 0.8, "denoised" where by over 0.9.
    2. Second differences smaller than first ones: no noise floor, so "denoised" or smoothed. The medians of their
       magnitudes have the ratio √3 in white noise.
    3. A baseline (10th percentile) above 10 and above one standard deviation: "fluorescence" in counts of a camera.
    4. A baseline between −1 and 1 and a standard deviation of 0.01 to 5: "dff".
    """
    seen = [features for trace in evenly(traces, _MOST_GUESSED_FROM) if (features := _features(trace)) is not None]
    if not seen:
        return ()
    zeros, least, correlation, roughness, baseline, spread = np.median(seen, axis=0)
    if zeros >= 0.3 and least >= 0:
        if correlation < 0.8:
            return ("deconvolved", "events")
        return ("denoised",) if correlation > 0.9 else ()
    if roughness < 1:
        return ("denoised",)
    if baseline > max(10, spread):
        return ("fluorescence",)
    return ("dff",) if abs(baseline) <= 1 and 0.01 <= spread <= 5 else ()


def _features(trace: np.ndarray) -> tuple[float, ...] | None:
    """Share of zeros, minimum, correlation of neighbouring frames, roughness, baseline and SD; None if constant."""
    values = _finite(trace)
    if len(values) < 3 or np.ptp(values) == 0:
        return None
    steps = np.diff(values)
    median_step = np.median(np.abs(steps))
    # Without a step at all nothing is rough; rule 1 has taken such traces already, unless they fall below 0.
    roughness = np.median(np.abs(np.diff(steps))) / median_step if median_step else 0.0
    correlation = 1 - np.square(steps).mean() / (2 * values.var())
    baseline = np.percentile(values, _BASELINE_PERCENTILE)
    return (values == 0).mean(), values.min(), correlation, roughness, baseline, values.std()


def split_pairs(traces: np.ndarray, centroids: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Pairs of neurons within 10 µm or px whose traces correlate by over 0.95: most likely one cell, cut in two.

    Args:
        traces: (N, T).
        centroids: (N, 2), NaN where unknown.

    Returns:
        Pairs of rows, the smaller first; none at all in a field so crowded that its positions must be wrong.
    """
    rows = np.flatnonzero(np.isfinite(centroids).all(axis=1))
    tree = cKDTree(centroids[rows])
    if _is_crowded(tree):
        return ()
    pairs = [(int(rows[a]), int(rows[b])) for a, b in sorted(tree.query_pairs(SPLIT_DISTANCE))]
    return tuple((a, b) for a, b in pairs if _correlation(traces[a], traces[b]) > SPLIT_CORRELATION)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both].astype(np.float64), b[both].astype(np.float64)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _is_crowded(tree: cKDTree) -> bool:
    return bool(tree.count_neighbors(tree, SPLIT_DISTANCE) > (1 + _MOST_CLOSE) * tree.n)


def measure_distances(recording: Recording, radius: float, radius_unit: str) -> Distances:
    """Measure how the two or more neurons with positions lie, and how many have too few neighbours at the radius."""
    rows = np.flatnonzero(recording.positioned)
    centroids = recording.centroids[rows].astype(np.float64)
    compared = evenly(centroids, _MOST_COMPARED)
    distances = pairwise_distances(compared)
    between = distances[~np.tri(len(distances), dtype=bool)]
    # As the processor has it, which refuses a radius in another unit.
    used = radius if radius_unit == recording.coordinate_unit else None
    if radius_unit == "quantile":
        used = float(np.quantile(between, radius))
    return Distances(
        quantiles=tuple(np.quantile(between, QUANTILES).tolist()),
        extent=tuple(np.ptp(centroids, axis=0).tolist()),
        same_position=_repeats(dict(zip(rows.tolist(), map(tuple, centroids.tolist()), strict=True))),
        crowded=_is_crowded(cKDTree(centroids)),
        radius=used,
        alone=None if used is None or len(compared) < len(rows) else tuple(rows[_alone(distances, used)].tolist()),
    )


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most this many of the rows, the first and the last among them, evenly spread."""
    return rows[evenly_spaced(len(rows), most)]


def known_median(values: np.ndarray) -> float:
    """The median of the values that are not NaN; NaN if none is."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _alone(distances: np.ndarray, radius: float) -> np.ndarray:
    near = (distances < radius).sum(axis=1) - 1  # itself
    far = (distances > radius).sum(axis=1)
    return np.minimum(near, far) < MIN_NEIGHBOURS


def _rows(chosen: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(chosen).tolist())


def _repeats(values: Mapping[int, Hashable]) -> tuple[int, ...]:
    """Rows with the value of another row before them."""
    first: dict[Hashable, int] = {}
    return tuple(row for row, value in values.items() if first.setdefault(value, row) != row)


def _finite(values: np.ndarray) -> np.ndarray:
    # float64: the squares of large float32 counts overflow.
    return values[np.isfinite(values)].astype(np.float64)


def _varies(trace: np.ndarray) -> bool:
    values = _finite(trace)
    return len(values) > 0 and bool(np.ptp(values) > 0)


def _is_saturated(trace: np.ndarray) -> bool:
    """Whether a trace stands at a ceiling; that of events, which are mostly one value, is no ceiling."""
    values = _finite(trace)
    at_most = int((values == values.max()).sum())
    sparse = (values == values.min()).mean() > 0.3
    return not sparse and at_most >= _SATURATED_FRAMES and at_most > _SATURATED_SHARE * len(values)
