"""What may be done to traces between reading and writing, each step stated and recorded: gaps, dF/F, frame rate.

    prepared, left_out = prepare(recording, Preparation(nan="interpolate", max_gap=0.5, resample_to=10.0))

The order is fixed: bad values first, since percentiles and filters spread them; then dF/F at the frame rate that was
recorded; then the new frame rate. Nothing runs on across the start of a segment. Shapes: N neurons, T frames.
"""

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.ndimage import percentile_filter
from scipy.signal import resample_poly

from ..processing_neurt import MIN_FRAMES
from .readers.source import NothingUsable
from .recording import Recording
from .wording import count, some, value_range

NAN_POLICIES = ("refuse", "interpolate", "drop")
EVENT_KINDS = ("deconvolved", "events")
MIN_DFF_FRAMES = 10
MAX_UPSAMPLING = 2
DEFAULT_PERCENTILE = 10.0
# A tenth of the median is also the least that the suite2p reader divides by.
_LEAST_BASELINE = 0.1
_MAX_FACTOR = 10_000
_BLOCK_VALUES = 4 * 2**20


@dataclasses.dataclass(frozen=True)
class Preparation:
    """What to do to the traces of every recording; nothing by default.

    Args:
        nan: What NaN and infinite values lead to: "refuse"; "interpolate", a straight line across gaps of at most
            `max_gap` inside a segment, while longer ones and those at its edges are refused; or "drop", which leaves
            out every neuron that has one.
        max_gap: Longest gap to interpolate, in seconds.
        dff_window: Length in seconds of the window whose running percentile F0 is the baseline of (F - F0) / F0.
        dff_percentile: That percentile, 10 by default.
        resample_to: The new frame rate in Hz.

    Raises:
        ValueError: If a value is out of range, or given without the one that it belongs to.
    """

    nan: str = "refuse"
    max_gap: float | None = None
    dff_window: float | None = None
    dff_percentile: float | None = None
    resample_to: float | None = None

    def __post_init__(self):
        if self.nan not in NAN_POLICIES:
            raise ValueError(f"--nan: expected {', '.join(NAN_POLICIES[:-1])} or {NAN_POLICIES[-1]}, got {self.nan!r}")
        require_above_zero(max_gap=self.max_gap, dff_window=self.dff_window, resample_to=self.resample_to)
        if not 0 <= self.percentile <= 100:
            raise ValueError(f"--dff-percentile: expected a number from 0 to 100, got {self.dff_percentile:g}")
        if (self.nan == "interpolate") != (self.max_gap is not None):
            raise ValueError("--max-gap: expected together with --nan interpolate, got one without the other")
        if self.dff_percentile is not None and self.dff_window is None:
            raise ValueError("--dff-percentile: expected together with --dff-window, got it alone")

    def parameters(self) -> dict[str, Any]:
        """What was chosen, for the manifest; empty where nothing was."""
        chosen = {name: value for name, value in dataclasses.asdict(self).items() if value not in (None, "refuse")}
        return chosen | ({"dff_percentile": self.percentile} if self.dff_window else {})

    @property
    def percentile(self) -> float:
        return DEFAULT_PERCENTILE if self.dff_percentile is None else self.dff_percentile


def require_above_zero(**flags: float | None) -> None:
    """Raise ValueError where the number of a flag is not above 0, or infinite."""
    for name, value in flags.items():
        if value is not None and not 0 < value < np.inf:
            raise ValueError(f"--{name.replace('_', '-')}: expected a number above 0, got {value:g}")


def prepare(recording: Recording, preparation: Preparation) -> tuple[Recording, list[dict[str, Any]]]:
    """Prepare the traces of a recording, which stays as it is.

    Returns:
        The prepared recording, itself if there was nothing to do; what was done stands in its `source["preparation"]`.
        And what was left out, as in the `dropped` of a manifest.

    Raises:
        ValueError: If the traces cannot be prepared so; the recording is named.
        NothingUsable: If no neuron is left.
    """
    recording, done, left_out = _without_bad_values(recording, preparation)
    if preparation.dff_window is not None:
        recording, dff, without_baseline = _to_dff(recording, preparation.dff_window, preparation.percentile)
        done |= dff
        left_out = [*left_out, *without_baseline]
    if preparation.resample_to not in (None, recording.sampling_rate):
        recording, resampling = _resample(recording, preparation.resample_to)
        done |= resampling
    if done:
        recording = dataclasses.replace(recording, source={**recording.source, "preparation": done})
    return recording, left_out


def preparation_notes(files: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say in words what was done to the recordings of these entries of a manifest."""
    prepared = [entry["source"]["preparation"] | entry for entry in files if "preparation" in entry["source"]]
    filled = [each for each in prepared if "gaps_filled" in each]
    if filled:
        gaps, neurons = (sum(each[key] for each in filled) for key in ("gaps_filled", "neurons_with_gaps"))
        yield (
            f"{count(gaps, 'gap')} of NaN or infinite values in {count(neurons, 'neuron')} of "
            f"{count(len(filled), 'recording')} filled by straight lines, the longest "
            f"{max(each['longest_gap_s'] for each in filled):g} s"
        )
    for dff, times in Counter(each["dff"] for each in prepared if "dff" in each).items():
        yield f"dF/F made of {count(times, 'recording')}: {dff}"
    resampled = [each for each in prepared if "resampled_from" in each]
    if resampled:
        before, after = (value_range(each[key] for each in resampled) for key in ("resampled_from", "sampling_rate"))
        yield f"{count(len(resampled), 'recording')} resampled from {before} Hz to {after} Hz"


def name_with_file(recording: Recording) -> str:
    """Return what messages call a recording: its id, and its file where that is known."""
    file = recording.source.get("file")
    return f"recording {recording.recording_id!r}" + (f" ({file})" if file else "")


def _leave_out(recording: Recording, hit: np.ndarray, what: str) -> tuple[Recording, list[dict[str, Any]]]:
    """Return the recording without the neurons in `hit`, bool (N,), and who they are; NothingUsable if that is all."""
    if not hit.any():
        return recording, []
    names = list(itertools.compress(recording.roi_ids, hit))
    why = f"{len(names)} of {count(len(hit), 'neuron')} {what}"
    if hit.all():
        raise NothingUsable(why)
    left_out = {"recording_id": recording.recording_id, "roi_ids": names, "why": f"{why}: roi {some(names)}"}
    return recording.only(~hit), [left_out]


def _segments(recording: Recording) -> Iterator[tuple[int, int]]:
    return itertools.pairwise((*recording.segment_starts, recording.num_frames))


# Bad values


def _without_bad_values(
    recording: Recording, preparation: Preparation
) -> tuple[Recording, dict[str, Any], list[dict[str, Any]]]:
    bad = ~np.isfinite(recording.traces)
    if not bad.any():
        return recording, {}, []
    if preparation.nan == "drop":
        what = f"hold NaN or infinite values{_whole_frames(bad)}"
        recording, left_out = _leave_out(recording, bad.any(axis=1), what)
        return recording, {"neurons_with_nan_dropped": len(left_out[0]["roi_ids"])}, left_out
    gaps = _gaps(recording, bad)
    if preparation.nan == "refuse":
        raise ValueError(_refusal(recording, bad, gaps))
    _require_short_gaps(recording, gaps, preparation.max_gap)
    done = {
        "gaps_filled": len(gaps),
        "neurons_with_gaps": len(np.unique(gaps[:, 0])),
        "longest_gap_s": _longest(recording, gaps),
    }
    return dataclasses.replace(recording, traces=_interpolated(recording.traces, bad)), done, []


def _gaps(recording: Recording, bad: np.ndarray) -> np.ndarray:
    """Return the runs of bad values inside segments, int64 (gaps, 4): neuron, start, end, whether at an edge."""
    neurons = np.flatnonzero(bad.any(axis=1))
    found = []
    for first, end in _segments(recording):
        inside = np.pad(bad[neurons, first:end], ((0, 0), (1, 1))).astype(np.int8)
        change = np.diff(inside, axis=1)
        (row, start), (_, stop) = np.nonzero(change == 1), np.nonzero(change == -1)
        at_edge = (start == 0) | (stop == end - first)
        found.append(np.stack([neurons[row], start + first, stop + first, at_edge], axis=1))
    return np.concatenate(found)


def _longest(recording: Recording, gaps: np.ndarray) -> float:
    """Return the length of the longest gap in seconds, to the microsecond."""
    return round(int((gaps[:, 2] - gaps[:, 1]).max()) / recording.sampling_rate, 6)


def _refusal(recording: Recording, bad: np.ndarray, gaps: np.ndarray) -> str:
    return (
        f"{name_with_file(recording)}: expected finite traces, got NaN or infinite values in "
        f"{bad.any(axis=1).sum()} of {count(len(bad), 'neuron')} and {bad.any(axis=0).sum()} of {bad.shape[1]} "
        f"frames{_whole_frames(bad)}, the "
        f"longest gap {_longest(recording, gaps):g} s; pass --nan interpolate with --max-gap in seconds, or --nan "
        "drop to leave these neurons out"
    )


def _whole_frames(bad: np.ndarray) -> str:
    """Name the frames that are bad in every neuron, as motion correction and lost frames leave them."""
    whole = np.flatnonzero(bad.all(axis=0))
    if not len(whole):
        return ""
    runs = np.split(whole, np.flatnonzero(np.diff(whole) > 1) + 1)
    names = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f" (in every neuron: frame{'s' * (len(whole) > 1)} {some(names)}, counted from 0)"


def _require_short_gaps(recording: Recording, gaps: np.ndarray, max_gap: float) -> None:
    # 3 frames of 34 ms are 0.102 s, but 3 / (1 / 0.034) is a little more.
    too_long = (gaps[:, 2] - gaps[:, 1]) / recording.sampling_rate > max_gap * (1 + 1e-9)
    at_edge = gaps[:, 3] == 1
    refused = gaps[too_long | at_edge]
    if len(refused):
        raise ValueError(
            f"{name_with_file(recording)}: expected gaps of at most {max_gap:g} s with values on both sides, got "
            f"{count(int(too_long.sum()), 'longer gap')} and {at_edge.sum()} at the start or end of a segment, in "
            f"{len(np.unique(refused[:, 0]))} of {count(recording.num_neurons, 'neuron')}, the longest "
            f"{_longest(recording, refused):g} s; raise --max-gap, cut the ends off, or pass --nan drop"
        )


def _interpolated(traces: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Draw straight lines across bad values; with values on both sides of each in its segment, none is crossed."""
    traces = traces.copy()
    for neuron in np.flatnonzero(bad.any(axis=1)):
        missing, known = np.flatnonzero(bad[neuron]), np.flatnonzero(~bad[neuron])
        traces[neuron, missing] = np.interp(missing, known, traces[neuron, known])
    return traces


# dF/F


def _to_dff(
    recording: Recording, seconds: float, percentile: float
) -> tuple[Recording, dict[str, Any], list[dict[str, Any]]]:
    """Make dF/F; neurons whose F0 is not clearly above 0 somewhere are left out, since it would be noise there."""
    if recording.trace_kind != "fluorescence":
        raise ValueError(
            f"{name_with_file(recording)}: expected fluorescence to make dF/F of, got {recording.trace_kind}; leave "
            "--dff-window out, or pass --trace-kind fluorescence where the file holds it"
        )
    window = seconds * recording.sampling_rate
    if window < MIN_DFF_FRAMES:
        raise ValueError(
            f"{name_with_file(recording)}: expected --dff-window of at least {MIN_DFF_FRAMES} frames, "
            f"{MIN_DFF_FRAMES / recording.sampling_rate:.3g} s at {recording.sampling_rate:.6g} Hz, got {seconds:g} s"
        )
    half = round(window / 2)
    dff, unfit = np.empty(recording.traces.shape, np.float32), np.zeros(recording.num_neurons, dtype=bool)
    for neuron, F in enumerate(recording.traces):
        F0 = np.concatenate([running_percentile(F[a:b], half, percentile) for a, b in _segments(recording)])
        unfit[neuron] = F0.min() <= max(_LEAST_BASELINE * np.median(F), 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            dff[neuron] = (F - F0) / F0
    recording, left_out = _leave_out(recording, unfit, "have an F0 at or below 0 or a tenth of their median")
    done = {"dff": f"(F - F0) / F0, F0 the running percentile {percentile:g} over {seconds:g} s"}
    if left_out:
        done["neurons_without_baseline_dropped"] = len(left_out[0]["roi_ids"])
    return dataclasses.replace(recording, traces=dff[~unfit], trace_kind="dff"), done, left_out


def running_percentile(trace: np.ndarray, half: int, percentile: float) -> np.ndarray:
    """Percentile of a window around each frame, exact at every one.

    The 2 `half` + 1 values of a window are sorted and the one of rank floor(percentile / 100 (2 `half` + 1)), counted
    from 0, is taken, the last one at most, with nothing between two ranks. Beyond both ends stands the trace
    reflected, the frame at the end twice (c b a | a b c), for at most as many frames as it has.

    Args:
        trace: (T,), finite.
        half: Frames of the window on each side of its centre; all of them if the trace has fewer.
        percentile: From 0 to 100.

    Returns:
        (T,), of the type of the trace.
    """
    # On one trace at a time, SciPy from 1.15 on is quick whatever the window; before, it gives the same more slowly.
    return percentile_filter(trace, percentile, size=2 * min(half, len(trace)) + 1, mode="reflect")


# Frame rate


def _resample(recording: Recording, rate: float) -> tuple[Recording, dict[str, Any]]:
    ratio = rate / recording.sampling_rate
    if ratio > MAX_UPSAMPLING:
        raise ValueError(
            f"{name_with_file(recording)}: expected --resample-to at most {MAX_UPSAMPLING} times its "
            f"{recording.sampling_rate:.6g} Hz, since nothing is known between frames, got {rate:g}"
        )
    if recording.num_frames * ratio < MIN_FRAMES:
        raise ValueError(
            f"{name_with_file(recording)}: expected --resample-to to leave at least {MIN_FRAMES} frames of its "
            f"{recording.num_frames} at {recording.sampling_rate:.6g} Hz, got {rate:g}; resample to more"
        )
    factor = _rational(ratio)
    if recording.trace_kind in EVENT_KINDS:
        change, how = _sum_over_new_frames, "sums over new frames"
    else:
        change, how = _filtered, "low-pass filtered"
    parts = [change(recording.traces[:, first:end], factor) for first, end in _segments(recording)]
    starts = np.cumsum([0, *(part.shape[1] for part in parts[:-1])]).tolist()
    done = {
        "resampled_from": recording.sampling_rate,
        "resampling": f"{how}, {factor.numerator}/{factor.denominator}",
        "relative_rate_error": round(float(factor) / ratio - 1, 12) + 0.0,
    }
    return dataclasses.replace(
        recording,
        traces=np.concatenate(parts, axis=1),
        sampling_rate=float(rate),
        segment_starts=tuple(starts),
    ), done


def _rational(ratio: float) -> Fraction:
    """Return the nearest fraction of numbers up to about 10,000: off by at most 5e-5, a frame in 20,000.

    The filter grows with the larger number. Rates that differ by less are the same rate in other words.
    """
    larger = max(ratio, 1 / ratio)
    nearest = Fraction(larger).limit_denominator(max(1, int(_MAX_FACTOR / larger)))
    return nearest if ratio >= 1 else 1 / nearest


def _filtered(traces: np.ndarray, factor: Fraction) -> np.ndarray:
    """Resample (N, T) by scipy's zero-phase filter, which is at half its height at the lower of both Nyquist rates.

    Beyond both ends stands the line through the first and the last frame. The filter's gain varies by 2e-4 from frame
    to frame, which a large baseline would turn into ripple; so the mean is set aside.
    """
    if traces.shape[1] == 1:
        # No line leads through one frame.
        return np.repeat(traces, math.ceil(factor), axis=1)
    parts = []
    rows = max(1, _BLOCK_VALUES // traces.shape[1])
    for i in range(0, len(traces), rows):
        part = traces[i : i + rows].astype(np.float64)
        mean = part.mean(axis=1, keepdims=True)
        part = resample_poly(part - mean, factor.numerator, factor.denominator, axis=1, padtype="line")
        parts.append((part + mean).astype(np.float32))
    return np.concatenate(parts)


def _sum_over_new_frames(traces: np.ndarray, factor: Fraction) -> np.ndarray:
    """Deal what happened in each frame of (N, T) to the new frames by the time that they share; sums stay.

    A low-pass filter would ring: events before they happen, and negative ones.
    """
    length = traces.shape[1]
    edges = np.minimum(np.arange(math.ceil(length * factor) + 1) / float(factor), length)
    before = np.minimum(edges.astype(int), length - 1)
    parts = []
    for row in traces.astype(np.float64):
        so_far = np.concatenate([[0], row.cumsum()])
        parts.append(np.diff(so_far[before] + (edges - before) * row[before]))
    return np.array(parts, dtype=np.float32)
