"""Read NumPy archives (`.npz`).

An archive holds `traces` (N, T) and, where known, `sampling_rate` (Hz), `centroids` (N, 2) as (x, y) with
`coordinate_unit` ("um" or "px"), `roi_ids`, `unit_ids` and `accepted` (N,), `segment_starts`, `trace_kind`,
`recording_id`, `subject_id`, `session_id`, `field`, `modality`, `brain_area` and `indicator`.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..metadata import Facts
from ..recording import COORDINATE_UNITS, Recording
from ..wording import cannot_read, some
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

_VECTORS = {"roi_ids": "iuU", "unit_ids": "iu", "accepted": "biuf", "segment_starts": "iu"}
_KEYS = {
    *("traces", "centroids", "coordinate_unit", "sampling_rate", "trace_kind"),
    *_VECTORS,
    *("recording_id", "subject_id", "session_id", "field", "modality", "brain_area", "indicator"),
}


def find_npz(root: Path) -> Found:
    """Find the `.npz` archives at or below a path that hold `traces`."""
    return find_files(root, _why_not, ".npz")


def _why_not(path: Path) -> str | None:
    with _open_npz(path) as archive:
        return None if "traces" in archive else 'it has no array "traces"'


def read_npz(source: Source, facts: Facts, *, trace_kind: str | None = None) -> Iterator[Recording]:
    """Read an `.npz` archive; what is stated wins over what is inside, but for coordinates in µm.

    Args:
        source: The archive.
        facts: What is stated about it. With `um_per_pixel`, coordinates without a unit are pixels.
        trace_kind: What the traces are, where the archive does not say.

    Raises:
        ValueError: If the archive is damaged, holds Python objects, or its arrays do not fit together.
    """
    archive, ignored = _load_npz(source.path, source.file)
    traces = as_float32(_numbers(archive["traces"], f"{source.file}: traces"))
    ids = {name: _vector(archive, name, kinds, source.file) for name, kinds in _VECTORS.items()}
    _require_neurons_first(traces, {**ids, "centroids": archive.get("centroids")}, source.file)
    rate = facts.sampling_rate or _single(archive, "sampling_rate", "iuf", "number", source.file)
    centroids, unit = _positions(archive, facts.um_per_pixel, source.file)
    yield Recording(
        traces=traces,
        sampling_rate=checked_rate(rate, source.file, "none inside"),
        trace_kind=checked_trace_kind(trace_kind, _text(archive, "trace_kind", source.file), source.file),
        roi_ids=tuple(str(roi) for roi in (range(len(traces)) if ids["roi_ids"] is None else ids["roi_ids"])),
        centroids=centroids,
        coordinate_unit=unit,
        unit_ids=ids["unit_ids"],
        accepted=None if ids["accepted"] is None else ids["accepted"].astype(bool),
        segment_starts=(0,) if ids["segment_starts"] is None else tuple(ids["segment_starts"].tolist()),
        modality=_text(archive, "modality", source.file),
        source=origin(
            source,
            facts,
            "npz",
            rate_from="sampling_rate",
            read=(traces, centroids),
            notes={f"keys that are not read: {some(ignored)}{_meant(ignored, archive)}": bool(ignored)},
        ),
        **identity(source, facts.or_else(_facts_inside(archive, source.file))),
    )


def _meant(ignored: Sequence[str], archive: Mapping[str, np.ndarray]) -> str:
    absent = sorted(_KEYS - archive.keys())
    close = dict.fromkeys(key for name in ignored for key in difflib.get_close_matches(name, absent, n=1))
    return f"; did you mean {', '.join(close)}?" if close else ""


def _facts_inside(archive: Mapping[str, np.ndarray], file: str) -> Facts:
    texts = {"recording": "recording_id", "subject": "subject_id", "session": "session_id"}
    texts |= {"indicator": "indicator", "brain_area": "brain_area"}
    inside = {fact: _text(archive, name, file) for fact, name in texts.items()}
    return Facts(**inside, field=_single(archive, "field", "iu", "whole number", file))


def _text(archive: Mapping[str, np.ndarray], name: str, file: str) -> str | None:
    value = _single(archive, name, "iuU", "text", file)
    return None if value is None else str(value)


def _single(archive: Mapping[str, np.ndarray], name: str, kinds: str, what: str, file: str) -> Any:
    value = archive.get(name)
    if value is not None and (value.size != 1 or value.dtype.kind not in kinds):
        raise ValueError(f"{file}: expected one {what} in {name!r}, got {value.dtype} of shape {value.shape}")
    return None if value is None else value.item()


def _open_npz(path: Path) -> np.lib.npyio.NpzFile:
    try:
        opened = np.load(path, allow_pickle=False)
        if not isinstance(opened, np.lib.npyio.NpzFile):
            raise ValueError("it is a single array")
        return opened
    # A damaged archive fails in zipfile, zlib or NumPy, with errors of many kinds.
    except Exception as error:
        raise cannot_read(path, "an .npz archive", error) from error


def _load_npz(path: Path, file: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the arrays that are known by name, and the names of the others, which are not read."""
    archive = {}
    with _open_npz(path) as stored:
        for name in sorted(_KEYS.intersection(stored.files)):
            try:
                archive[name] = stored[name]
                # Without the header of an array, NumPy returns the bytes as they are.
                if not isinstance(archive[name], np.ndarray):
                    raise ValueError(f"{name} is no array")
            except Exception as error:
                if "allow_pickle" in str(error):
                    raise ValueError(
                        f"{file}: expected arrays of numbers and texts, got Python objects in {name!r}, which are "
                        "not loaded; save it as a plain array"
                    ) from None
                raise cannot_read(path, "an .npz archive", error) from error
        return archive, sorted(set(stored.files) - _KEYS)


def _numbers(array: np.ndarray, what: str) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise ValueError(f"{what}: expected numbers of two dimensions, got {array.dtype} of {array.shape}")
    return array


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
    unit = _text(archive, "coordinate_unit", file) or ("px" if um_per_pixel else None)
    if unit not in COORDINATE_UNITS:
        got = "none" if unit is None else repr(unit)
        raise ValueError(
            f'{file}: expected coordinate_unit "um" or "px" beside centroids, got {got}; store it, or pass '
            "--um-per-pixel if they are pixels"
        )
    return scaled_centroids(_numbers(archive["centroids"], f"{file}: centroids"), unit, um_per_pixel)


NPZ = Reader(find_npz, read_npz, frozenset({"trace_kind"}))
