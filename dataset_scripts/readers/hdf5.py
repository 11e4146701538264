"""Read parts of HDF5 files that may be truncated or lie about their sizes, with plain errors."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from .source import cannot_read

BLOCK_BYTES = 16 * 2**20
# The most that deflate packs, https://zlib.net/zlib_tech.html ("maximum compression factor").
_DEFLATE_RATIO = 1032
_SMALL_BYTES = 64 * 2**20


@contextlib.contextmanager
def plain_errors(path: str | Path) -> Iterator[None]:
    """Turn whatever the HDF5 library raises on damaged files into one plain line."""
    try:
        yield
    # h5py passes on errors of many kinds, RuntimeError and KeyError among them.
    except Exception as error:
        raise cannot_read(path, "an HDF5 file", error) from error


@contextlib.contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    Raises:
        ValueError: If it is no HDF5 file or is truncated.
    """
    with plain_errors(path):
        file = h5py.File(path, "r")
    with file:
        yield file


def child(parent: h5py.Group | h5py.Dataset | None, *names: str) -> h5py.Group | h5py.Dataset | None:
    """Follow names from a group down; None where one is missing or leads out of the file, as links may."""
    for name in names:
        if not isinstance(parent, h5py.Group):
            return None
        with plain_errors(parent.file.filename):
            linked = isinstance(parent.get(name, getlink=True), h5py.HardLink)
            parent = parent[name] if linked else None
    return parent


def holds_numbers(item: h5py.Group | h5py.Dataset | None) -> bool:
    """Whether this is a dataset of numbers; None, groups and texts are not."""
    if not isinstance(item, h5py.Dataset):
        return False
    with plain_errors(item.file.filename):
        return item.dtype.kind in "biuf" and item.shape is not None


def read_numbers(dataset: h5py.Dataset) -> np.ndarray:
    """Read a whole dataset.

    Raises:
        ValueError: If it is damaged, or says to hold more than is stored.
    """
    with plain_errors(dataset.file.filename):
        _check_stored(dataset)
        return dataset[()]


def read_blocks(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Read a dataset in blocks of about 16 MiB along its first axis.

    Raises:
        ValueError: As `read_numbers` does.
    """
    with plain_errors(dataset.file.filename):
        _check_stored(dataset)
        rows = max(1, BLOCK_BYTES * dataset.shape[0] // max(dataset.nbytes, 1))
        if dataset.chunks:
            # Whole chunks, or each is unpacked again for every block that it reaches into.
            rows = math.ceil(rows / dataset.chunks[0]) * dataset.chunks[0]
    for start in range(0, dataset.shape[0], rows):
        with plain_errors(dataset.file.filename):
            block = dataset[start : start + rows]
        yield block


def read_rows(dataset: h5py.Dataset, kept: np.ndarray) -> np.ndarray:
    """Read rows of a dataset (N, T) as float32; `kept` holds their indices in increasing order.

    Raises:
        ValueError: As `read_numbers` does.
    """
    with plain_errors(dataset.file.filename):
        _check_stored(dataset)
    rows = np.empty((len(kept), dataset.shape[1]), dtype=np.float32)
    start = 0
    for block in read_blocks(dataset):
        first, last = np.searchsorted(kept, [start, start + len(block)])
        with np.errstate(over="ignore"):
            rows[first:last] = block[kept[first:last] - start]
        start += len(block)
    return rows


def _check_stored(dataset: h5py.Dataset) -> None:
    """Raise where a header says more than is stored, before anything of that size is allocated."""
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{dataset.name} lies in other files")
    stored = min(dataset.id.get_storage_size(), dataset.file.id.get_filesize())
    most = stored * (_DEFLATE_RATIO if dataset.chunks else 1)
    # Compact data lie in the header; they are at most 64 KiB and have no size of their own in a damaged one.
    if dataset.nbytes > max(most, 2**16) or (dataset.nbytes > _SMALL_BYTES and _has_holes(dataset)):
        raise ValueError(f"{dataset.name} says to hold {dataset.nbytes} bytes, {stored} are stored")


def _has_holes(dataset: h5py.Dataset) -> bool:
    """Whether chunks were never written; they would be made up as zeros."""
    if not dataset.chunks:
        return False
    chunks = math.prod(math.ceil(n / c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
    return dataset.id.get_num_chunks() < chunks
