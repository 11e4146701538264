"""Windows of a build as data sets of the `datasets` library: cached on disk, or streamed from wherever the build is.

    windows = cached_windows("BUILD", processor, split="train")                # Arrow on disk, memory-mapped
    stream = stream_windows("hf://datasets/USER/BUILD", processor, seed=0)     # nothing is stored
    loader = DataLoader(stream, 32, collate_fn=MaskedSignalCollator(), num_workers=2)
    for epoch in range(20):
        stream.set_epoch(epoch)
        for batch in loader:
            ...

Both give what `WindowDataset` gives, but `window_index` is made of the recording's place in the manifest and the
window's place in the recording, so that neither order nor workers nor processes change the mask of a window.

Several processes: build the loader of each with `stream_windows(..., process_index=RANK, num_processes=WORLD_SIZE)`
and leave it out of `accelerator.prepare`, which would deal out again what is dealt out already. In each epoch every
process gets other recordings, and as many windows of them, in as many batches, as every other process.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from transformers.utils import logging

from ..processing_neurt import CHANNELS, MIN_FRAMES, MIN_NEURONS, NeurtProcessor
from ..writing_aside import file_aside
from .build_manifest import MANIFEST, label_values, parse_manifest
from .parquet_build import choose_files
from .parquet_rows import read_recording
from .recording import Recording
from .windows import NoWindows, RecordingWindows, cut_windows, no_windows
from .wording import count

logger = logging.get_logger(__name__)

# Windows of a recording have indices from its number in the manifest times this.
MOST_WINDOWS = 2**32
_ROWS_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True)
class BuildWindows:
    """Where windows come from, and how: the chosen recordings of a build and the settings.

    Args:
        build: A folder, or any address that fsspec opens.
        storage_options: What fsspec needs to open it.
        processor: Cuts the windows.
        files: Entries of the manifest.
        numbers: The place of each in the whole manifest.
        options: Of `cut_windows`.
    """

    build: str
    storage_options: Mapping[str, Any]
    processor: NeurtProcessor
    files: Sequence[Mapping[str, Any]]
    numbers: Sequence[int]
    options: Mapping[str, Any]

    def cut(self, index: int) -> RecordingWindows:
        """Read one of the files and compute its channels; raises as `cut_windows` and `read_recording`."""
        return cut_windows(self._read(self.files[index]), self.processor, **self.options)

    def _read(self, entry: Mapping[str, Any]) -> Recording:
        filesystem, root = url_to_fs(self.build, **self.storage_options)
        if isinstance(filesystem, LocalFileSystem):
            recording = read_recording(Path(root) / entry["path"], entry["source"])
        else:
            content = _fetch(self.build, entry["path"], self.storage_options)
            recording = read_recording(f"{self.build}/{entry['path']}", entry["source"], content)
        promised, found = (entry["neurons"], entry["frames"]), recording.traces.shape
        # How many windows a process takes was computed from the manifest.
        if found != promised:
            raise ValueError(
                f"{self.build}: expected {promised} (neurons, frames) in {entry['path']}, as the manifest says, got "
                f"{found}; build it again"
            )
        return recording

    def window(self, index: int, windows: RecordingWindows, row: int) -> dict[str, Any]:
        return {**windows[row], "window_index": self.numbers[index] * MOST_WINDOWS + row}

    def estimates(self) -> np.ndarray:
        """The number of windows of each file as far as the manifest tells, int64.

        Neurons that are dropped later are counted, and segments taken to be of one length.
        """
        return np.array([self._estimate(entry) for entry in self.files], dtype=np.int64)

    def _estimate(self, entry: Mapping[str, Any]) -> int:
        if self.why_none(entry):
            return 0
        alone = self.options["missing_neighbours"] == "mask"
        neurons = entry["neurons"] if alone else min(entry["neurons"], entry["neurons_with_positions"])
        segments = max(entry["segments"], 1)
        beyond_first = max(entry["frames"] // segments - self.processor.window_length, 0)
        return min(neurons * segments * (1 + -(-beyond_first // self.processor.window_stride)), MOST_WINDOWS)

    def why_none(self, entry: Mapping[str, Any]) -> str:
        """Why a recording cannot give windows, as far as the manifest tells; empty if it may."""
        unit = self.processor.radius_unit
        if entry["neurons"] < 1 or entry["neurons_with_positions"] < 0 or entry["frames"] < MIN_FRAMES:
            return f"expected neurons with at least {MIN_FRAMES} frames"
        if self.options["missing_neighbours"] == "error" and not entry["neighbour_channels"]:
            return f"expected at least {MIN_NEURONS} neurons with positions"
        if entry["neighbour_channels"] and unit not in ("quantile", entry["coordinate_unit"]):
            return f"expected positions in {unit}, the unit of neighbour_radius, got {entry['coordinate_unit']}"
        return ""


def _open(
    build: str | os.PathLike,
    processor: NeurtProcessor,
    split: str | None,
    subjects: Sequence[str],
    storage_options: Mapping[str, Any] | None = None,
    **options,
) -> BuildWindows:
    if options["missing_neighbours"] not in ("error", "mask"):
        raise ValueError(f'expected missing_neighbours "error" or "mask", got {options["missing_neighbours"]!r}')
    build, storage_options = os.fspath(build).rstrip("/"), dict(storage_options or {})
    manifest = parse_manifest(_fetch(build, MANIFEST, storage_options), build)
    chosen = choose_files(manifest, build, split, subjects)
    places = {entry["path"]: i for i, entry in enumerate(manifest["files"])}
    numbers = tuple(places[entry["path"]] for entry in chosen)
    options["label2id"] = _class_ids(manifest, options["label"], options["label2id"])
    return BuildWindows(build, storage_options, processor, tuple(chosen), numbers, options)


def _class_ids(
    manifest: Mapping[str, Any], label: str | None, label2id: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    """The class ids that are given, else those of the build's classes, else of the label's values in their order."""
    if label is None or label2id is not None:
        return label2id
    values = label_values(manifest["files"])
    if label not in values:
        raise ValueError(f"expected a label of the build ({', '.join(values) or 'it has none'}), got {label!r}")
    names = manifest["class_labels"].get(label, values[label])
    return {name: i for i, name in enumerate(names)}


def _fetch(build: str, path: str, storage_options: Mapping[str, Any]) -> bytes:
    # Looked up each time: a file system of the parent process is of no use in a worker.
    try:
        filesystem, root = url_to_fs(build, **storage_options)
        return filesystem.cat_file(f"{root.rstrip('/')}/{path}")
    except Exception as error:  # every file system has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{build}: expected a NEuRT build with a {path}, got none that can be read ({reason}); check the address"
        ) from error


def cached_windows(
    build: str | os.PathLike,
    processor: NeurtProcessor,
    *,
    split: str | None = None,
    subjects: Sequence[str] = (),
    label: str | None = None,
    label2id: Mapping[str, int] | None = None,
    missing_neighbours: str = "error",
    cache_dir: str | os.PathLike | None = None,
) -> datasets.Dataset:
    """All windows of a build as a map-style data set, memory-mapped from an Arrow file that is made once.

    The file's name is a digest of the recordings (by the manifest's digests), the settings and the version of neurt:
    where one of them changes, a new file is made. Recordings that give no windows are left out with a warning.
    It takes about 4.1 kB a window of 128 frames. Rows know no epoch, so a collator gives each the same mask in every
    epoch unless its seed is changed.

    Args:
        build: The folder of a build, or an address that fsspec opens.
        processor: Cuts the windows.
        split: "train", "validation" or "test"; every split when None.
        subjects: Animals to take; all if empty.
        label: Name of a label, for classification.
        label2id: Class id of each of its values; by default as the build says.
        missing_neighbours: As for `WindowDataset`.
        cache_dir: Folder of the Arrow files; by default one in the cache of `datasets`.

    Returns:
        A data set that gives numpy arrays, window by window, in the order of the manifest.

    Raises:
        ValueError: If there is no build, no such split, or no window, or a recording lacks the label.
    """
    options = {"label": label, "label2id": label2id, "missing_neighbours": missing_neighbours}
    source = _open(build, processor, split, subjects, **options)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "neurt_windows" if cache_dir is None else Path(cache_dir)
    path = folder / f"{_cache_key(source)}.arrow"
    if not path.exists():
        with file_aside(path, replace=True) as aside:
            _write_windows(source, aside)
    return datasets.Dataset.from_file(str(path)).with_format("numpy")


def _cache_key(source: BuildWindows) -> str:
    read = {
        "version": importlib.metadata.version("neurt"),
        "files": [(number, entry["sha256"]) for number, entry in zip(source.numbers, source.files, strict=True)],
        "processor": source.processor.to_dict(),
        "options": source.options,
    }
    return hashlib.sha256(json.dumps(read, sort_keys=True, default=str).encode()).hexdigest()


def _write_windows(source: BuildWindows, path: Path) -> None:
    features = _features(source)
    skipped: dict[str, str] = {}
    with ArrowWriter(features=features, path=str(path)) as writer:
        for index in range(len(source.files)):
            windows = _cut_or_skip(source, index, skipped)
            for start in range(0, 0 if windows is None else len(windows), _ROWS_AT_ONCE):
                rows = range(start, min(start + _ROWS_AT_ONCE, len(windows)))
                writer.write_batch(_columns([source.window(index, windows, row) for row in rows]))
        if len(skipped) == len(source.files):
            raise no_windows(skipped)
        writer.finalize()


def _columns(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = {name: [window[name] for window in windows] for name in windows[0]}
    return {name: values if isinstance(values[0], str) else np.stack(values) for name, values in columns.items()}


def _features(source: BuildWindows) -> datasets.Features:
    shape = (source.processor.window_length, len(CHANNELS))
    features = {
        "input_values": datasets.Array2D(shape, "float32"),
        "attention_mask": datasets.List(datasets.Value("int64"), length=shape[0]),
        "bool_masked_pos": datasets.Array2D(shape, "bool"),
        "sampling_rate": datasets.Value("float32"),
        **{name: datasets.Value("string") for name in ("recording_id", "subject_id", "roi_id")},
        **{name: datasets.Value("int64") for name in ("neuron_index", "start_frame", "window_index", "labels")},
    }
    if source.options["missing_neighbours"] == "error":
        del features["bool_masked_pos"]
    if source.options["label"] is None:
        del features["labels"]
    return datasets.Features(features)


def _cut_or_skip(source: BuildWindows, index: int, skipped: dict[str, str]) -> RecordingWindows | None:
    name = source.files[index]["recording_id"]
    try:
        return source.cut(index)
    except NoWindows as reason:
        skipped[name] = str(reason)
        _warn(name, str(reason))
        return None


def _warn(recording_id: str, why: str):
    logger.warning("recording %r gives no windows: %s", recording_id, why)


def stream_windows(
    build: str | os.PathLike,
    processor: NeurtProcessor,
    *,
    split: str | None = None,
    subjects: Sequence[str] = (),
    label: str | None = None,
    label2id: Mapping[str, int] | None = None,
    missing_neighbours: str = "error",
    seed: int = 0,
    shuffle: bool = True,
    mixed_recordings: int = 4,
    process_index: int = 0,
    num_processes: int = 1,
    storage_options: Mapping[str, Any] | None = None,
) -> datasets.IterableDataset:
    """The windows of a build as an iterable data set that reads one recording after the other, wherever it is.

    A shard is `mixed_recordings` recordings whose windows are shuffled together, for windows of one recording are
    alike; a worker of a `DataLoader` gets whole shards and holds one at a time, 20 bytes a neuron and frame. Which
    recordings are mixed is drawn anew in each epoch (`set_epoch`) from (seed, epoch, number of processes) alone.
    `state_dict` and `load_state_dict` resume at the next window exactly; the epoch must be set first.

    With several processes each gets `number of recordings // num_processes` recordings an epoch, of sizes as alike as
    can be had, and those that are too many wait for another epoch. Of every shard each process takes as many windows
    as the manifest promises for the smallest of the shards in this place: what is too much waits for another epoch as
    well, and a shard that turns out to hold less, because neurons were dropped, repeats some of its windows. So use
    one process for an evaluation that must see every window once.

    Args:
        build: The folder of a build, or an address that fsspec opens, for example `hf://datasets/USER/NAME`.
        processor: Cuts the windows.
        split: "train", "validation" or "test"; every split when None.
        subjects: Animals to take; all if empty.
        label: Name of a label, for classification.
        label2id: Class id of each of its values; by default as the build says.
        missing_neighbours: As for `WindowDataset`.
        seed: Seed of the order.
        shuffle: Otherwise the order is that of the manifest, and no recordings are mixed.
        mixed_recordings: Recordings whose windows are shuffled together and that are in memory at once.
        process_index: Which of the processes this is, from 0.
        num_processes: How many processes share the recordings.
        storage_options: What fsspec needs to open the address.

    Returns:
        A data set with `set_epoch`, to be batched by a collator. Data sets made from it, by `map` or `take`, have its
        epoch. It is in Python's memory only, no Arrow, and gives numpy arrays.

    Raises:
        ValueError: If there is no build, no such split or surely no window, or there are fewer recordings than
            processes. While it is read: if a file is damaged or a recording lacks the label; with several processes,
            also if a whole shard gives no window.
    """
    if not 0 <= process_index < num_processes:
        raise ValueError(f"expected process_index from 0 to below num_processes {num_processes}, got {process_index}")
    if mixed_recordings < 1:
        raise ValueError(f"expected mixed_recordings of at least 1, got {mixed_recordings}")
    options = {"label": label, "label2id": label2id, "missing_neighbours": missing_neighbours}
    source = _with_windows(_open(build, processor, split, subjects, storage_options, **options))
    if len(source.files) < num_processes:
        got = count(len(source.files), "recording")
        raise ValueError(f"{build}: expected a recording for each of {num_processes} processes, got {got}; use fewer")
    mixed = mixed_recordings if shuffle else 1
    shards = _Shards(source, seed, shuffle, mixed, process_index, num_processes)
    numbers = list(range(shards.count))
    stream = datasets.IterableDataset.from_generator(_generate, gen_kwargs={"numbers": numbers, "shards": shards})
    # Skipping nothing keeps the shards in their places: `datasets` would shuffle them too, and know nothing of sizes.
    shards.stream = stream.skip(0)
    return shards.stream


def _with_windows(source: BuildWindows) -> BuildWindows:
    """Leave out the recordings that the manifest says are without windows."""
    skipped = {entry["recording_id"]: why for entry in source.files if (why := source.why_none(entry))}
    for name, why in skipped.items():
        _warn(name, why)
    kept = [i for i, entry in enumerate(source.files) if entry["recording_id"] not in skipped]
    if not kept:
        raise no_windows(skipped)
    return dataclasses.replace(
        source, files=tuple(source.files[i] for i in kept), numbers=tuple(source.numbers[i] for i in kept)
    )


def _generate(numbers: Sequence[int], shards: "_Shards") -> Iterator[dict[str, Any]]:
    for number in numbers:
        # Its recordings are gone from memory when the next shard is read.
        yield from shards.windows(number)


@dataclasses.dataclass
class _Shards:
    """The shards of one process; `datasets` hands it to every worker."""

    source: BuildWindows
    seed: int
    shuffle: bool
    mixed_recordings: int
    process_index: int
    num_processes: int
    # A generator is not told the epoch; the data set that runs it knows, in every worker.
    stream: datasets.IterableDataset | None = None

    @property
    def count(self) -> int:
        return -(-(len(self.source.files) // self.num_processes) // self.mixed_recordings)

    def windows(self, number: int) -> Iterator[dict[str, Any]]:
        epoch = self.stream.epoch
        files, quota = self._plan(epoch)[number]
        parts = [(i, part) for i in files if (part := _cut_or_skip(self.source, i, {})) is not None]
        ends = np.cumsum([0, *(len(part) for _, part in parts)])
        order = np.arange(ends[-1])
        if self.shuffle:
            # One more than the file's number: to a seed sequence, zeros at the end are nothing.
            order = np.random.default_rng([self.seed, epoch, files[0] + 1]).permutation(order)
        if quota is not None:
            if not len(order):
                raise no_windows(
                    {self.source.files[i]["recording_id"]: "see the warnings; leave it out" for i in files}
                )
            order = np.resize(order, quota)
        for row, part in zip(order, np.searchsorted(ends, order, side="right") - 1, strict=True):
            index, windows = parts[part]
            yield {**self.source.window(index, windows, int(row - ends[part])), "epoch": epoch}

    def _plan(self, epoch: int) -> list[tuple[list[int], int | None]]:
        """Files of each shard, and how many windows to take from it: all if None."""
        estimates = self.source.estimates()
        generator = np.random.default_rng([self.seed, epoch]) if self.shuffle else None
        rounds = deal(estimates, self.num_processes, generator)
        shards = np.array_split(rounds, self.count)
        quotas = [int(estimates[shard].sum(0).min()) if self.num_processes > 1 else None for shard in shards]
        return [(shard[:, self.process_index].tolist(), quota) for shard, quota in zip(shards, quotas, strict=True)]


def deal(sizes: np.ndarray, num_processes: int, generator: np.random.Generator | None) -> np.ndarray:
    """Deal out files in rounds, one to each process, files of like size in the same round.

    Args:
        sizes: Of each file.
        num_processes: How many get files.
        generator: Draws who gets which file, in which order, and the files that are left over when all have as many;
            without it, files are dealt out in their order.

    Returns:
        Indices of files, (rounds, processes).
    """
    order = np.arange(len(sizes)) if generator is None else generator.permutation(len(sizes))
    order = order[: len(order) // num_processes * num_processes]
    if generator is None:
        return order.reshape(-1, num_processes)
    rounds = order[np.argsort(sizes[order], kind="stable")].reshape(-1, num_processes)
    return generator.permuted(generator.permutation(rounds), axis=1)
