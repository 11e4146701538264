"""One imaging field as it is handed from a reader to a Parquet build and from a build to the processor."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .wording import repeated, some

TRACE_KINDS = ("fluorescence", "dff", "denoised", "deconvolved", "events")
COORDINATE_UNITS = ("um", "px")
SPLITS = ("train", "validation", "test")
COLUMN_TYPES = ("int64", "float32", "float64", "bool", "string")
SIMULATED = "simulated"


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """The activity of N neurons over T frames in one imaging field.

    Args:
        traces: Activity, float32 of shape (N, T).
        sampling_rate: Frames per second (Hz).
        recording_id: Unique within a build; also the name of its file there.
        subject_id: The animal. Splits and statistics are made over subjects.
        session_id: The imaging session; one session may hold several fields.
        roi_ids: One identifier for each neuron, unique within the recording.
        centroids: Positions (x, y) of shape (N, 2), NaN where unknown, or None where the file has none.
        coordinate_unit: "um" or "px"; None without centroids.
        trace_kind: One of "fluorescence", "dff", "denoised", "deconvolved", "events".
        accepted: Bool of shape (N,), the curator's choice; all True by default.
        unit_ids: Identity of each neuron as its source numbers it, int64 (N,), -1 where unknown, or None.
        field: Number of the imaging field or plane, if there are several.
        modality: For example "two-photon"; "simulated" where no animal was recorded.
        segment_starts: Frames at which concatenated trials or bouts begin; always starts with 0.
        labels: What is known of the animal or recording, for example {"genotype": "5xFAD"}.
        columns: Further values of each neuron, arrays of shape (N,) of int64, float32, float64, bool or text; masked
            where unknown. For example {"mask_type": np.array(["soma", "artifact"])}.
        source: Where it came from: file name, digests, preparation. No paths, times or URLs.

    Raises:
        ValueError: If shapes disagree, ids repeat, or rate, unit or trace kind is not one that is known.
    """

    traces: np.ndarray
    sampling_rate: float
    recording_id: str
    subject_id: str
    session_id: str
    roi_ids: tuple[str, ...]
    centroids: np.ndarray | None = None
    coordinate_unit: str | None = None
    trace_kind: str = "fluorescence"
    accepted: np.ndarray | None = None
    unit_ids: np.ndarray | None = None
    field: int | None = None
    modality: str | None = None
    brain_area: str | None = None
    indicator: str | None = None
    segment_starts: tuple[int, ...] = (0,)
    labels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, np.ndarray | np.ma.MaskedArray] = dataclasses.field(default_factory=dict)
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.traces.ndim != 2 or 0 in self.traces.shape:
            raise ValueError(self._message("traces of shape (neurons, frames)", self.traces.shape))
        if not np.isfinite(self.sampling_rate) or self.sampling_rate <= 0:
            raise ValueError(self._message("a sampling rate in Hz above 0", self.sampling_rate))
        if self.trace_kind not in TRACE_KINDS:
            raise ValueError(self._message(f"a trace kind among {', '.join(TRACE_KINDS)}", self.trace_kind))
        if self.accepted is None:
            object.__setattr__(self, "accepted", np.ones(self.num_neurons, dtype=bool))
        self._check_neurons()
        self._check_columns()
        self._check_segments()

    def _check_neurons(self):
        for name in ("roi_ids", "accepted", "centroids", "unit_ids"):
            values = getattr(self, name)
            if values is not None and len(values) != self.num_neurons:
                raise ValueError(self._message(f"{self.num_neurons} {name}, one for each trace", len(values)))
        if repeated(self.roi_ids):
            raise ValueError(self._message("unique roi_ids", f"repeated {some(repeated(self.roi_ids))}"))
        if self.centroids is not None:
            if self.centroids.shape != (self.num_neurons, 2):
                raise ValueError(self._message("centroids of shape (neurons, 2)", self.centroids.shape))
            if self.coordinate_unit not in COORDINATE_UNITS:
                raise ValueError(self._message('coordinate_unit "um" or "px"', self.coordinate_unit))

    def _check_columns(self):
        for name, values in self.columns.items():
            if values.shape != (self.num_neurons,):
                expected = f"column {name!r} of shape ({self.num_neurons},), one value for each trace"
                raise ValueError(self._message(expected, values.shape))
            if column_type(values) not in COLUMN_TYPES:
                expected = f"column {name!r} of {', '.join(COLUMN_TYPES[:-1])} or text"
                raise ValueError(self._message(expected, values.dtype))

    def _check_segments(self):
        starts = self.segment_starts
        increasing = all(a < b for a, b in zip(starts, starts[1:], strict=False))
        if not starts or starts[0] != 0 or not increasing or starts[-1] >= self.num_frames:
            expected = f"increasing segment_starts from 0 to below {self.num_frames} frames"
            raise ValueError(self._message(expected, starts))

    def _message(self, expected: str, got: Any) -> str:
        return f"recording {self.recording_id!r}: expected {expected}, got {got}"

    @property
    def simulated(self) -> bool:
        return self.modality == SIMULATED

    @property
    def positioned(self) -> np.ndarray:
        """Which neurons have a position, bool (N,)."""
        if self.centroids is None:
            return np.zeros(self.num_neurons, dtype=bool)
        return np.isfinite(self.centroids).all(axis=1)

    def accepted_neurons(self) -> "Recording":
        """The recording without what its curator rejected; itself if that is nothing.

        Raises:
            ValueError: If nothing was accepted.
        """
        if self.accepted.all():
            return self
        if not self.accepted.any():
            raise ValueError(self._message("at least one accepted neuron", f"{self.num_neurons} rejected ones"))
        return self.only(self.accepted)

    def only(self, kept: np.ndarray) -> "Recording":
        """The recording with the neurons in `kept`, bool of shape (N,), alone; there must be one."""
        per_neuron = {name: getattr(self, name) for name in ("traces", "centroids", "unit_ids", "accepted")}
        per_neuron = {name: None if values is None else values[kept] for name, values in per_neuron.items()}
        columns = {name: values[kept] for name, values in self.columns.items()}
        roi_ids = tuple(itertools.compress(self.roi_ids, kept))
        return dataclasses.replace(self, **per_neuron, columns=columns, roi_ids=roi_ids)

    @property
    def num_neurons(self) -> int:
        return self.traces.shape[0]

    @property
    def num_frames(self) -> int:
        return self.traces.shape[1]


def column_type(values: np.ndarray) -> str:
    """Return the type of a column by the name it has in `COLUMN_TYPES`, if it is one of those."""
    return "string" if values.dtype.kind == "U" else values.dtype.name


def any_simulated(recordings: Iterable[Recording]) -> bool:
    """Whether any recording was simulated; then every number says so."""
    return any(recording.simulated for recording in recordings)
