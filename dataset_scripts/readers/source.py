"""What every reader shares: the files it found, and how what is stated about a file becomes part of a recording."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..metadata import Facts
from ..recording import TRACE_KINDS, Recording

TRACE_KINDS_LISTED = f"{', '.join(TRACE_KINDS[:-1])} or {TRACE_KINDS[-1]}"


class Source(NamedTuple):
    """One file or folder that a reader can read.

    Args:
        path: Where it is.
        file: Its path below the folder that is imported, with forward slashes; its name if it is imported alone.
        recording: The recording_id if nothing else is stated.
        session: The session_id if nothing else is stated.
        field: The number of the plane, where the name tells.
    """

    path: Path
    file: str
    recording: str
    session: str
    field: int | None = None


class Found(NamedTuple):
    """What a reader found.

    Args:
        sources: In reading order.
        passed_over: What it looked at and left, as (file, why).
        claimed: Files that are parts of its sources, so that readers of plain tables and arrays leave them.
    """

    sources: list[Source]
    passed_over: list[tuple[str, str]]
    claimed: frozenset[Path] = frozenset()


class Reader(NamedTuple):
    """A file format: how to find its files, how to read one of them, and the options that reading it knows."""

    find: Callable[[Path], Found]
    read: Callable[..., Iterator[Recording]]
    options: frozenset[str]


class NothingUsable(ValueError):
    """A recording has no neuron to keep; an import leaves it out and goes on."""


def below(path: Path, root: Path) -> str:
    """Return the path below the imported folder, or the name where they are the same."""
    return path.name if path == root else path.relative_to(root).as_posix()


def files_with_suffix(root: Path, suffix: str) -> list[Path]:
    """Return the files with a suffix at or anywhere below a path, hidden ones left out, in order."""
    if root.is_file():
        return [root] if root.suffix.lower() == suffix else []
    found = (path for path in root.rglob("*") if path.suffix.lower() == suffix and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def file_source(path: Path, root: Path) -> Source:
    """Return the source for a file that holds one recording, named after the file and its folders below the root."""
    name = "_".join(Path(below(path, root)).with_suffix("").parts)
    return Source(path, below(path, root), name, name)


def find_files(root: Path, why_not: Callable[[Path], str | None], *suffixes: str) -> Found:
    """Find the files with a suffix at or below a path that hold a recording each.

    Args:
        root: Where to look.
        why_not: Returns why a file holds none, None if it does. A damaged one, for which it raises ValueError, does
            not end the search in a folder, as it may belong to anything.
        *suffixes: For example ".csv".

    Raises:
        ValueError: If `root` itself is a damaged file.
    """
    sources, passed_over = [], []
    for path in sorted(path for suffix in suffixes for path in files_with_suffix(root, suffix)):
        source = file_source(path, root)
        try:
            why = why_not(path)
        except ValueError as error:
            if path == root:
                raise
            why = str(error).removeprefix(str(path)).lstrip(":, ")
        if why is None:
            sources.append(source)
        else:
            passed_over.append((source.file, why))
    return Found(sources, passed_over)


def identity(source: Source, facts: Facts) -> dict[str, Any]:
    """Return the arguments of `Recording` that say what was recorded.

    Without a stated subject, every session counts as a subject of its own: the planes of a session stay together.
    """
    session = facts.session or facts.recording or source.session
    return {
        "recording_id": facts.recording or source.recording,
        "subject_id": facts.subject or session,
        "session_id": session,
        "field": source.field if facts.field is None else facts.field,
        "indicator": facts.indicator,
        "brain_area": facts.brain_area,
        "labels": dict(facts.labels),
    }


def origin(
    source: Source,
    facts: Facts,
    format: str,
    *,
    rate_from: str,
    read: Iterable[np.ndarray | None],
    notes: Mapping[str, bool],
    **more: Any,
) -> dict[str, Any]:
    """Return the `source` of a recording, which stands in the manifest of a build.

    Args:
        source: The file.
        facts: What is stated about it.
        format: The reader.
        rate_from: Where the sampling rate is from, if it is not stated.
        read: The arrays whose digest it tells.
        notes: Sentences that the summary of an import says, and whether each holds.
        **more: What this format has beside that.
    """
    return {
        "file": source.file,
        "format": format,
        **more,
        "sampling_rate_from": "stated" if facts.sampling_rate else rate_from,
        "um_per_pixel": facts.um_per_pixel,
        "sha256": digest(*read),
        "notes": [note for note, holds in notes.items() if holds],
    }


def digest(*arrays: np.ndarray | None) -> str:
    """Return the sha256 of arrays, their shapes and types: the same numbers in another container agree."""
    sha = hashlib.sha256()
    for array in (a for a in arrays if a is not None):
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def missing_rate(file: str, got: str) -> ValueError:
    """Return the error for a file without a usable frame rate."""
    return ValueError(
        f"{file}: expected a sampling rate in Hz, got {got}; pass --sampling-rate or a sampling_rate column in "
        "--metadata"
    )


def checked_rate(rate: float | None, file: str, without: str) -> float:
    """Return the sampling rate in Hz; raise ValueError, with what was there instead, where it is none."""
    if rate is None or not 0 < rate < np.inf:
        raise missing_rate(file, without if rate is None else f"{rate:g}")
    return rate


def checked_trace_kind(stated: str | None, inside: str | None, file: str) -> str:
    """Return what the traces are, from the flag or the file; raise ValueError if neither says or they disagree."""
    if inside and stated and inside != stated:
        raise ValueError(f"{file}: expected --trace-kind as in the file, {inside!r}, got {stated!r}; leave it out")
    if (inside or stated) not in TRACE_KINDS:
        got = repr(inside or stated) if inside or stated else "a file that does not say"
        raise ValueError(
            f"{file}: expected to know what the traces are, got {got}; pass --trace-kind {TRACE_KINDS_LISTED}"
        )
    return inside or stated


def check_neuropil_coefficient(coefficient: float) -> None:
    """Raise ValueError unless the share of the neuropil that is subtracted is one."""
    if not 0 <= coefficient <= 1:
        raise ValueError(f"--neuropil-coefficient: expected a number from 0 to 1, got {coefficient}")


def chosen_trace_kind(stated: str | None, known: Iterable[str], program: str) -> str:
    """Return which of the traces that a program stores to take: the first kind unless another is stated."""
    known = list(known)
    if stated not in (None, *known):
        raise ValueError(f"--trace-kind: expected {', '.join(known)} for {program}, got {stated!r}")
    return stated or known[0]


def as_float32(values: np.ndarray) -> np.ndarray:
    """Return numbers as float32; what is beyond that becomes infinite, which the checks of recordings name."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def scaled_centroids(
    centroids: np.ndarray | None, unit: str | None, um_per_pixel: float | None
) -> tuple[np.ndarray | None, str | None]:
    """Return positions (N, 2) as float32 and their unit: µm where they are in pixels of known size, else unchanged."""
    if centroids is None:
        return None, None
    with np.errstate(over="ignore"):
        if unit == "px" and um_per_pixel:
            centroids, unit = np.asarray(centroids, dtype=np.float64) * um_per_pixel, "um"
        return as_float32(centroids), unit
