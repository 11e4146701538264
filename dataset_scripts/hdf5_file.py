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

_MOST_CHUNK_BYTES = 2**30
UNCHECKED_BYTES = 2**28
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
        reason = str(error) or type(error).__name__
        raise Refused(
            f"{where}: expected an HDF5 file, got one that cannot be read, perhaps truncated ({reason}); "
            "copy or export it again"
        ) from error


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
        opened = h5py.File(path, "r")
        # Of larger files, most is data.
        if 0 < Path(path).stat().st_size <= _MOST_SCANNED_BYTES and opened.id.get_create_plist().get_sizes() == (8, 8):
            _check_heaps(path)
        return opened


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


def place_of(found: h5py.Group) -> str:
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
    if found.external or found.is_virtual:
        raise Refused(f"{where}: expected the values of {name} in the file, got a reference to another file")
    if found.chunks and math.prod(found.chunks) * found.dtype.itemsize > _MOST_CHUNK_BYTES:
        raise Refused(f"{where}: expected chunks of at most 1 GiB in {name}, got chunks of {found.chunks}")
    return found


def find_numbers(group: h5py.Group, name: str, where: str) -> h5py.Dataset:
    """Return an array of numbers as `find_array` does; raise ValueError where there is none."""
    found = find_array(group, name, where)
    if found is None:
        raise Refused(f"{where}: expected {name}, found none")
    if found.dtype.kind not in "biuf":
        raise Refused(f"{where}: expected numbers in {name}, got {found.dtype}")
    return found


def read_array(group: h5py.Group, name: str, where: str) -> np.ndarray:
    """Read a small array of numbers or texts whole, texts as str; raise ValueError where there is none."""
    found = find_array(group, name, where)
    if found is None:
        raise Refused(f"{where}: expected {name}, found none")
    require_stored(found, found.dtype.itemsize, f"{where}/{name}")
    if h5py.check_string_dtype(found.dtype) is not None:
        return np.asarray(found.asstr()[()], dtype=object)
    if found.dtype.hasobject:
        raise Refused(f"{where}: expected numbers or texts in {name}, got something else")
    return np.asarray(found[()])


def require_stored(data: h5py.Dataset, itemsize: int, where: str) -> None:
    """Refuse a large array that the file is too small to hold, however well it may be compressed.

    Args:
        data: The array.
        itemsize: Bytes of memory that each of its values will take.
        where: What to call it in the message.

    Raises:
        ValueError: If its header promises more than there can be.
    """
    promised = math.prod(data.shape) * itemsize
    if promised <= UNCHECKED_BYTES:
        return
    stored = min(data.id.get_storage_size(), data.file.id.get_filesize())
    compressed = data.id.get_create_plist().get_nfilters() > 0
    if promised > stored * itemsize / data.dtype.itemsize * (_MOST_COMPRESSION if compressed else 1):
        raise Refused(f"{where}: expected values for shape {data.shape}, got {stored} bytes; the file is incomplete")
