"""Read what CaImAn's `CNMF.save` wrote: HDF5 with the groups `estimates` and `params`.

CaImAn documents no format; it stores its objects attribute by attribute, sparse matrices as data, indices, indptr and
shape by columns, tuples as arrays, and None as the text "NoneType" (`caiman/utils/utils.py`).
"""

import functools
import operator
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import scipy.sparse

from ..hdf5_file import member, numbers_at, open_hdf5, read_lines, read_whole, readable
from ..metadata import Facts
from ..recording import Recording
from ..wording import cannot_read
from .footprints import centroids_of_traces
from .source import (
    Found,
    NothingUsable,
    Reader,
    Source,
    checked_rate,
    chosen_trace_kind,
    find_files,
    identity,
    origin,
    scaled_centroids,
)
from .sparse import checked_columns

# `YrA` is what the model leaves over, so C + YrA is the fluorescence that it was fitted to.
_TRACES = {"denoised": ("C",), "fluorescence": ("C", "YrA"), "dff": ("F_dff",), "deconvolved": ("S",)}


def find_caiman(root: Path) -> Found:
    """Find the HDF5 files (`.hdf5`, `.h5`) at or below a path that hold CaImAn's estimates."""
    return find_files(root, _why_not, ".hdf5", ".h5")


def _why_not(path: Path) -> str | None:
    with open_hdf5(path) as file, readable(path):
        return "it holds no estimates as CaImAn saves them" if member(file, "estimates/C") is None else None


def read_caiman(
    source: Source, facts: Facts, *, trace_kind: str | None = None, all_rois: bool = False
) -> Iterator[Recording]:
    """Read one file.

    Args:
        source: The file.
        facts: What is stated about it. A stated sampling rate wins over params.data.fr.
        trace_kind: "denoised" (C, the default, which a note says), "fluorescence" (C + YrA), "dff" (F_dff) or
            "deconvolved" (S).
        all_rois: Keep the components that are not in idx_components too; `accepted` says which those are.

    Raises:
        ValueError: If the file is damaged, holds no such traces, its arrays do not fit together or there is no rate.
    """
    kind = chosen_trace_kind(trace_kind, _TRACES, "CaImAn")
    with open_hdf5(source.path) as file:
        shape = _shape(file, _TRACES[kind], kind, source.file)
        accepted = _accepted(file, shape[0], source.file)
        rate = facts.sampling_rate or _number(numbers_at(file, "params/data/fr"))
        rate = checked_rate(rate, source.file, "none in params.data.fr")
        kept = np.arange(shape[0]) if all_rois or accepted is None else np.flatnonzero(accepted)
        if not len(kept):
            raise NothingUsable(f"none of its {shape[0]} components is in idx_components")
        parts = (numbers_at(file, f"estimates/{name}") for name in _TRACES[kind])
        traces = functools.reduce(operator.iadd, (read_lines(part, kept, axis=0) for part in parts))
        pixels = _centroids(file, shape, source.file)
    centroids, unit = scaled_centroids(None if pixels is None else pixels[kept], "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        roi_ids=tuple(str(roi) for roi in kept),
        centroids=centroids,
        coordinate_unit=unit,
        trace_kind=kind,
        accepted=None if accepted is None else accepted[kept],
        source=origin(
            source,
            facts,
            "caiman",
            rois=shape[0],
            accepted_rois=shape[0] if accepted is None else int(accepted.sum()),
            trace=" + ".join(f"estimates.{name}" for name in _TRACES[kind]),
            rate_from="params.data.fr",
            read=(traces, centroids),
            notes=_notes(trace_kind, facts, accepted, pixels),
        ),
        **identity(source, facts),
    )


def _notes(
    trace_kind: str | None, facts: Facts, accepted: np.ndarray | None, pixels: np.ndarray | None
) -> dict[str, bool]:
    return {
        "the traces are estimates.C, denoised by CaImAn's model; --trace-kind chooses others": trace_kind is None,
        "the sampling rate is params.data.fr, which is 30 Hz where nobody told CaImAn": not facts.sampling_rate,
        "idx_components is not set, so every component counts as accepted": accepted is None,
        "footprints and image size are not both inside, so there are no positions": pixels is None,
        "footprints without weight have no position": pixels is not None and np.isnan(pixels).any(),
    }


def _shape(file: h5py.File, names: tuple[str, ...], kind: str, source: str) -> tuple[int, int]:
    """Return the shape (N, T) that the traces have in common."""
    shapes = {}
    for name in names:
        item = numbers_at(file, f"estimates/{name}")
        if item is None or item.ndim != 2:
            got = "nothing" if item is None else f"shape {item.shape}"
            raise ValueError(
                f"{source}: expected estimates.{name} of shape (components, frames) for --trace-kind {kind}, got "
                f"{got}; choose another trace kind: {', '.join(other for other in _TRACES if other != kind)}"
            )
        shapes[name] = item.shape
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{source}: expected estimates.C and estimates.YrA of one shape, got {shapes}")
    return shapes[names[0]]


def _accepted(file: h5py.File, components: int, source: str) -> np.ndarray | None:
    """Return which components were accepted, bool of shape (N,); None where nobody judged them."""
    item = numbers_at(file, "estimates/idx_components")
    if item is None or item.ndim != 1:
        return None
    accepted = np.zeros(components, dtype=bool)
    indices = read_whole(item)
    whole = indices.astype(np.int64) if np.isfinite(indices).all() else np.array([-1])
    # An empty list is stored as one of floats.
    if len(indices) and ((whole != indices).any() or whole.min() < 0 or whole.max() >= components):
        raise ValueError(
            f"{source}: expected idx_components from 0 to {components - 1}, got others; save the file again in CaImAn"
        )
    accepted[whole] = True
    return accepted


def _centroids(file: h5py.File, shape: tuple[int, int], source: str) -> np.ndarray | None:
    """Return positions in pixels of all N components whose traces have the shape (N, T); None without footprints."""
    footprints, size = _footprints(file, source), _image_size(file)
    if footprints is None or size is None:
        return None
    return centroids_of_traces(footprints, size, shape, "estimates.A", source)


def _footprints(file: h5py.File, source: str) -> np.ndarray | scipy.sparse.csc_array | None:
    whole = numbers_at(file, "estimates/A")
    if whole is not None and whole.ndim == 2:
        return read_whole(whole)
    parts = [numbers_at(file, f"estimates/A/{part}") for part in ("data", "indices", "indptr", "shape")]
    if any(part is None for part in parts):
        return None
    data, indices, indptr, shape = map(read_whole, parts)
    try:
        pixels, components = shape
        return checked_columns(data, indices, indptr, (int(pixels), int(components)))
    except (ValueError, TypeError, OverflowError) as error:
        raise cannot_read(source, "footprints in estimates.A", error) from error


def _image_size(file: h5py.File) -> tuple[int, int] | None:
    """Return height and width; None where they are not stored, or there are three dimensions."""
    for item in (numbers_at(file, "params/data/dims"), numbers_at(file, "estimates/dims")):
        if item is not None and item.shape == (2,) and np.isfinite(size := read_whole(item)).all():
            return tuple(int(n) for n in size)
    return None


def _number(item: h5py.Dataset | None) -> float | None:
    return float(read_whole(item).ravel()[0]) if item is not None and item.size == 1 else None


CAIMAN = Reader(find_caiman, read_caiman, frozenset({"trace_kind", "all_rois"}))
