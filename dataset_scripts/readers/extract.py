"""Read what EXTRACT left in MATLAB files: a structure, in its own examples `output`, with the neurons it found.

`spatial_weights` (height, width, N) are their footprints and `temporal_weights` (T, N) their traces, time first. There
is no frame rate inside. What the traces are depends on the film that EXTRACT was given and on its settings: relative
changes if it, or its user, had turned the film into dF/F, else fluorescence. So that is asked for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from ..metadata import Facts
from ..recording import Recording
from ..wording import cannot_read, some
from .footprints import image_centroids
from .matlab import open_matlab, variables_in_matlab
from .matlab_values import Opaque, Stack
from .source import (
    Found,
    Reader,
    Source,
    as_float32,
    checked_rate,
    checked_trace_kind,
    find_files,
    identity,
    origin,
    scaled_centroids,
)

_FIELDS = {"spatial_weights", "temporal_weights"}


def find_extract(root: Path) -> Found:
    """Find the MATLAB files at or below a path that hold a structure of EXTRACT."""
    return find_files(root, _why_not, ".mat")


def _why_not(path: Path) -> str | None:
    return None if _structures(path) else "it holds no structure with spatial_weights and temporal_weights"


def _structures(path: Path) -> list[str]:
    return sorted(name for name, variable in variables_in_matlab(path).items() if _FIELDS <= variable.fields)


def read_extract(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read one file.

    Args:
        source: The file.
        facts: What is stated about it; the sampling rate must be.
        trace_kind: What the traces are, which only who made the film knows.

    Raises:
        ValueError: If the file is damaged, its arrays do not fit together, or rate or trace kind are not stated.
    """
    names = _structures(source.path)
    if len(names) != 1:
        got = some(names) or "none"
        raise ValueError(f"{source.file}: expected one structure of EXTRACT, got {got}; save one file for each")
    kind = checked_trace_kind(trace_kind, None, source.file)
    rate = checked_rate(facts.sampling_rate, source.file, "none, as EXTRACT stores none")
    with open_matlab(source.path) as file:
        output = file[names[0]]
        if not isinstance(output, Mapping):
            raise ValueError(f"{source.file}: expected one structure {names[0]}, got several; save one file for each")
        traces = _traces(output.get("temporal_weights"), source.file)
        pixels = _centroids(output.get("spatial_weights"), traces.shape, source.file)
    centroids, unit = scaled_centroids(pixels, "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        roi_ids=tuple(str(roi) for roi in range(len(traces))),
        centroids=centroids,
        coordinate_unit=unit,
        trace_kind=kind,
        source=origin(
            source,
            facts,
            "extract",
            trace=f"{names[0]}.temporal_weights",
            rate_from="stated",
            read=(traces, centroids),
            notes={"footprints without weight have no position": np.isnan(pixels).any()},
        ),
        **identity(source, facts),
    )


def _traces(weights: Any, file: str) -> np.ndarray:
    numeric = isinstance(weights, np.ndarray) and weights.dtype.kind in "biuf"
    if not numeric or weights.ndim != 2 or not weights.size:
        raise ValueError(
            f"{file}: expected temporal_weights as numbers of shape (frames, neurons), got {_what(weights)}"
        )
    return as_float32(weights.T)


def _centroids(weights: Any, shape: tuple[int, int], file: str) -> np.ndarray:
    """Return positions in pixels from footprints (height, width, N) of neurons whose traces have the shape (N, T)."""
    if isinstance(weights, Opaque) or scipy.sparse.issparse(weights):
        raise ValueError(
            f"{file}: expected spatial_weights of shape (height, width, neurons), got them sparse; in MATLAB, save "
            "full(output.spatial_weights) in their place"
        )
    if isinstance(weights, np.ndarray) and weights.ndim == 2 and shape[0] == 1:
        # MATLAB keeps no third dimension of length 1.
        weights = Stack((*weights.shape, 1), iter([weights]))
    if not isinstance(weights, Stack) or weights.shape[2] != shape[0]:
        turned = isinstance(weights, Stack) and weights.shape[2] == shape[1]
        raise ValueError(
            f"{file}: expected spatial_weights of shape (height, width, {shape[0]}), as temporal_weights have "
            f"{shape[0]} columns, got {_what(weights)}{'; temporal_weights look transposed' if turned else ''}"
        )
    try:
        return image_centroids(weights.slices)
    except ValueError as error:
        raise cannot_read(file, "footprints in spatial_weights", error) from error


def _what(value: Any) -> str:
    return f"shape {value.shape}" if hasattr(value, "shape") else f"{type(value).__name__}"


EXTRACT = Reader(find_extract, read_extract, frozenset({"trace_kind"}))
