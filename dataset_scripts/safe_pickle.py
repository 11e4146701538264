"""Read NumPy files of Python objects, which are pickles, without running what they ask to be run.

suite2p writes `stat.npy` (an array of dictionaries) and `ops.npy` (a dictionary in an array without dimensions) this
way. A pickle is a list of instructions: it may name any function to be called, and set the state of any object. Python
does not follow it here. `pickletools` lists the instructions, a small machine of its own follows those that make
numbers, texts, plain containers, arrays, dates and paths, and the first of any other kind ends the reading. Functions
that a pickle names are never called: what `numpy.dtype` or `datetime` would make is made here, of checked values.

What is read takes memory in proportion to the file. Arrays cannot be written to: they show the bytes that were read.
"""

import codecs
import datetime
import functools
import math
import os
import pathlib
import pickletools
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


def load_object_array(path: str | os.PathLike) -> np.ndarray:
    """Load a `.npy` file, one that holds Python objects included.

    Args:
        path: A file written by `numpy.save`.

    Returns:
        The array; for a dictionary saved as such, an array of shape () whose `item()` is the dictionary.

    Raises:
        ValueError: If the file is truncated or no `.npy` file, or its pickle asks for anything that is not known.
    """
    with open(path, "rb") as file:
        try:
            shape, dtype = _read_header(file)
            if not dtype.hasobject:
                file.seek(0)
                return np.load(file, allow_pickle=False)
            array = _Machine().run(file.read())
        except RefusedPickle as error:
            raise ValueError(f"{path}: {error}") from None
        # A damaged pickle can fail anywhere in the rebuilding, with any kind of error.
        except Exception as error:
            reason = f"{error!r:.200}"
            raise ValueError(f"{path}: expected a whole .npy file, got one that cannot be read ({reason})") from error
    if not isinstance(array, np.ndarray) or (array.shape, array.dtype) != (shape, dtype):
        raise ValueError(f"{path}: expected an array of shape {shape} as its header says, got another object")
    return array


class RefusedPickle(ValueError):
    """A pickle asks for something that reading data does not need, or that its parts do not bear out."""


def _read_header(file) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


class _Name(NamedTuple):
    """A function or class that a pickle names: a mere name, nothing that could be called."""

    module: str
    name: str


class _Unbuilt:
    """An array or data type that waits for its state; `value` is what it became."""

    def __init__(self, build: Callable[..., Any]):
        self.build = build
        self.value: Any = None


_NDARRAY = _Name("numpy", "ndarray")
_TYPE_CODE = re.compile(r"b1|[iu][1248]|f[248]|f16|c(?:8|16|32)|[SU]\d{1,9}|O8")


def _unbuilt_dtype(code: str, align: bool, copy: bool) -> _Unbuilt:
    if not _TYPE_CODE.fullmatch(code):
        raise RefusedPickle(f"expected plain numbers and texts in its pickle, got the type {code!r:.40}")

    def build(version, byte_order, subarray, names, fields, size, *_):
        # Size and fields of a type are for its code to say: a forged state could set them outside the data.
        dtype = np.dtype(code)
        if (subarray, names, fields) != (None, None, None) or size not in (-1, dtype.itemsize):
            raise RefusedPickle(f"expected the type {code} in its pickle, got fields or another size with it")
        return dtype.newbyteorder(byte_order) if byte_order in ("<", ">") else dtype

    return _Unbuilt(build)


def _unbuilt_array(kind: _Name, *_) -> _Unbuilt:
    if kind != _NDARRAY:
        raise RefusedPickle("expected plain arrays in its pickle, got another kind")

    def build(version, shape, dtype, is_fortran, raw):
        return _array(raw, dtype, shape, "F" if is_fortran else "C")

    return _Unbuilt(build)


def _array(raw: bytes | list, dtype: np.dtype, shape: tuple, order: str = "C", axes: Sequence[int] = ()) -> np.ndarray:
    """Make an array of its bytes, or of its items where it holds objects: as many as it has place for."""
    fits = isinstance(dtype, np.dtype) and isinstance(shape, tuple) and len(shape) <= 32
    fits = fits and all(type(size) is int and size >= 0 for size in shape)
    fits = fits and isinstance(raw, list if dtype.hasobject else bytes | bytearray)
    # Values of no bytes are empty texts; an array of any number of them would fit no bytes at all.
    fits = fits and (dtype.itemsize > 0 or shape == ())
    if not fits or len(raw) != math.prod(shape) * (1 if dtype.hasobject else dtype.itemsize):
        raise RefusedPickle("expected as many values in each of its arrays as the array's shape says, got others")
    if dtype.hasobject:
        return _object_array(raw).reshape(shape, order=order)
    if order == "K":
        return np.ndarray(shape, dtype, raw).transpose(axes)
    return np.ndarray(shape, dtype, raw, order=order)


def _object_array(items: list) -> np.ndarray:
    if any(isinstance(item, np.ndarray) and item.dtype.hasobject for item in items):
        # NumPy frees such arrays by recursion without a limit, which a long chain of them turns into a crash.
        raise RefusedPickle("expected arrays of objects that are no such arrays themselves, got one in another")
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array


def _scalar(dtype: np.dtype, raw: bytes) -> np.generic:
    if dtype.hasobject:
        raise RefusedPickle("expected numbers and texts as NumPy's scalars in its pickle, got an object")
    return _array(raw, dtype, ())[()]


def _bytes_of(text: str, encoding: str) -> bytes:
    # Protocols 0 to 2 have no bytes and spell them as Latin-1 text.
    return codecs.latin_1_encode(text)[0] if encoding == "latin1" else text.encode("ascii")


def _set_of(items: list = ()) -> set:
    return set(map(_key, items))


def _datetime(packed: bytes, zone: datetime.timezone | None = None) -> datetime.datetime:
    # datetime takes its bytes unchecked, a 32nd day and a 25th hour included. The top bit of the month is the fold.
    year, month, day, hour, minute, second, microsecond = struct.unpack(">H5B3s", packed)
    fold, month = divmod(month, 128)
    microsecond = int.from_bytes(microsecond, "big")
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _path(kind: type[pathlib.PurePath], *parts: str) -> pathlib.PurePath:
    # Not of other paths, which would double in length with every few instructions.
    if not all(isinstance(part, str) for part in parts):
        raise RefusedPickle("expected paths of texts in its pickle, got one of something else")
    return kind(*parts)


def _key(key: Any) -> Any:
    """Return what can be a key of a dictionary; a tuple cannot: Python crashes on the hash of one nested deeply."""
    if not isinstance(key, str | bytes | int | float | np.generic | None):
        raise RefusedPickle(f"expected texts and numbers as keys and in sets, got {type(key).__name__}")
    return key


_BUILDERS: dict[_Name, Callable[..., Any] | None] = {
    _NDARRAY: None,
    _Name("numpy", "dtype"): _unbuilt_dtype,
    _Name("_codecs", "encode"): _bytes_of,
    _Name("builtins", "bytes"): lambda: b"",
    _Name("builtins", "set"): _set_of,
    _Name("builtins", "frozenset"): lambda *items: frozenset(_set_of(*items)),
    _Name("collections", "OrderedDict"): lambda: {},
    # suite2p writes the date of processing and, where the user gave paths as such, paths.
    _Name("datetime", "datetime"): _datetime,
    _Name("datetime", "timezone"): datetime.timezone,
    _Name("datetime", "timedelta"): datetime.timedelta,
}
for _module in ("numpy.core", "numpy._core"):
    _BUILDERS[_Name(f"{_module}.multiarray", "_reconstruct")] = _unbuilt_array
    _BUILDERS[_Name(f"{_module}.multiarray", "scalar")] = _scalar
    _BUILDERS[_Name(f"{_module}.numeric", "_frombuffer")] = _array
for _module in ("pathlib", "pathlib._local"):
    # As pure paths, because the real ones exist on their own system only.
    for _class in ("PosixPath", "PurePosixPath"):
        _BUILDERS[_Name(_module, _class)] = functools.partial(_path, pathlib.PurePosixPath)
    for _class in ("WindowsPath", "PureWindowsPath"):
        _BUILDERS[_Name(_module, _class)] = functools.partial(_path, pathlib.PureWindowsPath)

# How often the whole file may go into what is built: texts become bytes, and bytes an array.
_MOST_USES = 4


class _Machine:
    """Follows the instructions of a pickle; see `pickletools` for what each of them means."""

    def __init__(self):
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.allowance = 0

    def run(self, pickled: bytes) -> Any:
        """Return what the pickle holds; raise RefusedPickle on any instruction that is not in `_STEPS`."""
        self.allowance = _MOST_USES * len(pickled)
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name not in _STEPS:
                raise RefusedPickle(f"expected a pickle of data alone, got one with the instruction {opcode.name}")
            _STEPS[opcode.name](self, argument)
        return self.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Unbuilt):
            raise RefusedPickle("expected each array and type of its pickle to be complete, got one without content")
        return value

    def pop_items(self, count: int | None = None) -> list[Any]:
        """Take so many values from the stack, or all down to the last mark, the lowest first."""
        count = len(self.stack) - self.marks.pop() if count is None else count
        return [self.pop() for _ in range(count)][::-1]

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise RefusedPickle(f"expected a {kind.__name__} to add to, got a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def extend_list(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def extend_set(self, items: list[Any]) -> None:
        self.top(set).update(_set_of(items))

    def extend_dict(self, items: list[Any]) -> None:
        self.top(dict).update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def new_dict(self, items: list[Any]) -> None:
        self.push({})
        self.extend_dict(items)

    def name(self, module: str, name: str) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedPickle("expected texts as the names in its pickle, got something else")
        # builtins was called __builtin__ by Python 2, and by protocols 0 to 2 still.
        named = _Name("builtins" if module == "__builtin__" else module, name)
        if named not in _BUILDERS:
            asked = f"{module}.{name}"
            raise RefusedPickle(
                f"expected a pickle of arrays, numbers and plain containers, got one that asks for {asked!r:.80}; "
                "it is refused because loading it could run anything: do not open it, ask where it comes from"
            )
        self.push(named)

    def get(self, index: int) -> None:
        value = self.memo[index]
        if isinstance(value, _Unbuilt):
            value = value if value.value is None else value.value
        self.push(value)

    def reduce(self) -> None:
        """Make what a function would have returned, where it is one that is known."""
        arguments, function = self.pop(), self.pop()
        builder = _BUILDERS[function] if isinstance(function, _Name) else None
        if builder is None:
            raise RefusedPickle("expected its pickle to ask for functions that are known, got something else")
        self.spend(arguments)
        self.push(builder(*arguments))

    def build(self) -> None:
        """Give an array or data type its state; nothing else has one."""
        state, unbuilt = self.pop(), self.stack.pop()
        if not isinstance(unbuilt, _Unbuilt):
            raise RefusedPickle(f"expected a state for an array or type only, got one for a {type(unbuilt).__name__}")
        self.spend(state)
        unbuilt.value = unbuilt.build(*state)
        self.push(unbuilt.value)

    def spend(self, parts: Sequence[Any]) -> None:
        """Refuse a small pickle that builds large things from one part again and again."""
        self.allowance -= sum(len(part) for part in parts if isinstance(part, str | bytes | bytearray | list))
        if self.allowance < 0:
            raise RefusedPickle("expected a pickle that fills memory once, got one that uses its parts over and over")


# What the instructions do, by their names in `pickletools`; `m` is the machine and `x` the instruction's argument.
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, x: None,
    "FRAME": lambda m, x: None,
    "STOP": lambda m, x: None,
    "NONE": lambda m, x: m.push(None),
    "NEWTRUE": lambda m, x: m.push(True),
    "NEWFALSE": lambda m, x: m.push(False),
    "EMPTY_LIST": lambda m, x: m.push([]),
    "EMPTY_DICT": lambda m, x: m.push({}),
    "EMPTY_SET": lambda m, x: m.push(set()),
    "EMPTY_TUPLE": lambda m, x: m.push(()),
    "MARK": lambda m, x: m.marks.append(len(m.stack)),
    "POP": lambda m, x: m.pop(),
    "LIST": lambda m, x: m.push(m.pop_items()),
    "TUPLE": lambda m, x: m.push(tuple(m.pop_items())),
    "TUPLE1": lambda m, x: m.push(tuple(m.pop_items(1))),
    "TUPLE2": lambda m, x: m.push(tuple(m.pop_items(2))),
    "TUPLE3": lambda m, x: m.push(tuple(m.pop_items(3))),
    "FROZENSET": lambda m, x: m.push(frozenset(_set_of(m.pop_items()))),
    "APPEND": lambda m, x: m.extend_list(m.pop_items(1)),
    "APPENDS": lambda m, x: m.extend_list(m.pop_items()),
    "ADDITEMS": lambda m, x: m.extend_set(m.pop_items()),
    "DICT": lambda m, x: m.new_dict(m.pop_items()),
    "SETITEM": lambda m, x: m.extend_dict(m.pop_items(2)),
    "SETITEMS": lambda m, x: m.extend_dict(m.pop_items()),
    "GLOBAL": lambda m, x: m.name(*x.split(" ", 1)),
    "STACK_GLOBAL": lambda m, x: m.name(*m.pop_items(2)),
    "REDUCE": lambda m, x: m.reduce(),
    "BUILD": lambda m, x: m.build(),
    "MEMOIZE": lambda m, x: m.memo.__setitem__(len(m.memo), m.stack[-1]),
}
_NUMBERS = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
_TEXTS = ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8")
for _opcode in (*_NUMBERS, *_TEXTS, *_BYTES):
    _STEPS[_opcode] = _Machine.push
for _opcode in ("PUT", "BINPUT", "LONG_BINPUT"):
    _STEPS[_opcode] = lambda m, x: m.memo.__setitem__(x, m.stack[-1])
for _opcode in ("GET", "BINGET", "LONG_BINGET"):
    _STEPS[_opcode] = _Machine.get
