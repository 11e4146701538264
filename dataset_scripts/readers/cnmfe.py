"""Read what CNMF-E left in MATLAB files: a structure with the fields of its class Sources2D.

`neuron.obj2struct()` makes such a structure, which is saved as `results` or `neuron`: A (pixels, N), C, C_raw and S
(N, T), ids (N,), and options with d1 (height) and d2 (width). The object itself cannot be read outside of MATLAB.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from ..metadata import Facts
from ..recording import Recording
from ..wording import repeated, some
from .footprints import centroids_of_traces
from .matlab import open_matlab, variables_in_matlab
from .matlab_values import Variable
from .source import (
    Found,
    Reader,
    Source,
    as_float32,
    chosen_trace_kind,
    find_files,
    identity,
    missing_rate,
    origin,
    scaled_centroids,
)

_TRACES = {"denoised": "C", "fluorescence": "C_raw", "deconvolved": "S"}
_CLASS = "Sources2D"


def find_cnmfe(root: Path) -> Found:
    """Find the MATLAB files at or below a path that hold a structure or an object of CNMF-E."""
    return find_files(root, _why_not, ".mat")


def _why_not(path: Path) -> str | None:
    if any(_is_structure(v) or v.class_name == _CLASS for v in variables_in_matlab(path).values()):
        return None
    return "it holds no structure with CNMF-E's A, C and C_raw or options"


def _is_structure(variable: Variable) -> bool:
    return {"A", "C"} <= variable.fields and not variable.fields.isdisjoint({"C_raw", "options"})


def read_cnmfe(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read one file.

    Args:
        source: The file.
        facts: What is stated about it. A stated sampling rate wins over Fs.
        trace_kind: "denoised" (C, the default, which a note says), "fluorescence" (C_raw: the background subtracted,
            nothing smoothed) or "deconvolved" (S).

    Raises:
        ValueError: If the file is damaged, holds an object in place of a structure, its arrays do not fit together, or
            there is no rate.
    """
    kind = chosen_trace_kind(trace_kind, _TRACES, "CNMF-E")
    name = _structure_name(source)
    with open_matlab(source.path) as file:
        neuron = file[name]
        if not isinstance(neuron, Mapping):
            raise ValueError(f"{source.file}: expected one structure {name}, got several; save one file for each")
        options = neuron.get("options", {})
        options = options if isinstance(options, Mapping) else {}
        rate, rate_from = _sampling_rate(neuron, options, facts, source.file)
        traces = _traces(neuron, _TRACES[kind], source.file)
        pixels = _centroids(neuron, options, traces.shape, source.file)
        ids = _roi_ids(neuron.get("ids"), len(traces))
    centroids, unit = scaled_centroids(pixels, "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        roi_ids=ids,
        centroids=centroids,
        coordinate_unit=unit,
        trace_kind=kind,
        source=origin(
            source,
            facts,
            "cnmfe",
            trace=f"{name}.{_TRACES[kind]}",
            rate_from=rate_from,
            read=(traces, centroids),
            notes=_notes(trace_kind, pixels),
        ),
        **identity(source, facts),
    )


def _notes(trace_kind: str | None, pixels: np.ndarray | None) -> dict[str, bool]:
    return {
        "the traces are C, denoised by CNMF-E's model; --trace-kind chooses others": trace_kind is None,
        "footprints and image size (A, options.d1, options.d2) are not all inside, so there are no positions": (
            pixels is None
        ),
        "footprints without weight have no position": pixels is not None and np.isnan(pixels).any(),
    }


def _structure_name(source: Source) -> str:
    variables = variables_in_matlab(source.path)
    names = sorted(name for name, variable in variables.items() if _is_structure(variable))
    if len(names) > 1:
        raise ValueError(f"{source.file}: expected one structure of CNMF-E, got {some(names)}; save one file for each")
    if not names:
        raise ValueError(
            f"{source.file}: expected a structure with the fields of {_CLASS}, got an object of that class, which "
            "only MATLAB can read; there, save the result of neuron.obj2struct()"
        )
    return names[0]


def _sampling_rate(
    neuron: Mapping[str, Any], options: Mapping[str, Any], facts: Facts, file: str
) -> tuple[float, str]:
    """Return the rate in Hz and where it is from; Fs is NaN in a Sources2D that nobody told."""
    if facts.sampling_rate:
        return facts.sampling_rate, "stated"
    for holder, where in ((neuron, "Fs"), (options, "options.Fs")):
        rate = _number(holder.get("Fs"))
        if 0 < rate < np.inf:
            return rate, where
    raise missing_rate(file, "no Fs")


def _traces(neuron: Mapping[str, Any], name: str, file: str) -> np.ndarray:
    traces = _numbers(neuron.get(name))
    if traces is None or 0 in traces.shape:
        raise ValueError(f"{file}: expected {name} of shape (neurons, frames), got none; choose another --trace-kind")
    if scipy.sparse.issparse(traces):
        # CNMF-E has S sparse. A sparse matrix may say any size, so one is believed that C has too.
        full = _numbers(neuron.get("C"))
        if scipy.sparse.issparse(full) or full is None or full.shape != traces.shape:
            raise ValueError(f"{file}: expected {name} as large as a full C, got sparse numbers {traces.shape}")
        traces = traces.toarray()
    return as_float32(traces)


def _centroids(
    neuron: Mapping[str, Any], options: Mapping[str, Any], shape: tuple[int, int], file: str
) -> np.ndarray | None:
    """Return positions in pixels of the N neurons whose traces have the shape (N, T); None without footprints."""
    footprints, height, width = _numbers(neuron.get("A")), _number(options.get("d1")), _number(options.get("d2"))
    if footprints is None or not (0 < height < np.inf and 0 < width < np.inf):
        return None
    return centroids_of_traces(footprints, (int(height), int(width)), shape, "A", file)


def _roi_ids(ids: Any, rois: int) -> tuple[str, ...]:
    """Return CNMF-E's own numbers, which outlive the removal of neurons; their order where there are none."""
    ids = () if _numbers(ids) is None or scipy.sparse.issparse(ids) else ids.ravel()
    names = tuple(f"{number:.15g}" for number in ids)
    return names if len(names) == rois and not repeated(names) else tuple(str(roi) for roi in range(rois))


def _numbers(value: Any) -> np.ndarray | scipy.sparse.csc_array | None:
    numeric = (isinstance(value, np.ndarray) or scipy.sparse.issparse(value)) and value.dtype.kind in "biuf"
    return value if numeric and value.ndim == 2 else None


def _number(value: Any) -> float:
    array = _numbers(value)
    return float(array[0, 0]) if array is not None and array.shape == (1, 1) else np.nan


CNMFE = Reader(find_cnmfe, read_cnmfe, frozenset({"trace_kind"}))
