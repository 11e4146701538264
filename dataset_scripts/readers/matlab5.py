"""Read MATLAB files of version 5 to 7.2, after https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf.

SciPy reads them too, but its compiled code crashes on forged ones. Here every size is compared with the bytes that are
there before anything is made of it.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .matlab_values import Lazy, Opaque, Stack, Variable
from .sparse import checked_columns

# Kinds of elements (miINT8 ...) and classes of arrays (mxCELL_CLASS ...) as the format numbers them.
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_COMPRESSED, _UTF8 = 15, 16
_CELL, _STRUCT, _OLD_OBJECT, _CHAR, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_LOGICAL, _COMPLEX = 0x200, 0x800
_HEADER_BYTES = 64 * 2**10


def byte_order(path: Path) -> str | None:
    """Return "<" or ">" for a version 5 to 7.2 file, None if it is none; version 4 has no such header."""
    with open(path, "rb") as file:
        return {b"IM": "<", b"MI": ">"}.get(file.read(128)[126:])


def list_variables(path: Path) -> dict[str, Variable]:
    """Read names, classes and fields of the variables, which stand in the first bytes of each."""
    found = {}
    order = byte_order(path)
    with open(path, "rb") as file:
        for kind, length in _variables(file, order):
            start = file.read(min(length, _HEADER_BYTES))
            # Compressed variables begin with the eight bytes that head others.
            start = zlib.decompressobj().decompress(start, _HEADER_BYTES)[8:] if kind == _COMPRESSED else start
            name, variable = _header(start, order)
            found[name] = variable
    # The store of objects has no name.
    return {name: variable for name, variable in found.items() if name}


def load_variable(path: Path, name: str) -> Any:
    """Read one variable; raise errors of many kinds if it is damaged."""
    order = byte_order(path)
    with open(path, "rb") as file:
        for kind, length in _variables(file, order):
            data = file.read(length)
            start = zlib.decompressobj().decompress(data, _HEADER_BYTES)[8:] if kind == _COMPRESSED else data
            if _header(start[:_HEADER_BYTES], order)[0] == name:
                data = _unpacked(data, order) if kind == _COMPRESSED else data
                return _value(memoryview(data), order, path)
    raise ValueError(f"there is no variable {name}")


def _variables(file: BinaryIO, order: str) -> Iterator[tuple[int, int]]:
    """Walk over the variables, leaving the file where each begins; yield the kind and length in bytes."""
    size, position = file.seek(0, 2), 128
    while position < size:
        file.seek(position)
        kind, length = struct.unpack(f"{order}II", file.read(8))
        position += 8 + length
        if position > size:
            raise ValueError("it ends in the middle of a variable")
        yield kind, length


def _unpacked(data: bytes, order: str) -> bytes:
    unpacker = zlib.decompressobj()
    _, length = struct.unpack(f"{order}II", unpacker.decompress(data, 8))
    body = unpacker.decompress(unpacker.unconsumed_tail, length) if length else b""
    # The checksum comes after the last byte.
    unpacker.decompress(unpacker.unconsumed_tail, 1)
    if len(body) < length or not unpacker.eof:
        raise ValueError("a compressed variable is not as long as it says")
    return body


def _elements(data: bytes | memoryview, order: str) -> Iterator[tuple[int, bytes | memoryview]]:
    """Yield kind and content of the elements that follow one another; up to four bytes stand in the tag itself."""
    position = 0
    while position < len(data):
        kind, length = struct.unpack_from(f"{order}II", data, position)
        if kind >> 16:
            kind, length, start, position = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start, position = position + 8, position + 8 + -(-length // 8) * 8
        if start + length > len(data):
            raise ValueError("it ends in the middle of an element")
        yield kind, data[start : start + length]


def _contents(data: bytes | memoryview, order: str) -> Iterator[bytes | memoryview]:
    return (content for _, content in _elements(data, order))


def _header(start: bytes, order: str) -> tuple[str, Variable]:
    """Read name, class and fields from the bytes that a variable begins with."""
    contents = _contents(start, order)
    kind = _flags(next(contents), order) & 0xFF
    if kind != _OPAQUE:
        next(contents)  # dimensions
    name = bytes(next(contents)).decode()
    if kind == _OPAQUE:
        next(contents)  # "MCOS"
    if kind in (_OPAQUE, _OLD_OBJECT):
        return name, Variable(class_name=bytes(next(contents)).decode())
    return name, Variable(frozenset(_field_names(contents, order)) if kind == _STRUCT else frozenset())


def _flags(content: bytes | memoryview, order: str) -> int:
    return struct.unpack_from(f"{order}I", content)[0]


def _field_names(contents: Iterator[bytes | memoryview], order: str) -> list[str]:
    length, names = _flags(next(contents), order), bytes(next(contents))
    return [names[i : i + length].split(b"\0")[0].decode() for i in range(0, len(names), length)]


def _value(data: memoryview, order: str, path: Path) -> Any:
    """Read the content of an array element."""
    if not len(data):
        return np.zeros((0, 0))
    elements = _elements(data, order)
    contents = (content for _, content in elements)
    flags = _flags(next(contents), order)
    kind = flags & 0xFF
    if kind == _OPAQUE:
        return Opaque(_header(data, order)[1].class_name)
    shape = tuple(np.frombuffer(next(contents), f"{order}i4").tolist())
    next(contents)  # name
    if kind == _OLD_OBJECT:
        return Opaque(bytes(next(contents)).decode())
    if kind == _FUNCTION:
        return Opaque("function_handle")
    if kind == _CELL:
        return [_value(content, order, path) for content in contents]
    if kind == _STRUCT:
        return _structures(_field_names(contents, order), list(contents), order, path)
    if flags & _COMPLEX:
        return Opaque("complex")
    if kind == _SPARSE:
        rows, starts, values = (_numbers(*next(elements), order) for _ in range(3))
        return checked_columns(values, rows, starts, shape)
    if kind == _CHAR:
        return _text(*next(elements), shape, order)
    numbers = _numbers(*next(elements), order).astype("?" if flags & _LOGICAL else _CLASSES[kind], copy=False)
    return _shaped(numbers, shape)


def _structures(names: list[str], contents: list[memoryview], order: str, path: Path) -> Any:
    """Make mappings by field, of one structure after the other; a list of them unless there is exactly one."""
    if not names:
        return {}
    if len(contents) % len(names):
        raise ValueError("a structure has not all its fields")
    structs = [
        Lazy(path, names, lambda name, i=i: _value(contents[i + names.index(name)], order, path))
        for i in range(0, len(contents), len(names))
    ]
    return structs[0] if len(structs) == 1 else structs


def _numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    return np.frombuffer(content, order + _NUMBERS[kind])


def _text(kind: int, content: memoryview, shape: tuple[int, ...], order: str) -> str:
    if kind in _TEXTS:
        endings = {"<": "-le", ">": "-be"}
        text = bytes(content).decode(_TEXTS[kind] + ("" if kind == _UTF8 else endings[order]), errors="replace")
    else:
        text = "".join(map(chr, _numbers(kind, content, order)))
    # Columns are stored; rows are read.
    return text if math.prod(shape) != len(text) else "".join(np.reshape(list(text), shape, order="F").ravel())


def _shaped(numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | Stack:
    if math.prod(shape) != len(numbers):
        raise ValueError(f"{len(numbers)} numbers do not fill the dimensions {shape}")
    array = numbers.reshape(shape, order="F")
    return array if array.ndim != 3 else Stack(array.shape, iter(np.moveaxis(array, 2, 0)))
