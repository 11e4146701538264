"""Recordings from objects in memory: segmentations of roiextractors, and pynapple's TsdFrame.

    recording = recording_from_pynapple(tsdframe, trace_kind="dff", recording_id="m1_day1", subject_id="m1")
    write_build([recording], "build", builder="in memory", parameters={})

Neither package is imported here: what counts is that an object has their methods.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .frame_times import holes, rate_of, segment_starts
from .readers.footprints import image_centroids
from .readers.source import digest, scaled_centroids
from .recording import Recording
from .wording import some

# What roiextractors calls them.
_TRACES = {"fluorescence": "raw", "dff": "dff", "denoised": "denoised", "deconvolved": "deconvolved"}
_ACCEPTED = ("is_accepted", "accepted")


def recording_from_roiextractors(
    segmentation: Any,
    *,
    trace_kind: str,
    recording_id: str,
    subject_id: str,
    session_id: str | None = None,
    sampling_rate: float | None = None,
    um_per_pixel: float | None = None,
) -> Recording:
    """Return the recording in a SegmentationExtractor of roiextractors 0.5 to 0.10.

    Args:
        segmentation: The extractor. Which way round its traces are differs between versions and formats; the numbers
            of ROIs and samples tell.
        trace_kind: "fluorescence" is its trace "raw", "dff", "denoised" and "deconvolved" are those of these names.
        recording_id: The recording.
        subject_id: The animal.
        session_id: The imaging session; the recording by default.
        sampling_rate: Frames per second (Hz), wins over the extractor's.
        um_per_pixel: Edge of a pixel in µm; without it, positions stay in pixels.

    Returns:
        Every ROI; `accepted` says which its curator kept. Positions are the weighted centres of the image masks, whose
        rows are y.

    Raises:
        ValueError: If it has no such trace, traces that could be either way round, or no sampling rate.
    """
    roi_ids = list(segmentation.get_roi_ids())
    traces = _roi_traces(segmentation, trace_kind, recording_id)
    pixels = _mask_centroids(segmentation, roi_ids)
    rate = sampling_rate or segmentation.get_sampling_frequency()
    if not rate:
        raise _missing_rate(recording_id, "none from the extractor")
    return Recording(
        traces=traces,
        sampling_rate=float(rate),
        recording_id=recording_id,
        subject_id=subject_id,
        session_id=session_id or recording_id,
        roi_ids=tuple(str(roi) for roi in roi_ids),
        trace_kind=trace_kind,
        accepted=_accepted(segmentation, roi_ids),
        **_positions(pixels, "px", um_per_pixel),
        source=_source("roiextractors", segmentation, sampling_rate, um_per_pixel, traces, pixels),
    )


def recording_from_pynapple(
    tsdframe: Any,
    centroids: np.ndarray | None = None,
    coordinate_unit: str | None = None,
    *,
    trace_kind: str,
    recording_id: str,
    subject_id: str,
    session_id: str | None = None,
    sampling_rate: float | None = None,
    um_per_pixel: float | None = None,
) -> Recording:
    """Return the recording in a TsdFrame of pynapple, whose columns are neurons.

    Args:
        tsdframe: Activity; its columns name the neurons. A segment starts with each epoch of its time support, and
            where times have a hole of more than half a frame.
        centroids: Positions (N, 2) as (x, y), in the order of the columns.
        coordinate_unit: "um" or "px".
        trace_kind: What the traces are, one of `TRACE_KINDS`.
        recording_id: The recording.
        subject_id: The animal.
        session_id: The imaging session; the recording by default.
        sampling_rate: Frames per second (Hz); from the times by default.
        um_per_pixel: Edge of a pixel in µm; without it, positions in pixels stay in pixels.

    Raises:
        ValueError: If times are irregular and no sampling rate is stated, or centroids are of other neurons or have no
            unit.
    """
    if not all(hasattr(tsdframe, name) for name in ("values", "t", "columns", "time_support")):
        raise ValueError(f"recording {recording_id!r}: expected a TsdFrame, got {type(tsdframe).__name__}")
    traces = np.ascontiguousarray(np.asarray(tsdframe.values).T, dtype=np.float32)
    centroids = None if centroids is None else np.asarray(centroids, dtype=np.float64)
    times = np.asarray(tsdframe.t, dtype=np.float64)
    epochs = np.searchsorted(np.asarray(tsdframe.time_support.start), times, side="right")
    new_epoch = np.diff(epochs) > 0
    steps = np.diff(times)
    rate = sampling_rate or rate_of(steps[~new_epoch], lambda got: _missing_rate(recording_id, got))
    return Recording(
        traces=traces,
        sampling_rate=float(rate),
        recording_id=recording_id,
        subject_id=subject_id,
        session_id=session_id or recording_id,
        roi_ids=tuple(str(name) for name in tsdframe.columns),
        trace_kind=trace_kind,
        segment_starts=segment_starts(new_epoch | holes(steps)),
        **_positions(centroids, coordinate_unit, um_per_pixel),
        source=_source("pynapple", tsdframe, sampling_rate, um_per_pixel, traces, centroids),
    )


def _roi_traces(segmentation: Any, trace_kind: str, recording_id: str) -> np.ndarray:
    """Return the traces (N, T) as float32."""
    traces = segmentation.get_traces(name=_TRACES[trace_kind]) if trace_kind in _TRACES else None
    if traces is None:
        there = [name for name, values in segmentation.get_traces_dict().items() if values is not None]
        raise ValueError(
            f"recording {recording_id!r}: expected a trace kind that the extractor has among {', '.join(_TRACES)}, "
            f"got {trace_kind!r}; it has {some(there) or 'none'}"
        )
    # Versions before 0.6 count frames, not samples.
    num_samples = getattr(segmentation, "get_num_samples", None) or segmentation.get_num_frames
    neurons_first = (segmentation.get_num_rois(), num_samples())
    if neurons_first[0] == neurons_first[1] or np.shape(traces) not in (neurons_first, neurons_first[::-1]):
        raise ValueError(
            f"recording {recording_id!r}: expected traces that {neurons_first[0]} ROIs and {neurons_first[1]} samples "
            f"tell the way round of, got shape {np.shape(traces)}; make a Recording of the arrays yourself"
        )
    traces = np.asarray(traces, dtype=np.float32)
    return np.ascontiguousarray(traces if traces.shape == neurons_first else traces.T)


def _mask_centroids(segmentation: Any, roi_ids: Sequence[Any]) -> np.ndarray | None:
    try:
        # One by one: all masks together are many times larger than the traces.
        masks = (np.asarray(segmentation.get_roi_image_masks(roi_ids=[roi])) for roi in roi_ids)
        return image_centroids(mask.reshape(mask.shape[:2]) for mask in masks)
    except NotImplementedError:
        return None


def _accepted(segmentation: Any, roi_ids: Sequence[Any]) -> np.ndarray | None:
    if hasattr(segmentation, "get_property_keys"):
        named = [name for name in _ACCEPTED if name in segmentation.get_property_keys()]
        if named:
            return np.asarray(segmentation.get_property(named[0], roi_ids), dtype=bool)
    # Earlier versions have this list in place of a property, and some formats still do.
    if hasattr(segmentation, "get_accepted_list"):
        kept = set(segmentation.get_accepted_list())
        return np.array([roi in kept for roi in roi_ids])
    return None


def _positions(centroids: np.ndarray | None, unit: str | None, um_per_pixel: float | None) -> dict[str, Any]:
    if centroids is not None:
        centroids, unit = scaled_centroids(centroids, unit, um_per_pixel)
    return {"centroids": centroids, "coordinate_unit": unit}


def _source(
    format: str, made_from: Any, rate: float | None, um_per_pixel: float | None, *arrays: np.ndarray | None
) -> dict[str, Any]:
    return {
        "file": f"{type(made_from).__name__} in memory",
        "format": format,
        "sampling_rate_from": "stated" if rate else f"its {'frequency' if format == 'roiextractors' else 'times'}",
        "um_per_pixel": um_per_pixel,
        "sha256": digest(*arrays),
        "notes": [],
    }


def _missing_rate(recording_id: str, got: str) -> ValueError:
    return ValueError(f"recording {recording_id!r}: expected a sampling rate in Hz, got {got}; pass sampling_rate")
