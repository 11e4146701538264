"""Read HDF5 files of strangers: links out of the file are refused, sizes compared with the file's, errors one line."""

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .wording import cannot_read

_BLOCK_BYTES = 2**23
_MOST_BLOCK_BYTES = 2**26
_MOST_CHUNK_BYTES = 2**30
# Compact values lie in the header, and have no size of their own in a damaged one.
_UNCHECKED_BYTES = 2**16
# What deflate can make of a byte at most, see https://www.zlib.net/zlib_tech.html.
_MOST_COMPRESSION = 1032
_MOST_LINKS = 8
# A heap of texts of any length begins so, see the HDF5 file format specification, "Global Heap".
_HEAP, _HEAP_HEADER, _HEAP_OBJECT = b"GCOL\x01\x00\x00\x00", 16, 16
_MOST_SCANNED_BYTES = 2**30


class Refused(ValueError):
    """A file that was understood, and does not hold together. One line, whatever names the file is made of."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


@contextlib.contextmanager
def readable(where: str | os.PathLike) -> Iterator[None]:
    """Say in one line what broke, since h5py raises errors of many kinds on damaged files."""
    try:
        yield
    except Refused:
        raise
    except Exception as error:
        raise Refused(str(cannot_read(where, "an HDF5 file", error))) from error


def open_hdf5(path: str | os.PathLike, file: Any = None) -> h5py.File:
    """Open an HDF5 file for reading.

    Args:
        path: The file, or what to call `file` in messages.
        file: A file-like object to read from instead.

    Raises:
        ValueError: If it is truncated, no HDF5 file, or its heaps of texts are damaged.
    """
    with readable(path):
        if file is not None:
            return h5py.File(str(path), "r", driver="fileobj", fileobj=file)
        with h5py.File(path, "r") as opened:
            sizes = opened.id.get_create_plist().get_sizes()
        # Of larger files, most is data.
        if sizes == (8, 8) and Path(path).stat().st_size <= _MOST_SCANNED_BYTES:
            _check_heaps(path)
        return h5py.File(path, "r")


def _check_heaps(path: str | os.PathLike) -> None:
    """Refuse heaps with an object that takes no room: the HDF5 library (2.0) would go round in circles for ever."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        start = whole.find(_HEAP)
        while start >= 0:
            end = min(start + _whole_number(whole, start + 8), len(whole))
            position = start + _HEAP_HEADER
            while position + _HEAP_OBJECT <= end:
                size = _whole_number(whole, position + 8)
                # Object 0 is what is free; its size counts its own header, and no padding.
                named = any(whole[position : position + 2])
                size = _HEAP_OBJECT + size + -size % 8 if named else size
                if not _HEAP_OBJECT <= size <= end - position:
                    raise Refused(f"{path}: expected an HDF5 file, got one with a damaged heap; export it again")
                position += size
            start = whole.find(_HEAP, position)


def _whole_number(data: mmap.mmap, position: int) -> int:
    return int.from_bytes(data[position : position + 8], "little")


def place_of(found: h5py.Group | h5py.Dataset) -> str:
    """Return the file and the path in it, for messages."""
    return f"{found.file.filename}, {found.name}"


def member(group: h5py.Group, path: str, links: int = _MOST_LINKS) -> h5py.Group | h5py.Dataset | None:
    """Return what stands at a path below a group, through links within the file; None where nothing does.

    Raises:
        ValueError: If a link leads out of the file, which might be any file of whoever reads it, or in a circle.
    """
    found = group.file if path.startswith("/") else group
    for part in (part.encode() for part in path.split("/") if part not in ("", ".")):
        if not isinstance(found, h5py.Group) or not found.id.links.exists(part):
            return None
        kind = found.id.links.get_info(part).type
        if kind == h5py.h5l.TYPE_HARD:
            found = found[part]
        elif kind == h5py.h5l.TYPE_SOFT and links:
            found = member(found, found.id.links.get_val(part).decode(), links - 1)
        else:
            raise Refused(f"{place_of(found)}: expected links within the file, got one out of it or a circle: {path}")
    return found


def read_text(group: h5py.Group, path: str) -> str | None:
    """Return a text that stands below a group, for example `general/session_id`; None where there is none."""
    where = place_of(group)
    with readable(where):
        found = find_array(group, path, where)
        if found is None or found.shape != () or h5py.check_string_dtype(found.dtype) is None:
            return None
        return found.asstr()[()].strip() or None


def text_attribute(found: h5py.Group | h5py.Dataset, name: str) -> str | None:
    """Return an attribute that is a text; None where there is none, or it is something else."""
    value = found.attrs.get(name)
    value = value.decode() if isinstance(value, bytes) else value
    return value if isinstance(value, str) else None


def number_attribute(found: h5py.Dataset, name: str, default: float, where: str) -> float:
    """Return an attribute that is a finite number; raise ValueError if it is something else."""
    value = found.attrs.get(name, default)
    if np.shape(value) != () or not np.isfinite(float(value)):
        raise Refused(f"{where}: expected a finite number as {name}, got {value}")
    return float(value)


def find_array(group: h5py.Group, name: str, where: str) -> h5py.Dataset | None:
    """Return an array below a group with nothing of it read, None where there is none.

    Raises:
        ValueError: If it is a group, its values are in another file, or its chunks are larger than 1 GiB.
    """
    found = member(group, name)
    if found is None:
        return None
    if not isinstance(found, h5py.Dataset):
        raise Refused(f"{where}: expected an array as {name}, got a group")
    _require_inside(found, where)
    return found


def find_numbers(group: h5py.Group, name: str, where: str) -> h5py.Dataset:
    """Return an array of numbers as `find_array` does; raise ValueError where there is none."""
    found = find_array(group, name, where)
    if found is None:
        raise Refused(f"{where}: expected {name}, found none")
    if found.dtype.kind not in "biuf":
        raise Refused(f"{where}: expected numbers in {name}, got {found.dtype}")
    return found


def numbers_at(group: h5py.Group, path: str) -> h5py.Dataset | None:
    """Return the array of numbers at a path below a group; None where there is none, or something else.

    Raises:
        ValueError: If the file is damaged, or a link leads out of it.
    """
    with readable(group.file.filename):
        found = member(group, path)
        numeric = isinstance(found, h5py.Dataset) and found.shape is not None and found.dtype.kind in "biuf"
        return found if numeric else None


def read_array(group: h5py.Group, name: str, where: str) -> np.ndarray:
    """Read a small array of numbers or texts whole, texts as str; raise ValueError where there is none."""
    found = find_array(group, name, where)
    if found is None:
        raise Refused(f"{where}: expected {name}, found none")
    _require_stored(found, f"{where}/{name}")
    if h5py.check_string_dtype(found.dtype) is not None:
        return np.asarray(found.asstr()[()], dtype=object)
    if found.dtype.hasobject:
        raise Refused(f"{where}: expected numbers or texts in {name}, got something else")
    return np.asarray(found[()])


def read_whole(data: h5py.Dataset) -> np.ndarray:
    """Read an array whole, as it is stored.

    Raises:
        ValueError: If it is damaged, promises more than is stored, or its values are in another file.
    """
    with readable(place_of(data)):
        _require_stored(data, place_of(data))
        return data[()]


def read_blocks(data: h5py.Dataset) -> Iterator[np.ndarray]:
    """Read an array as `read_whole` does, but one block along its first axis after the other."""
    with readable(place_of(data)):
        _require_stored(data, place_of(data))
        every = list(row_blocks(data))
    for rows in every:
        with readable(place_of(data)):
            block = data[rows]
        yield block


def read_lines(
    data: h5py.Dataset, kept: np.ndarray, axis: int, where: str | None = None, scale: float = 1, offset: float = 0
) -> np.ndarray:
    """Read rows or columns, one block of whole chunks at a time, so that little but the result is in memory.

    Args:
        data: An array of two dimensions, or of one, which counts as a single column.
        kept: Which rows or columns, by their indices; K of them.
        axis: 0 for rows, 1 for columns.
        where: What to call the array in messages.
        scale: What values are multiplied by ...
        offset: ... and what is added then.

    Returns:
        float32 of shape (K, length of a row or column).

    Raises:
        ValueError: As `read_whole` does.
    """
    where = where or place_of(data)
    with readable(where), np.errstate(over="ignore", invalid="ignore"):
        _require_stored(data, where)
        lines = np.empty((len(kept), (*data.shape, 1)[1 - axis]), dtype=np.float32)
        for block in _blocks(data):
            hit = np.flatnonzero((kept >= block[axis].start) & (kept < block[axis].stop))
            if len(hit):
                values = data[block[: data.ndim]].reshape([each.stop - each.start for each in block])
                values = _scaled(values.take(kept[hit] - block[axis].start, axis), scale, offset)
                lines[hit, block[1 - axis]] = values.T if axis else values
    return lines


def _scaled(values: np.ndarray, scale: float, offset: float) -> np.ndarray:
    return values if (scale, offset) == (1, 0) else values.astype(np.float64) * scale + offset


def _blocks(data: h5py.Dataset) -> Iterator[tuple[slice, slice]]:
    """Yield slices of whole chunks over rows and columns: each chunk is read once, however the chunks lie."""
    num_rows, num_columns = (*data.shape, 1)[:2]
    rows, columns = (*data.chunks, 1)[:2] if data.chunks else (1, num_columns)
    columns = _as_many(columns, num_columns, _BLOCK_BYTES // (rows * data.dtype.itemsize))
    rows = _as_many(rows, num_rows, _BLOCK_BYTES // (columns * data.dtype.itemsize))
    for row in range(0, num_rows, rows):
        for column in range(0, num_columns, columns):
            yield slice(row, min(row + rows, num_rows)), slice(column, min(column + columns, num_columns))


def row_blocks(data: h5py.Dataset) -> Iterator[slice]:
    """Yield slices over the first axis, of whole rows and of whole chunks too, unless these are large."""
    row_bytes = max(1, math.prod(data.shape[1:]) * data.dtype.itemsize)
    rows = _as_many((data.chunks or (1,))[0], len(data), _BLOCK_BYTES // row_bytes)
    rows = max(1, min(rows, _MOST_BLOCK_BYTES // row_bytes))
    for start in range(0, len(data), rows):
        yield slice(start, min(start + rows, len(data)))


def _as_many(chunk: int, whole: int, room: int) -> int:
    """Return the length of as many whole chunks as there is room for, and one at least."""
    return max(1, min(whole, max(1, room // max(1, chunk)) * chunk))


def _require_inside(data: h5py.Dataset, where: str) -> None:
    """Refuse values that are in another file, and chunks that would take too much memory to unpack."""
    name = (data.name or "").rpartition("/")[2]
    if data.external or data.is_virtual:
        raise Refused(f"{where}: expected the values of {name} in the file, got a reference to another file")
    if data.chunks and math.prod(data.chunks) * data.dtype.itemsize > _MOST_CHUNK_BYTES:
        raise Refused(f"{where}: expected chunks of at most 1 GiB in {name}, got chunks of {data.chunks}")


def _require_stored(data: h5py.Dataset, where: str) -> None:
    """Refuse an array that the file is too small to hold, however well it may be compressed."""
    _require_inside(data, where)
    stored = min(data.id.get_storage_size(), data.file.id.get_filesize())
    compressed = data.id.get_create_plist().get_nfilters() > 0
    most = stored * (_MOST_COMPRESSION if compressed else 1)
    if math.prod(data.shape) * data.dtype.itemsize > max(most, _UNCHECKED_BYTES):
        raise Refused(f"{where}: expected values for shape {data.shape}, got {stored} bytes; the file is incomplete")
