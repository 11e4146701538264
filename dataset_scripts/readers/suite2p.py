"""Read what suite2p wrote: plane folders with `F.npy`, or MATLAB files (`Fall.mat`) with the same names inside.

The traces are the ROI's fluorescence less a share of its neuropil, F - 0.7 Fneu, as suite2p itself subtracts it, and
by default dF/F0 of that.
"""

import dataclasses
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metadata import Facts
from ..recording import Recording
from ..safe_pickle import load_object_array
from ..wording import cannot_read, some
from .matlab import open_matlab, variables_in_matlab
from .source import (
    Found,
    NothingUsable,
    Reader,
    Source,
    below,
    check_neuropil_coefficient,
    chosen_trace_kind,
    files_with_suffix,
    find_files,
    identity,
    missing_rate,
    origin,
    scaled_centroids,
)

_PLANE = re.compile(r"plane(\d+)")
_NAMES = {"F", "Fneu", "spks", "iscell", "stat", "ops"}
_PREPARATION = {
    "dff": "(y - f0) / f0 with y = F - c Fneu and f0 the larger of the 10th percentile of y and 0.1 median(F)",
    "fluorescence": "F - c Fneu",
}


def find_suite2p(root: Path) -> Found:
    """Find plane folders and MATLAB files at or below a path; each plane once, though it may be there twice."""
    if root.is_file() and root.name == "F.npy":
        root = root.parent
    folders = [path.parent for path in files_with_suffix(root, ".npy") if path.name == "F.npy"]
    planes = {folder.parent for folder in folders if _PLANE.fullmatch(folder.name)}
    sources, passed_over = [], []
    for folder in folders:
        if folder.name == "combined" and folder.parent in planes:
            passed_over.append((below(folder, root), "the planes it combines are read one by one"))
        else:
            sources.append(_plane_source(folder, root))

    def why_not(path: Path) -> str | None:
        if path.parent in folders:
            return "the .npy files beside it are read"
        names = variables_in_matlab(path).keys() & _NAMES
        return None if len(names) > 1 else "it does not hold suite2p's F, Fneu, iscell and stat"

    found = find_files(root, why_not, ".mat")
    sources += [
        _named_by_folder(source, root) if source.path.name == "Fall.mat" else source for source in found.sources
    ]
    return Found(sorted(sources, key=_reading_order), passed_over + found.passed_over)


def _named_by_folder(source: Source, root: Path) -> Source:
    folder = source.path.parent
    return _plane_source(folder, folder if root.is_file() else root)._replace(path=source.path, file=source.file)


def _reading_order(source: Source) -> tuple[str, int, str]:
    return source.session, source.field or 0, source.file


def _plane_source(folder: Path, root: Path) -> Source:
    """Name a plane after its folders below the root, or after those above where they only say "suite2p/plane0"."""
    above, parts = root.resolve(), list(folder.relative_to(root).parts)
    while above.name and all(part == "suite2p" or _PLANE.fullmatch(part) for part in parts):
        above, parts = above.parent, [above.name, *parts]
    parts = [part for part in parts if part != "suite2p"]
    plane = _PLANE.fullmatch(parts[-1])
    session = "_".join(parts[:-1] if plane else parts)
    return Source(folder, below(folder, root), "_".join(parts), session, int(plane[1]) if plane else None)


@dataclasses.dataclass(frozen=True)
class _Plane:
    """The arrays of one plane as suite2p names them; F and Fneu (N, T), med (N, 2) as (y, x) in pixels."""

    F: np.ndarray
    Fneu: np.ndarray | None
    iscell: np.ndarray | None
    med: np.ndarray | None
    planes: set[int]
    ops: Mapping[str, Any]
    dt: float | None = None


def read_plane(
    source: Source,
    facts: Facts,
    *,
    trace_kind: str | None = None,
    neuropil_coefficient: float = 0.7,
    all_rois: bool = False,
) -> Iterator[Recording]:
    """Read one plane.

    Args:
        source: A plane folder or MATLAB file.
        facts: What is stated about it. A stated sampling rate wins over the one in the file.
        trace_kind: "dff", the default, is (y - f0) / f0 with y = F - c Fneu and f0 the 10th percentile of y over the
            recording, but at least a tenth of the median of F, which keeps the division sane where the neuropil is as
            bright as the cell. A note names the neurons where it is that, and those left out as their f0 is not above
            0. "fluorescence" is y. One baseline for the whole recording, since a running one removes slow activity
            and depends on a window length; it leaves bleaching and drift in.
        neuropil_coefficient: c, suite2p's default 0.7.
        all_rois: Keep the ROIs that suite2p or its user rejected too; `accepted` says which those are.

    Raises:
        ValueError: If a file is missing, damaged or of another shape, there is no rate, or no neuron to keep.
    """
    kind = chosen_trace_kind(trace_kind, _PREPARATION, "suite2p")
    check_neuropil_coefficient(neuropil_coefficient)
    plane = _read_matlab(source.path) if source.path.is_file() else _read_folder(source.path)
    _check_shapes(plane, source.file, needs_neuropil=neuropil_coefficient > 0, needs_iscell=not all_rois)
    rate, differs = _sampling_rate(plane, facts, source.file)
    kept = np.arange(len(plane.F)) if all_rois else np.flatnonzero(plane.iscell)
    if not len(kept):
        raise NothingUsable(f"none of its {len(plane.F)} ROIs is accepted in iscell")
    F = np.asarray(plane.F[kept], dtype=np.float32)
    Fneu = np.asarray(plane.Fneu[kept], dtype=np.float32) if neuropil_coefficient > 0 else np.zeros((1, 1), np.float32)
    with np.errstate(invalid="ignore"):  # infinite less infinite
        traces = F - np.float32(neuropil_coefficient) * Fneu
    read, notes, floored = (F, Fneu, None if plane.med is None else plane.med[kept]), {}, []
    if kind == "dff":
        traces, kept, notes, floored = _dff(traces, F, kept)
    centroids = None if plane.med is None else plane.med[kept, ::-1]
    centroids, unit = scaled_centroids(centroids, "px", facts.um_per_pixel)
    yield Recording(
        traces=traces,
        sampling_rate=rate,
        roi_ids=tuple(str(roi) for roi in kept),
        centroids=centroids,
        coordinate_unit=unit,
        trace_kind=kind,
        accepted=None if plane.iscell is None else plane.iscell[kept],
        segment_starts=_segment_starts(plane),
        source=origin(
            source,
            facts,
            "suite2p",
            rois=len(plane.F),
            accepted_rois=None if plane.iscell is None else int(plane.iscell.sum()),
            trace=_PREPARATION[kind],
            neuropil_coefficient=neuropil_coefficient,
            floored_rois=[str(roi) for roi in floored],
            rate_from="ops.fs",
            read=read,
            notes={"ops.fs is not the stated sampling rate, which was used": differs} | notes,
        ),
        **identity(source, facts),
    )


def _dff(
    corrected: np.ndarray, F: np.ndarray, rois: np.ndarray
) -> tuple[np.ndarray, np.ndarray, dict[str, bool], np.ndarray]:
    """Return dF/F0 of the neurons with an F0 to divide by, which of `rois` (N,) they are, notes, and those with a
    tenth of the median as F0."""
    # What is missing stays missing; the baseline is that of the frames that are there, NaN where there are none.
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        percentile = np.nanpercentile(corrected, 10, axis=1, keepdims=True)
        least = 0.1 * np.nanmedian(F, axis=1, keepdims=True)
        f0 = np.maximum(percentile, least)
    left_out = (f0 <= 0).ravel()
    if left_out.all():
        raise NothingUsable(
            f"none of its {len(F)} neurons has a baseline above 0 to divide by; --trace-kind fluorescence keeps them"
        )
    which = f"{left_out.sum()} of {len(rois)} neurons: roi {some(rois[left_out].astype(str).tolist())}"
    notes = {f"left out as f0 is not above 0: {which}; --trace-kind fluorescence keeps them": left_out.any()}
    floored = rois[(percentile < least).ravel() & ~left_out]
    f0 = f0[~left_out]
    with np.errstate(invalid="ignore"):
        return ((corrected[~left_out] - f0) / f0).astype(np.float32), rois[~left_out], notes, floored


def _sampling_rate(plane: _Plane, facts: Facts, file: str) -> tuple[float, bool]:
    """Return the sampling rate in Hz, and whether the file has another one than is stated."""
    in_file = _number(plane.ops.get("fs"))
    if facts.sampling_rate:
        return facts.sampling_rate, in_file > 0 and not np.isclose(in_file, facts.sampling_rate, rtol=1e-3)
    if not in_file > 0 or not np.isfinite(in_file):
        raise missing_rate(file, "none in its ops" if "fs" not in plane.ops else f"ops.fs = {in_file:g}")
    if plane.dt and not np.isclose(in_file * plane.dt, 1, rtol=1e-3):
        raise missing_rate(file, f"ops.fs = {in_file:g} Hz but dt = {plane.dt:g} s, which is {1 / plane.dt:.6g} Hz")
    return in_file, False


def _number(value: Any) -> float:
    """Return a value, or the first of several, as a number; NaN where it is none."""
    try:
        return float(np.ravel(value)[0])
    except (TypeError, ValueError, IndexError):
        return np.nan


def _segment_starts(plane: _Plane) -> tuple[int, ...]:
    # suite2p strings the movies of several folders together; nothing runs on from one to the next.
    counts = np.ravel(plane.ops.get("frames_per_folder", ()))
    if counts.dtype.kind not in "iuf":
        return (0,)
    if len(counts) < 2 or counts.sum() != plane.F.shape[1] or (counts <= 0).any():
        return (0,)
    return (0, *np.cumsum(counts.astype(int))[:-1].tolist())


def _check_shapes(plane: _Plane, file: str, *, needs_neuropil: bool, needs_iscell: bool) -> None:
    if plane.F.ndim != 2:
        raise ValueError(f"{file}: expected F of shape (ROIs, frames), got shape {plane.F.shape}")
    if needs_neuropil and plane.Fneu is None:
        raise ValueError(f"{file}: expected Fneu beside F, found none; pass --neuropil-coefficient 0 to go without")
    if needs_iscell and plane.iscell is None:
        raise ValueError(f"{file}: expected iscell, which says the accepted ROIs, found none; pass --all-rois")
    if needs_neuropil and plane.Fneu.shape != plane.F.shape:
        raise ValueError(f"{file}: expected Fneu of the shape of F {plane.F.shape}, got {plane.Fneu.shape}")
    for name, values in (("iscell", plane.iscell), ("stat", plane.med)):
        if values is not None and len(values) != len(plane.F):
            turned = " (F looks transposed)" if len(values) == plane.F.shape[1] else ""
            raise ValueError(f"{file}: expected {len(plane.F)} entries in {name}, got {len(values)}{turned}")
    if len(plane.planes) > 1:
        raise ValueError(
            f"{file}: expected one plane, got {len(plane.planes)} laid side by side, where distances mean nothing; "
            "import the plane folders"
        )


def _read_folder(folder: Path) -> _Plane:
    ops = {}
    # suite2p 1.x may leave ops.npy away and split it in two.
    for name in ("db.npy", "settings.npy", "ops.npy"):
        if (folder / name).exists():
            ops |= _dictionary(folder / name)
    stat = load_object_array(folder / "stat.npy") if (folder / "stat.npy").exists() else None
    iscell = _array(folder / "iscell.npy")
    return _Plane(
        F=_array(folder / "F.npy"),
        Fneu=_array(folder / "Fneu.npy"),
        iscell=None if iscell is None else _first_column(iscell) > 0,
        med=None if stat is None else _medians(stat, folder / "stat.npy"),
        planes=set() if stat is None else {_number(roi.get("iplane", 0)) for roi in stat},
        ops=ops,
    )


def _read_matlab(path: Path) -> _Plane:
    with open_matlab(path) as file:
        found = {name: file[name] for name in (_NAMES | {"dt"}) - {"spks"} if name in file}
        if "F" not in found:
            raise cannot_read(
                path, "F, Fneu, iscell and stat as suite2p saves them", ValueError("there is no F in it")
            )
        arrays = {name: _checked(found[name], path, name) for name in ("F", "Fneu", "iscell") if name in found}
        stat = None if "stat" not in found else _structures(found["stat"], path, "stat", ("med", "iplane"))
        ops = {} if "ops" not in found else _structures(found["ops"], path, "ops", ("fs", "frames_per_folder"))[0]
    dt = _number(found.get("dt")) if np.size(found.get("dt")) == 1 else np.nan
    return _Plane(
        F=arrays["F"],
        Fneu=arrays.get("Fneu"),
        iscell=_first_column(arrays["iscell"]) > 0 if "iscell" in arrays else None,
        med=None if stat is None else _medians(stat, path),
        planes=set() if stat is None else {_number(roi.get("iplane", 0)) for roi in stat},
        ops=ops,
        dt=dt if dt > 0 else None,
    )


def _structures(value: Any, path: Path, name: str, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read some fields of a structure or of several, which MATLAB does not tell apart."""
    structs = value if isinstance(value, Sequence) and value else [value]
    for struct in structs:
        if not isinstance(struct, Mapping):
            raise ValueError(
                f"{path}: expected {name} as a structure as suite2p saves it, got {type(struct).__name__}"
            )
    return [{field: struct[field] for field in fields if field in struct} for struct in structs]


def _checked(array: Any, path: Path, name: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected numbers in {name}, got {getattr(array, 'dtype', type(array).__name__)}")
    return array


def _first_column(iscell: np.ndarray) -> np.ndarray:
    return iscell[:, 0] if iscell.ndim == 2 else iscell


def _array(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        # Mapped, so that the rows of rejected ROIs are never read.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy fails on a damaged header in many ways, some of them Python's own tokenizer's.
    except Exception as error:
        raise cannot_read(path, "an array of numbers", error) from error
    return _checked(array, path, path.stem)


def _dictionary(path: Path) -> dict[str, Any]:
    array = load_object_array(path)
    if array.shape != () or not isinstance(array.item(), dict):
        raise ValueError(f"{path}: expected a dictionary of settings as suite2p saves it, got an array {array.shape}")
    return array.item()


def _medians(stat: Any, path: Path) -> np.ndarray:
    try:
        return np.array([np.ravel(dict(roi)["med"]) for roi in stat], dtype=np.float64).reshape(-1, 2)
    # Anything may lie where suite2p puts dictionaries, and fail in its own way.
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f'{path}: expected "med" (y, x) for each ROI in stat, got something else') from error


SUITE2P = Reader(find_suite2p, read_plane, frozenset({"trace_kind", "neuropil_coefficient", "all_rois"}))
