"""What the variables of MATLAB files become, whatever the version of the file.

Numbers keep MATLAB's dimensions; those of three dimensions are a `Stack`. Sparse matrices are SciPy's, by columns.
Text is str. A structure is a `Lazy` mapping by field; cells and arrays of structures are sequences. An object of a
class, and what is complex, is an `Opaque`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..hdf5_file import Refused
from ..wording import cannot_read


class Variable(NamedTuple):
    """What a file says of a variable without reading it: its fields if it is a structure, its class if an object."""

    fields: frozenset[str] = frozenset()
    class_name: str | None = None


class Opaque(NamedTuple):
    """What is not read: an object of a class, which only MATLAB with the code of the class can, or complex numbers."""

    class_name: str


class Stack(NamedTuple):
    """Numbers of three dimensions: their shape, and the slices along the third, which are read one by one, once."""

    shape: tuple[int, ...]
    slices: Iterator[np.ndarray]


class Lazy(Mapping):
    """A mapping that reads a value when it is asked for it, and raises ValueError where the file is damaged there."""

    def __init__(self, path: str | Path, names: Iterable[str], read: Callable[[str], Any]):
        self._path, self._names, self._read = path, frozenset(names), read

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return guarded(self._path, lambda: self._read(name))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)


class Cells(Sequence):
    """A list that reads an entry when it is asked for it, as a small file may repeat a large one without end."""

    def __init__(self, path: str | Path, length: int, read: Callable[[int], Any]):
        self._path, self._length, self._read = path, length, read

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return guarded(self._path, lambda: self._read(index))

    def __len__(self) -> int:
        return self._length


def guarded(path: str | Path, read: Callable[[], Any]) -> Any:
    """Call `read`; raise ValueError with one plain line for whatever it raises."""
    try:
        return read()
    except Refused:
        raise
    # Damaged files end in errors of many kinds.
    except Exception as error:
        raise cannot_read(path, "a MATLAB file", error) from error
