"""Read NumPy archives (`.npz`).

An archive holds `traces` (N, T) and, where known, `sampling_rate` (Hz), `centroids` (N, 2) as (x, y) with
`coordinate_unit` ("um" or "px"), `roi_ids`, `unit_ids` and `accepted` (N,), `segment_starts`, `trace_kind`,
`recording_id`, `subject_id`, `session_id`, `field`, `modality`, `brain_area` and `indicator`.
"""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..metadata import Facts
from ..recording import COORDINATE_UNITS, Recording
from .source import (
    Found,
    Reader,
    Source,
    cannot_read,
    checked_rate,
    checked_trace_kind,
    digest,
    file_source,
    files_with_suffix,
    identity,
    scaled_centroids,
)

_VECTORS = {"roi_ids": "iuU", "unit_ids": "iu", "accepted": "biuf", "segment_starts": "iu"}
_KEYS = {
    *("traces", "centroids", "coordinate_unit", "sampling_rate", "trace_kind"),
    *_VECTORS,
    *("recording_id", "subject_id", "session_id", "field", "modality", "brain_area", "indicator"),
}


def find_npz(root: Path) -> Found:
    """Find the `.npz` archives at or below a path that hold `traces`."""
    sources, passed_over = [], []
    for path in files_with_suffix(root, ".npz"):
        source = file_source(path, root)
        if "traces" in _open_npz(path):
            sources.append(source)
        else:
            passed_over.append((source.file, 'it has no array "traces"'))
    return Found(sources, passed_over)


def read_npz(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read an `.npz` archive; what is stated wins over what is inside, but for coordinates in µm.

    Args:
        source: The archive.
        facts: What is stated about it. With `um_per_pixel`, coordinates without a unit are pixels.
        trace_kind: What the traces are, where the archive does not say.

    Raises:
        ValueError: If the archive is damaged, holds Python objects, or its arrays do not fit together.
    """
    archive = _load_npz(source.path, source.file)
    traces = _numbers(archive["traces"], f"{source.file}: traces")
    ids = {name: _vector(archive, name, kinds, source.file) for name, kinds in _VECTORS.items()}
    _require_neurons_first(traces, {**ids, "centroids": archive.get("centroids")}, source.file)
    centroids, unit = _positions(archive, facts.um_per_pixel, source.file)
    ignored = sorted(set(archive) - _KEYS)
    yield Recording(
        traces=traces,
        sampling_rate=checked_rate(
            facts.sampling_rate or _scalar(archive, "sampling_rate", source.file), source.file, "none inside"
        ),
        trace_kind=checked_trace_kind(trace_kind, _text(archive, "trace_kind"), source.file),
        roi_ids=tuple(str(roi) for roi in (range(len(traces)) if ids["roi_ids"] is None else ids["roi_ids"])),
        centroids=centroids,
        coordinate_unit=unit,
        unit_ids=ids["unit_ids"],
        accepted=None if ids["accepted"] is None else ids["accepted"].astype(bool),
        segment_starts=(0,) if ids["segment_starts"] is None else tuple(ids["segment_starts"].tolist()),
        modality=_text(archive, "modality"),
        source={
            "file": source.file,
            "format": "npz",
            "sampling_rate_from": "stated" if facts.sampling_rate else "sampling_rate",
            "um_per_pixel": facts.um_per_pixel,
            "sha256": digest(traces, centroids),
            "notes": [f"keys that are not read: {', '.join(ignored)}"] if ignored else [],
        },
        **identity(source, facts.or_else(_facts_inside(archive, source.file))),
    )


def _facts_inside(archive: Mapping[str, np.ndarray], file: str) -> Facts:
    field = _scalar(archive, "field", file)
    return Facts(
        recording=_text(archive, "recording_id"),
        subject=_text(archive, "subject_id"),
        session=_text(archive, "session_id"),
        indicator=_text(archive, "indicator"),
        brain_area=_text(archive, "brain_area"),
        field=None if field is None else int(field),
    )


def _text(archive: Mapping[str, np.ndarray], name: str) -> str | None:
    return str(archive[name]) if name in archive else None


def _scalar(archive: Mapping[str, np.ndarray], name: str, file: str) -> float | None:
    value = archive.get(name)
    if value is not None and (value.size != 1 or value.dtype.kind not in "iuf"):
        raise ValueError(f"{file}: expected one number in {name!r}, got {value.dtype} of shape {value.shape}")
    return None if value is None else float(value.reshape(()))


def _open_npz(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise cannot_read(path, "an .npz archive", error) from error


def _load_npz(path: Path, file: str) -> dict[str, np.ndarray]:
    archive = {}
    with _open_npz(path) as stored:
        for name in stored.files:
            try:
                archive[name] = stored[name]
            # A damaged archive fails in zipfile, zlib or NumPy, with errors of many kinds.
            except Exception as error:
                if "allow_pickle" in str(error):
                    raise ValueError(
                        f"{file}: expected arrays of numbers and texts, got Python objects in {name!r}, which are "
                        "not loaded; save it as a plain array"
                    ) from None
                raise cannot_read(path, "an .npz archive", error) from error
    return archive


def _numbers(array: np.ndarray, what: str) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise ValueError(f"{what}: expected numbers of shape (neurons, frames), got {array.dtype} of {array.shape}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _vector(archive: Mapping[str, np.ndarray], name: str, kinds: str, file: str) -> np.ndarray | None:
    array = archive.get(name)
    if array is not None and (array.ndim != 1 or array.dtype.kind not in kinds):
        what = "whole numbers" if kinds == "iu" else "numbers or texts"
        raise ValueError(f"{file}: expected {name} as {what} of shape (n,), got {array.dtype} of {array.shape}")
    return array


def _require_neurons_first(traces: np.ndarray, arrays: Mapping[str, np.ndarray | None], file: str) -> None:
    counts = {name: array.shape[0] for name, array in arrays.items() if array is not None and array.ndim}
    counts.pop("segment_starts", None)
    for name, count in counts.items():
        if count != len(traces):
            turned = "; traces look transposed: save traces.T" if count == traces.shape[1] else ""
            raise ValueError(
                f"{file}: expected traces of shape (neurons, frames) with one row for each of {count} {name}, got "
                f"shape {traces.shape}{turned}"
            )


def _positions(
    archive: Mapping[str, np.ndarray], um_per_pixel: float | None, file: str
) -> tuple[np.ndarray | None, str | None]:
    if "centroids" not in archive:
        return None, None
    unit = _text(archive, "coordinate_unit") or ("px" if um_per_pixel else None)
    if unit not in COORDINATE_UNITS:
        raise ValueError(
            f'{file}: expected coordinate_unit "um" or "px" beside centroids, got {unit!r}; store it, or pass '
            "--um-per-pixel if they are pixels"
        )
    return scaled_centroids(archive["centroids"], unit, um_per_pixel)


NPZ = Reader(find_npz, read_npz, frozenset({"trace_kind"}))
