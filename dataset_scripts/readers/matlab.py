"""Read MATLAB files of any version: v4 to 7.2 through SciPy, 7.3, which is HDF5, through h5py.

What a variable becomes is the same for all of them. Numbers keep MATLAB's dimensions; those of three dimensions are a
`Stack`. Sparse matrices are SciPy's, by columns. Text is str. A structure is a mapping by field, which reads no more
than it is asked for; cells and arrays of structures are lists. An object of a class is an `Opaque`.
"""

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io
import scipy.sparse
from scipy.io.matlab import MatlabFunction, MatlabObject, MatlabOpaque

from .hdf5 import child, holds_numbers, open_hdf5, plain_errors, read_blocks, read_numbers
from .source import cannot_read
from .sparse import checked_columns

_STRUCT, _OLD_OBJECT, _OPAQUE = 2, 3, 17
_HEADER_BYTES = 64 * 2**10
_DEEPEST = 8


class Variable(NamedTuple):
    """What a file says of a variable without reading it: its fields if it is a structure, its class if an object."""

    fields: frozenset[str] = frozenset()
    class_name: str | None = None


class Opaque(NamedTuple):
    """An object of a MATLAB class; only MATLAB itself, with the code of the class, knows what is in it."""

    class_name: str


class Stack(NamedTuple):
    """Numbers of three dimensions: their shape, and the slices along the third, which are read one by one, once."""

    shape: tuple[int, ...]
    slices: Iterator[np.ndarray]


def variables_in_matlab(path: Path) -> dict[str, Variable]:
    """List the variables of a MATLAB file of any version by name; little of it is read.

    Raises:
        ValueError: If the file is damaged.
    """
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file, plain_errors(path):
            return {name: _described(item) for name, item in _members(file).items()}
    if _byte_order(path) is None:
        return {name: Variable() for name, *_ in _guarded(path, lambda: scipy.io.whosmat(str(path)))}
    return dict(_guarded(path, lambda: list(_headers(path))))


@contextlib.contextmanager
def open_matlab(path: Path) -> Iterator[Mapping[str, Any]]:
    """Open a MATLAB file of any version as a mapping from the names of its variables to what they hold.

    Raises:
        ValueError: If the file is damaged, now or when a variable is read.
    """
    if h5py.is_hdf5(path):
        with open_hdf5(path) as file:
            with plain_errors(path):
                found = _members(file)
            yield Lazy(found, lambda name: _guarded(path, lambda: _value(found[name])))
    else:
        yield Lazy(variables_in_matlab(path), lambda name: _guarded(path, lambda: _loaded(path, name)))


class Lazy(Mapping):
    """A mapping that gets a value when it is asked for it."""

    def __init__(self, names: Iterable[str], get: Callable[[str], Any]):
        self._names, self._get = frozenset(names), get

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    # SciPy and h5py raise errors of many kinds on damaged files.
    except Exception as error:
        raise cannot_read(path, "a MATLAB file", error) from error


# Up to version 7.2: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf


def _loaded(path: Path, name: str) -> Any:
    return _plain(scipy.io.loadmat(str(path), variable_names=[name])[name])


def _plain(value: Any) -> Any:
    # SciPy has nothing at all for a structure without fields.
    if value is None:
        return {}
    if isinstance(value, MatlabOpaque | MatlabObject | MatlabFunction):
        return Opaque(_class_name(value))
    if scipy.sparse.issparse(value):
        return checked_columns(value.data, value.indices, value.indptr, value.shape)
    if value.dtype.names:
        structs = [{name: _plain(item[name]) for name in value.dtype.names} for item in value.ravel(order="F")]
        return structs[0] if value.size == 1 else structs
    if value.dtype == object:
        return [_plain(item) for item in value.ravel(order="F")]
    if value.dtype.kind == "U":
        return "".join(value.ravel())
    return value if value.ndim != 3 else Stack(value.shape, iter(np.moveaxis(value, 2, 0)))


def _class_name(value: Any) -> str:
    if isinstance(value, MatlabObject):
        return str(value.classname)
    return "function_handle" if isinstance(value, MatlabFunction) else bytes(value["s2"].item()).decode()


def _byte_order(path: Path) -> str | None:
    """Return the byte order of a version 5 to 7.2 file, None if it is none; version 4 has no such header."""
    with open(path, "rb") as file:
        return {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])


def _headers(path: Path) -> Iterator[tuple[str, Variable]]:
    """Walk over the variables; SciPy's own listing takes the end of a truncated file for the last one."""
    order, size, position = _byte_order(path), path.stat().st_size, 128
    with open(path, "rb") as file:
        while position < size:
            file.seek(position)
            kind, length = struct.unpack(f"{order}II", file.read(8))
            start, position = file.read(min(length, _HEADER_BYTES)), position + 8 + length
            if position > size:
                raise ValueError("it ends in the middle of a variable")
            # Compressed variables begin with the eight bytes that head others.
            start = zlib.decompressobj().decompress(start, _HEADER_BYTES)[8:] if kind == 15 else start
            name, variable = _header(start, order)
            if name:
                yield name, variable


def _header(start: bytes, order: str) -> tuple[str, Variable]:
    """Read name, class and fields from the bytes that a variable begins with."""
    elements = _elements(start, order)
    kind = struct.unpack(f"{order}I", next(elements)[:4])[0] & 0xFF
    if kind != _OPAQUE:
        next(elements)  # dimensions
    name = next(elements).decode()
    if kind == _OPAQUE:
        next(elements)  # "MCOS"
        return name, Variable(class_name=next(elements).decode())
    class_name = next(elements).decode() if kind == _OLD_OBJECT else None
    if kind != _STRUCT:
        return name, Variable(class_name=class_name)
    (length,) = struct.unpack(f"{order}I", next(elements))
    names = next(elements)
    return name, Variable(
        frozenset(names[i : i + length].split(b"\0")[0].decode() for i in range(0, len(names), length))
    )


def _elements(data: bytes, order: str) -> Iterator[bytes]:
    """Yield the contents of the elements that follow one another; up to four bytes stand in the tag itself."""
    position = 0
    while position + 8 <= len(data):
        kind, length = struct.unpack_from(f"{order}II", data, position)
        if kind >> 16:
            yield data[position + 4 : position + 4 + (kind >> 16)]
            position += 8
        else:
            yield data[position + 8 : position + 8 + length]
            position += 8 + -(-length // 8) * 8


# Version 7.3: HDF5 with dimensions the other way round. What MATLAB adds is in attributes.


def _members(group: h5py.Group) -> dict[str, h5py.Group | h5py.Dataset]:
    """Return what is in a group; MATLAB's own store of cells and objects (#refs#, #subsystem#) is no variable."""
    members = {name: child(group, name) for name in group if not name.startswith("#")}
    return {name: item for name, item in members.items() if isinstance(item, h5py.Group | h5py.Dataset)}


def _described(item: h5py.Group | h5py.Dataset) -> Variable:
    if "MATLAB_object_decode" in item.attrs:
        return Variable(class_name=_class(item))
    is_struct = isinstance(item, h5py.Group) and "MATLAB_sparse" not in item.attrs
    return Variable(frozenset(item)) if is_struct else Variable()


def _class(item: h5py.Group | h5py.Dataset) -> str:
    name = item.attrs.get("MATLAB_class", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _value(item: h5py.Group | h5py.Dataset, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"cells lie in cells more than {_DEEPEST} deep")
    if "MATLAB_object_decode" in item.attrs:
        return Opaque(_class(item))
    if isinstance(item, h5py.Group):
        return _sparse(item) if "MATLAB_sparse" in item.attrs else _structure(item, depth)
    if "MATLAB_empty" in item.attrs:
        return _empty(item)
    if item.dtype == h5py.ref_dtype:
        return [_value(item.file[ref], depth + 1) for ref in read_numbers(item).ravel()]
    if _class(item) == "char":
        return "".join(map(chr, read_numbers(item).T.ravel()))
    if not holds_numbers(item):
        raise ValueError(f"{item.name} holds {item.dtype}, not numbers")
    if item.ndim == 3:
        # Slices of the third dimension lie one after the other, each turned like every matrix.
        return Stack(item.shape[::-1], (image.T for block in read_blocks(item) for image in block))
    return read_numbers(item).T


def _empty(item: h5py.Dataset) -> Any:
    if _class(item) in ("cell", "struct"):
        return []
    return "" if _class(item) == "char" else np.zeros([0, 0])


def _structure(group: h5py.Group, depth: int) -> Mapping[str, Any] | list[Mapping[str, Any]]:
    """Read a structure, or an array of them: its fields are then references without a class of their own."""
    path = group.file.filename
    fields = _members(group)
    if not fields or not all(isinstance(field, h5py.Dataset) and _is_column(field) for field in fields.values()):
        return Lazy(fields, lambda name: _guarded(path, lambda: _value(fields[name], depth + 1)))
    columns = {name: read_numbers(field).ravel() for name, field in fields.items()}
    return [
        Lazy(columns, lambda name, i=i: _guarded(path, lambda: _value(group.file[columns[name][i]], depth + 1)))
        for i in range(min(map(len, columns.values())))
    ]


def _is_column(field: h5py.Dataset) -> bool:
    return field.dtype == h5py.ref_dtype and "MATLAB_class" not in field.attrs


def _sparse(group: h5py.Group) -> scipy.sparse.csc_array:
    members, nothing = _members(group), np.zeros(0, dtype=np.int64)
    # Without a single value, MATLAB leaves values and rows away.
    parts = [read_numbers(members[name]) if name in members else nothing for name in ("data", "ir", "jc")]
    return checked_columns(*parts, shape=(int(group.attrs["MATLAB_sparse"]), len(parts[2]) - 1))
