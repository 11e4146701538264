"""Read NumPy files of Python objects, which are pickles, without running what they ask to be run.

suite2p writes `stat.npy` (an array of dictionaries) and `ops.npy` (a dictionary in an array without dimensions) this
way. A pickle may name any function to be called on loading; here only those that rebuild arrays, numbers, dates, paths
and plain containers are known, and any other name ends the reading before anything of it is imported or called.
"""

import codecs
import collections
import datetime
import os
import pathlib
import pickle
from typing import Any

import numpy as np


def load_object_array(path: str | os.PathLike) -> np.ndarray:
    """Load a `.npy` file, one that holds Python objects included.

    Args:
        path: A file written by `numpy.save`.

    Returns:
        The array; for a dictionary saved as such, an array of shape () whose `item()` is the dictionary.

    Raises:
        ValueError: If the file is truncated or no `.npy` file, or its pickle names anything that is not on the list.
    """
    with open(path, "rb") as file:
        try:
            shape, dtype = _read_header(file)
            if not dtype.hasobject:
                file.seek(0)
                return np.load(file, allow_pickle=False)
            array = _PlainUnpickler(file).load()
        except RefusedPickle as error:
            raise ValueError(f"{path}: {error}") from None
        # A damaged pickle can fail anywhere in the rebuilding, with any kind of error.
        except Exception as error:
            raise ValueError(f"{path}: expected a whole .npy file, got one that cannot be read ({error!r})") from error
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise ValueError(f"{path}: expected an array of shape {shape} as its header says, got another object")
    return array


class RefusedPickle(ValueError):
    """A pickle names something that reading data does not need."""


def _read_header(file) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _dtype(*arguments: Any) -> np.dtype:
    # The state of a structured dtype gives byte offsets of its own, which a forged file could set outside the data.
    dtype = np.dtype(*arguments)
    if dtype.kind == "V":
        raise RefusedPickle("expected plain numbers and strings in its pickle, got a structured data type")
    return dtype


def _scalar(dtype: np.dtype, value: bytes) -> np.generic:
    return np.frombuffer(value, dtype=dtype, count=1)[0]


def _array_from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _bytes_of(text: str, encoding: str) -> bytes:
    # Protocols 0 to 2 have no bytes and spell them as Latin-1 text.
    return codecs.latin_1_encode(text)[0] if encoding == "latin1" else text.encode("ascii")


_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _bytes_of,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("builtins", "slice"): slice,
    ("builtins", "range"): range,
    ("builtins", "bytearray"): bytearray,
    ("collections", "OrderedDict"): collections.OrderedDict,
    # suite2p writes the date of processing and, where the user gave paths as such, paths.
    ("datetime", "datetime"): datetime.datetime,
    ("datetime", "timezone"): datetime.timezone,
    ("datetime", "timedelta"): datetime.timedelta,
}
for _module in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_module}.multiarray", "_reconstruct"] = _RECONSTRUCT
    _ADMITTED[f"{_module}.multiarray", "scalar"] = _scalar
    _ADMITTED[f"{_module}.numeric", "_frombuffer"] = _array_from_buffer
for _module in ("pathlib", "pathlib._local"):
    # As pure paths, because the real ones exist on their own system only.
    for _name in ("PosixPath", "PurePosixPath"):
        _ADMITTED[_module, _name] = pathlib.PurePosixPath
    for _name in ("WindowsPath", "PureWindowsPath"):
        _ADMITTED[_module, _name] = pathlib.PureWindowsPath


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # builtins was called __builtin__ by Python 2, whose names the unpickler hands over as they are.
        key = ("builtins" if module == "__builtin__" else module, name)
        if key not in _ADMITTED:
            raise RefusedPickle(
                f"expected a pickle of arrays, numbers and plain containers, got one that asks for {module}.{name}; "
                "it is refused because loading it could run anything: do not open it, ask where it comes from"
            )
        return _ADMITTED[key]
