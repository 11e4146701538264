"""Read MATLAB files with plain errors for those that cannot be read."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import scipy.io

from .source import cannot_read


def names_in_matlab(path: Path) -> set[str]:
    """Return the names of the variables in a MATLAB file of any version."""
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            return set(file)
    if _is_cut_short(path):
        raise cannot_read(path, "a MATLAB file", ValueError("it ends in the middle of a variable"))
    return {name for name, *_ in _guarded(scipy.io.whosmat, path)}


def load_matlab(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Load variables of a MATLAB file (up to version 7), structures as objects, without dimensions of length 1.

    Raises:
        ValueError: If the file is damaged or of version 7.3.
    """
    if h5py.is_hdf5(path):
        raise ValueError(f"{path}: expected a MATLAB file up to version 7, got version 7.3; save it with `-v7`")
    options = {"variable_names": list(names), "squeeze_me": True, "struct_as_record": False}
    found = _guarded(scipy.io.loadmat, path, **options)
    return {name: value for name, value in found.items() if not name.startswith("__")}


def _is_cut_short(path: Path) -> bool:
    """Walk over the variables of a version 5 to 7 file; SciPy's listing takes the end of the file for the last one."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        byte_order = {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])
        position = 128
        while byte_order and position < size:
            file.seek(position)
            tag = file.read(8)
            if len(tag) < 8:
                return True
            position += 8 + struct.unpack(f"{byte_order}II", tag)[1]
    return position > size


def _guarded(read, path: Path, **options: Any) -> Any:
    try:
        return read(str(path), **options)
    # SciPy raises errors of many kinds on damaged files.
    except Exception as error:
        raise cannot_read(path, "a MATLAB file", error) from error
