"""MATLAB files for tests: up to version 7.2 by SciPy, 7.3 by hand after what `save -v7.3` leaves in HDF5."""

import h5py
import numpy as np
import scipy.io
import scipy.sparse
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers.suite2p import find_suite2p, read_plane

VERSIONS = ("7", "7.3")


class StructArray(list):
    """Structures with the same fields; a plain list is a cell array."""


def read_suite2p(path, facts=None, **options):
    """Yield the recordings of suite2p's folders and MATLAB files at or below a path."""
    for source in find_suite2p(path.absolute()).sources:
        yield from read_plane(source, facts or Facts(), **options)


def write_matlab(path, variables, version="7"):
    """Write variables: arrays of two or three dimensions, sparse matrices, str, dict (structures), lists (cells)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if version == "7":
        scipy.io.savemat(path, {name: _for_scipy(value) for name, value in variables.items()}, do_compression=True)
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            _write(file, name, value)
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with open(path, "r+b") as file:
        file.write(text)
    return path


def write_object(path, name, class_name):
    """Write what a handle object leaves in a file of version 7.3: numbers that mean nothing without #subsystem#."""
    with h5py.File(path, "w", userblock_size=512) as file:
        item = file.create_dataset(name, data=np.array([[3707764736, 2, 1, 1, 1, 1]], dtype=np.uint32))
        item.attrs["MATLAB_class"] = np.bytes_(class_name)
        item.attrs["MATLAB_object_decode"] = np.int32(3)
        file.create_group("#subsystem#")
    return path


def _for_scipy(value):
    if isinstance(value, StructArray):
        array = np.empty((1, len(value)), dtype=[(name, object) for name in value[0]])
        for i, struct in enumerate(value):
            for name, field in struct.items():
                array[0, i][name] = _for_scipy(field)
        return array
    if isinstance(value, dict):
        return {name: _for_scipy(field) for name, field in value.items()}
    if isinstance(value, list):
        cells = np.empty((1, len(value)), dtype=object)
        for i, item in enumerate(value):
            cells[0, i] = _for_scipy(item)
        return cells
    return value


def _write(parent, name, value):
    if isinstance(value, StructArray):
        group = _classed(parent.create_group(name), "struct")
        for field in value[0]:
            group[field] = _references(parent.file, [struct[field] for struct in value])
    elif isinstance(value, dict):
        group = _classed(parent.create_group(name), "struct")
        for field, item in value.items():
            _write(group, field, item)
    elif isinstance(value, list):
        parent[name] = _references(parent.file, value)
        _classed(parent[name], "cell")
    elif isinstance(value, str):
        parent[name] = np.array([[ord(letter)] for letter in value], dtype=np.uint16)
        _classed(parent[name], "char")
    elif scipy.sparse.issparse(value):
        _write_sparse(parent, name, value.tocsc())
    else:
        _write_numbers(parent, name, np.atleast_2d(value))


def _write_numbers(parent, name, array):
    if array.size:
        packed = {"chunks": True, "compression": "gzip"} if array.size > 64 else {}
        item = parent.create_dataset(name, data=array.T, **packed)
    else:
        item = parent.create_dataset(name, data=np.array(array.shape, dtype=np.uint64))
        item.attrs["MATLAB_empty"] = np.uint8(1)
    _classed(item, {"float64": "double", "float32": "single", "bool": "logical"}.get(str(array.dtype), "int32"))


def _write_sparse(parent, name, matrix):
    group = _classed(parent.create_group(name), "double")
    group.attrs["MATLAB_sparse"] = np.uint64(matrix.shape[0])
    group["jc"] = matrix.indptr.astype(np.uint64)
    if matrix.nnz:
        group["ir"], group["data"] = matrix.indices.astype(np.uint64), matrix.data


def _references(file, values):
    store = file.require_group("#refs#")
    references = []
    for value in values:
        name = f"r{len(store)}"
        _write(store, name, value)
        references.append([store[name].ref])
    return np.array(references, dtype=h5py.ref_dtype)


def _classed(item, name):
    item.attrs["MATLAB_class"] = np.bytes_(name)
    return item
