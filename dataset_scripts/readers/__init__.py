"""Readers: one per file format. To add one, write its `find` and `read` and name it in `READERS`."""

import os
from collections.abc import Iterable
from pathlib import Path

from .arrays import NPZ
from .caiman import CAIMAN
from .cnmfe import CNMFE
from .extract import EXTRACT
from .inscopix import INSCOPIX
from .minian import MINIAN
from .nwb import NWB
from .original_neurt import ORIGINAL_NEURT
from .source import Found, Reader
from .suite2p import SUITE2P
from .tables import CSV

READERS: dict[str, Reader] = {
    "suite2p": SUITE2P,
    "minian": MINIAN,
    "inscopix": INSCOPIX,
    "original-neurt": ORIGINAL_NEURT,
    "caiman": CAIMAN,
    "cnmfe": CNMFE,
    "extract": EXTRACT,
    "nwb": NWB,
    "npz": NPZ,
    "csv": CSV,
}
_PLAIN = ("npz", "csv")


def detect(path: Path, format: str = "auto", tables: Iterable[str | os.PathLike] = ()) -> tuple[str, Found]:
    """Find what can be read at or below a path.

    Args:
        path: A file or folder.
        format: A name in `READERS`, or "auto" for the one format that is there.
        tables: Files that are known to be no recordings, though they may lie there.

    Returns:
        The name of the format, and what its reader found.

    Raises:
        ValueError: If there is nothing to read, or files of several formats.
    """
    if not path.exists():
        raise ValueError(f"{path}: expected a file or folder to import, found nothing there; check the path")
    if format != "auto" and format not in READERS:
        raise ValueError(f"--format: expected auto, {', '.join(READERS)}, got {format!r}")
    # "." has no name to call a recording by.
    path = path.absolute()
    names = READERS if format == "auto" else [format]
    found = {name: READERS[name].find(path) for name in names}
    claimed = {file.resolve() for each in found.values() for file in each.claimed}
    claimed |= {Path(table).resolve() for table in tables}
    for name in found.keys() & set(_PLAIN):
        found[name] = _without(found[name], claimed, path if path.is_dir() else path.parent)
    readable = [name for name in found if found[name].sources]
    if len(readable) == 1:
        return readable[0], found[readable[0]]
    if readable:
        several = ", ".join(f"{name} ({len(found[name].sources)})" for name in readable)
        raise ValueError(f"{path}: expected files of one format, found {several}; choose one with --format")
    reasons = [f"{file}: {why}" for each in found.values() for file, why in each.passed_over]
    hint = f" ({reasons[0]})" if reasons else ""
    raise ValueError(f"{path}: expected recordings as {', '.join(names)}, found none{hint}")


def _without(found: Found, claimed: set[Path], folder: Path) -> Found:
    """Leave the files that are parts of a recording in another format, or tables about recordings."""
    sources = [source for source in found.sources if source.path.resolve() not in claimed]
    passed_over = [(file, why) for file, why in found.passed_over if (folder / file).resolve() not in claimed]
    return found._replace(sources=sources, passed_over=passed_over)
