"""Windows whose channels lie on disk, memory-mapped, for builds larger than memory.

They are those of `WindowDataset` in every bit, with the same indices, so that a run goes on exactly, and several
processes share it, as if all were in memory; only pages that are read are. A stream (`window_streams`) needs no disk,
but has no random access, on which the order of an epoch and its exact resumption rest.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..processing_neurt import NeurtProcessor
from ..writing_aside import file_aside
from .recording import Recording
from .windows import RecordingWindows, WindowDataset


class StoredWindowDataset(WindowDataset):
    """A `WindowDataset` that keeps channels in files: 20 bytes on disk, none in memory, for each neuron and frame.

    One recording is in memory while it is cut.

    Args:
        recordings: As for `WindowDataset`; read one after the other if they are an iterator.
        processor: Cuts the windows.
        folder: Where the files lie, or will; other runs on the same recordings find them there.
        **options: Further arguments of `WindowDataset`.
    """

    def __init__(self, recordings: Iterable[Recording], processor: NeurtProcessor, folder: Path, **options):
        self._folder = folder
        super().__init__(recordings, processor, **options)

    def _add(self, windows: RecordingWindows):
        super()._add(replace(windows, channels=on_disk(windows.channels, self._folder)))


@dataclass(frozen=True)
class StoredArray:
    """An array in a file that is opened anew for each row: no system lets thousands of files stay open.

    Args:
        path: A `.npy` file.
        shape: Of the array.
    """

    path: Path
    shape: tuple[int, ...]

    def __getitem__(self, row: int) -> np.ndarray:
        """One row, read-only and memory-mapped."""
        return np.load(self.path, mmap_mode="r")[row]


def on_disk(values: np.ndarray, folder: Path) -> StoredArray:
    """The same values, in a file.

    Args:
        values: An array.
        folder: Where a file named after a digest of the values lies, or is made; so it can never be out of date.
    """
    values = np.ascontiguousarray(values)
    digest = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
    digest.update(values.data)
    path = Path(folder) / f"{digest.hexdigest()}.npy"
    if not path.exists():
        with file_aside(path, replace=True) as aside:
            np.save(aside, values)
    return StoredArray(path, values.shape)
