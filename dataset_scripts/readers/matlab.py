"""Read MATLAB files of any version: 4 through SciPy, 5 to 7.2 here, 7.3, which is HDF5, through h5py."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
import scipy.sparse

from ..hdf5_file import open_hdf5, read_blocks, read_whole, readable
from .matlab5 import byte_order, list_variables, load_variable
from .matlab_values import Cells, Lazy, Opaque, Stack, Variable, guarded
from .sparse import checked_columns


def variables_in_matlab(path: Path) -> dict[str, Variable]:
    """List the variables of a MATLAB file of any version by name; little of it is read.

    Raises:
        ValueError: If the file is damaged.
    """
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file, readable(path):
            return {name: _described(item) for name, item in _members(file).items()}
    if byte_order(path) is None:
        return {name: Variable() for name, *_ in guarded(path, lambda: scipy.io.whosmat(str(path)))}
    return guarded(path, lambda: list_variables(path))


@contextlib.contextmanager
def open_matlab(path: Path) -> Iterator[Mapping[str, Any]]:
    """Open a MATLAB file of any version as a mapping from the names of its variables to what they hold.

    Raises:
        ValueError: If the file is damaged, now or when a variable is read.
    """
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            with readable(path):
                found = _members(file)
            yield Lazy(path, found, lambda name: _value(found[name]))
    else:
        load = _load_version_4 if byte_order(path) is None else load_variable
        yield Lazy(path, variables_in_matlab(path), lambda name: load(path, name))


def _load_version_4(path: Path, name: str) -> np.ndarray:
    return scipy.io.loadmat(str(path), variable_names=[name])[name]


# Version 7.3: HDF5 with dimensions the other way round. What MATLAB adds is in attributes.


def _members(group: h5py.Group) -> dict[str, h5py.Group | h5py.Dataset]:
    """Return what is in a group; MATLAB's own store of cells and objects (#refs#, #subsystem#) is no variable.

    Links are left, as MATLAB makes none: what they lead to stands in its own place, or in another file.
    """
    names = [name for name in group if not name.startswith("#")]
    members = {name: group[name] for name in names if isinstance(group.get(name, getlink=True), h5py.HardLink)}
    return {name: item for name, item in members.items() if isinstance(item, h5py.Group | h5py.Dataset)}


def _described(item: h5py.Group | h5py.Dataset) -> Variable:
    if "MATLAB_object_decode" in item.attrs:
        return Variable(class_name=_class(item))
    is_struct = isinstance(item, h5py.Group) and "MATLAB_sparse" not in item.attrs
    return Variable(frozenset(item)) if is_struct else Variable()


def _class(item: h5py.Group | h5py.Dataset) -> str:
    name = item.attrs.get("MATLAB_class", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _value(item: h5py.Group | h5py.Dataset) -> Any:
    if "MATLAB_object_decode" in item.attrs:
        return Opaque(_class(item))
    if isinstance(item, h5py.Group):
        return _sparse(item) if "MATLAB_sparse" in item.attrs else _structure(item)
    if "MATLAB_empty" in item.attrs:
        return _empty(item)
    if item.dtype == h5py.ref_dtype:
        references = read_whole(item).ravel()
        return Cells(item.file.filename, len(references), lambda i: _value(item.file[references[i]]))
    if _class(item) == "char":
        return "".join(map(chr, read_whole(item).T.ravel()))
    if item.dtype.kind not in "biuf":
        raise ValueError(f"{item.name} holds {item.dtype}, not numbers")
    if item.ndim == 3:
        # Slices of the third dimension lie one after the other, each turned like every matrix.
        return Stack(item.shape[::-1], (image.T for block in read_blocks(item) for image in block))
    return read_whole(item).T


def _empty(item: h5py.Dataset) -> Any:
    if _class(item) in ("cell", "struct"):
        return []
    return "" if _class(item) == "char" else np.zeros([0, 0])


def _structure(group: h5py.Group) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
    """Read a structure, or an array of them: its fields are then references without a class of their own."""
    path = group.file.filename
    fields = _members(group)
    if not fields or not all(isinstance(field, h5py.Dataset) and _is_column(field) for field in fields.values()):
        return Lazy(path, fields, lambda name: _value(fields[name]))
    columns = {name: read_whole(field).ravel() for name, field in fields.items()}

    def structure(i: int) -> Mapping[str, Any]:
        return Lazy(path, columns, lambda name: _value(group.file[columns[name][i]]))

    return Cells(path, min(map(len, columns.values())), structure)


def _is_column(field: h5py.Dataset) -> bool:
    return field.dtype == h5py.ref_dtype and "MATLAB_class" not in field.attrs


def _sparse(group: h5py.Group) -> scipy.sparse.csc_array:
    members, nothing = _members(group), np.zeros(0, dtype=np.int64)
    # Without a single value, MATLAB leaves values and rows away.
    parts = [read_whole(members[name]) if name in members else nothing for name in ("data", "ir", "jc")]
    return checked_columns(*parts, shape=(int(group.attrs["MATLAB_sparse"]), len(parts[2]) - 1))
