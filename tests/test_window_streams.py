"""Windows of a build as data sets: the same windows each time, dealt out evenly, resumed exactly."""

import functools
import gc
import itertools
import json
import re
import shutil
import weakref

import numpy as np
import pytest
import torch
from neurt import MaskedSignalCollator, NeurtProcessor
from neurt.dataset_scripts import window_streams
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.window_streams import MOST_WINDOWS, cached_windows, deal, stream_windows
from neurt.dataset_scripts.windows import WindowDataset
from small_builds import CLASSES, PROCESSOR, as_loaded, indices, loaded, numbers, recording, write
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five recordings r0 to r4 of 12 neurons, 36 windows each; odd ones are of mouse m1 and class b."""
    return write(tmp_path_factory.mktemp("streams") / "five", [recording(i) for i in range(5)])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Seven recordings of 8 to 20 neurons."""
    sizes = (8, 20, 12, 16, 10, 18, 14)
    return write(tmp_path_factory.mktemp("streams") / "uneven", [recording(i, n) for i, n in enumerate(sizes)])


# What windows there are.


@pytest.mark.parametrize("missing_neighbours", ["error", "mask"])
def test_both_faces_give_the_windows_of_the_map_style_data_set(five, tmp_path, missing_neighbours):
    options = {"label": "group", "label2id": CLASSES, "missing_neighbours": missing_neighbours}
    expected = WindowDataset(read_build(five), PROCESSOR, **options)
    cached = cached_windows(five, PROCESSOR, cache_dir=tmp_path, **options)
    streamed = list(stream_windows(five, PROCESSOR, shuffle=False, **options))
    assert len(expected) == len(cached) == len(streamed) == 5 * 12 * 3
    for window, from_stream, from_cache in zip(expected, streamed, cached, strict=True):
        assert from_stream.keys() == window.keys()
        assert from_cache.keys() == window.keys() - {"epoch"}
        for name in window.keys() - {"window_index", "epoch"}:
            np.testing.assert_array_equal(from_stream[name], window[name], err_msg=name)
            np.testing.assert_array_equal(from_cache[name], window[name], err_msg=name)
    # 36 windows a recording, and the recordings far apart.
    numbered = [number * MOST_WINDOWS + row for number in range(5) for row in range(36)]
    assert indices(streamed) == indices(cached) == numbered


def test_a_window_keeps_its_index_where_fewer_recordings_are_read(five, tmp_path):
    everything = {index: window for window in stream_windows(five, PROCESSOR) for index in indices([window])}
    part = list(stream_windows(five, PROCESSOR, subjects=["m1"]))
    assert numbers(part) == numbers(cached_windows(five, PROCESSOR, subjects=["m1"], cache_dir=tmp_path)) == {1, 3}
    for window in part:
        np.testing.assert_array_equal(
            window["input_values"], everything[window["window_index"]]["input_values"], strict=True
        )


def test_splits_are_read_apart(tmp_path):
    build = write(tmp_path / "build", [recording(i) for i in range(3)], split={"r1": "test"})
    assert numbers(stream_windows(build, PROCESSOR, split="test")) == {1}
    assert numbers(cached_windows(build, PROCESSOR, split="train", cache_dir=tmp_path / "cache")) == {0, 2}


def test_classes_are_numbered_as_the_build_says(tmp_path):
    build = write(tmp_path / "build", [recording(0), recording(1)], class_labels={"group": ["b", "a"]})
    windows = [*stream_windows(build, PROCESSOR, label="group")]
    windows += [*cached_windows(build, PROCESSOR, label="group", cache_dir=tmp_path / "cache")]
    assert {(window["recording_id"], window["labels"]) for window in windows} == {("r0", 1), ("r1", 0)}


def test_values_of_a_label_without_classes_are_numbered_in_their_order(tmp_path):
    build = write(tmp_path / "build", [recording(1), recording(0)])
    windows = list(stream_windows(build, PROCESSOR, label="group"))
    assert {(window["recording_id"], window["labels"]) for window in windows} == {("r0", 0), ("r1", 1)}


def test_recordings_without_windows_are_left_out_with_a_warning(tmp_path, caplog):
    constant = recording(2)
    constant.traces[:] = 1
    brief = recording(3, frames=31)
    pixels = recording(4, coordinate_unit="px")
    build = write(tmp_path / "build", [recording(0), recording(1, neurons=4), constant, brief, pixels])
    processor = NeurtProcessor(window_length=40, neighbour_radius=70, radius_unit="um")
    messages = {
        1: "expected at least 5 neurons",
        2: "expected at least 5 neurons",
        3: "expected.* at least 32 frames",
        4: "expected positions in um, the unit of neighbour_radius, got px",
    }
    for make in (stream_windows, functools.partial(cached_windows, cache_dir=tmp_path / "cache")):
        assert numbers(make(build, processor)) == {0}
        for number, message in messages.items():
            assert re.search(f"recording 'r{number}' gives no windows: {message}", caplog.text), number
        caplog.clear()


@pytest.mark.parametrize("missing_neighbours", ["error", "mask"])
@pytest.mark.parametrize("settings", [{}, *({"neighbour_radius": 60, "radius_unit": unit} for unit in ("um", "px"))])
def test_what_the_manifest_leaves_out_is_what_reading_would(tmp_path, settings, missing_neighbours):
    items = [recording(0), recording(1, neurons=4), recording(2, centroids=None, coordinate_unit=None)]
    items += [recording(3, frames=32), recording(4, coordinate_unit="px"), recording(5, 4, coordinate_unit="px")]
    processor = NeurtProcessor(window_length=40, **settings)
    expected = WindowDataset(items, processor, missing_neighbours=missing_neighbours)
    stream = stream_windows(write(tmp_path / "b", items), processor, missing_neighbours=missing_neighbours)
    windows = list(stream)
    assert {window["recording_id"] for window in windows} == set(expected.recording_ids)
    assert len(windows) == len(expected)


# The cache.


def count_cuts(monkeypatch):
    """A list that grows by one recording_id each time channels are computed."""
    cut = []
    original = window_streams.cut_windows

    def counting(item, *arguments, **options):
        cut.append(item.recording_id)
        return original(item, *arguments, **options)

    monkeypatch.setattr(window_streams, "cut_windows", counting)
    return cut


def test_a_cache_is_opened_again_without_computing(five, tmp_path, monkeypatch):
    cut = count_cuts(monkeypatch)
    first = cached_windows(five, PROCESSOR, cache_dir=tmp_path)
    assert len(cut) == 5
    again = cached_windows(five, NeurtProcessor(window_length=40), cache_dir=tmp_path)
    assert len(cut) == 5
    assert again.cache_files == first.cache_files
    assert [path.name for path in tmp_path.iterdir()] == [path.name for path in tmp_path.glob("*.arrow")]
    np.testing.assert_array_equal(again[7]["input_values"], first[7]["input_values"])


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"normalization": "zscore"}, {}),
        ({"window_stride": 20}, {}),
        ({}, {"subjects": ["m0"]}),
        ({}, {"missing_neighbours": "mask"}),
        ({}, {"label": "group", "label2id": CLASSES}),
        ({}, {"label": "group", "label2id": {"a": 1, "b": 0}}),
    ],
)
def test_each_setting_has_a_cache_of_its_own(five, settings, options):
    def key(settings, options):
        defaults = {"label": None, "label2id": None, "missing_neighbours": "error", "split": None, "subjects": ()}
        processor = NeurtProcessor(window_length=40, **settings)
        return window_streams._cache_key(window_streams._open(five, processor, **{**defaults, **options}))

    assert key(settings, options) == key(settings, options) != key({}, {})


def test_a_changed_build_has_a_new_cache(tmp_path):
    build = write(tmp_path / "build", [recording(0)])
    before = cached_windows(build, PROCESSOR, cache_dir=tmp_path / "cache")
    shutil.rmtree(build)
    changed = recording(0)
    changed.traces[0] += np.arange(116)
    write(build, [changed])
    after = cached_windows(build, PROCESSOR, cache_dir=tmp_path / "cache")
    assert after.cache_files != before.cache_files
    assert not np.array_equal(after[0]["input_values"], before[0]["input_values"])
    write(build, [recording(1)])
    assert len(cached_windows(build, PROCESSOR, cache_dir=tmp_path / "cache")) == 2 * 36


def test_nothing_half_written_is_left_of_a_cache_that_fails(tmp_path):
    build = write(tmp_path / "build", [recording(0), recording(1)])
    with pytest.raises(ValueError, match="recording 'r1': expected label 'group' among a, got 'b'"):
        cached_windows(build, PROCESSOR, label="group", label2id={"a": 0}, cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


# Order.


def test_an_epoch_has_every_window_once_in_an_order_of_its_own(five):
    stream = stream_windows(five, PROCESSOR, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        stream.set_epoch(epoch)
        windows = list(stream)
        assert {window["epoch"] for window in windows} == {epoch}
        orders.append(indices(windows))
    assert sorted(orders[0]) == sorted(orders[1]) == indices(stream_windows(five, PROCESSOR, shuffle=False))
    assert orders[0] == orders[2] == indices(stream_windows(five, PROCESSOR, seed=1))
    assert orders[0] != orders[1]
    assert orders[0] != indices(stream_windows(five, PROCESSOR, seed=2))


def test_windows_of_several_recordings_are_mixed(five):
    # Shards of three and of two recordings.
    windows = list(stream_windows(five, PROCESSOR, mixed_recordings=3))
    assert {len(numbers(windows[: 3 * 36])), len(numbers(windows[3 * 36 :]))} == {3, 2}
    assert len(numbers(windows[:20])) == 3
    assert not numbers(windows[: 3 * 36]) & numbers(windows[3 * 36 :])
    apart = list(stream_windows(five, PROCESSOR, mixed_recordings=1))
    assert all(len(numbers(apart[i * 36 : (i + 1) * 36])) == 1 for i in range(5))
    assert indices(apart[:36]) != sorted(indices(apart[:36]))


def test_without_shuffling_every_epoch_has_the_order_of_the_manifest(five):
    stream = stream_windows(five, PROCESSOR, shuffle=False)
    stream.set_epoch(3)
    assert indices(stream) == sorted(indices(stream))


@pytest.mark.parametrize(("workers", "mixed"), [(1, 1), (2, 1), (2, 5)])
def test_workers_change_neither_windows_nor_masks(five, workers, mixed):
    stream = stream_windows(five, PROCESSOR, mixed_recordings=mixed)
    stream.set_epoch(2)
    expected = {window["window_index"]: window for window in stream}
    windows = loaded(stream, workers)
    assert sorted(indices(windows)) == sorted(expected)
    collate = MaskedSignalCollator(seed=5)
    for window in windows:
        assert window["epoch"] == 2
        assert torch.equal(
            collate([window])["bool_masked_pos"], collate([expected[window["window_index"]]])["bool_masked_pos"]
        )


def test_persistent_workers_hear_of_a_new_epoch(five):
    stream = stream_windows(five, PROCESSOR)
    loader = DataLoader(stream, 8, collate_fn=list, num_workers=1, persistent_workers=True)
    for epoch in (0, 1):
        stream.set_epoch(epoch)
        windows = as_loaded(loader)
        assert {window["epoch"] for window in windows} == {epoch}
        assert indices(windows) == indices(stream)


def test_both_faces_have_the_same_masks(five, tmp_path):
    cached = cached_windows(five, PROCESSOR, cache_dir=tmp_path)
    collate = MaskedSignalCollator(seed=5)
    for window in itertools.islice(stream_windows(five, PROCESSOR), 10):
        row = window["window_index"] // MOST_WINDOWS * 36 + window["window_index"] % MOST_WINDOWS
        assert torch.equal(collate([window])["bool_masked_pos"], collate([cached[row]])["bool_masked_pos"])


# Resuming.


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("seen", [0, 1, 71, 72, 73, 180])
def test_a_stream_resumes_at_the_next_window(five, epoch, seen):
    def make():
        stream = stream_windows(five, PROCESSOR, seed=4, mixed_recordings=2)
        stream.set_epoch(epoch)
        return stream

    expected = indices(make())
    stream = make()
    iterator = iter(stream)
    first = indices(itertools.islice(iterator, seen))
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert first + indices(resumed) == expected
    assert indices(iterator) == expected[seen:]


def test_a_process_of_several_resumes_at_the_next_window(uneven):
    stream = stream_windows(uneven, PROCESSOR, process_index=1, num_processes=2, mixed_recordings=1)
    expected = indices(stream)
    assert indices(itertools.islice(stream, 50)) == expected[:50]
    resumed = stream_windows(uneven, PROCESSOR, process_index=1, num_processes=2, mixed_recordings=1)
    resumed.load_state_dict(stream.state_dict())
    assert indices(resumed) == expected[50:]


# Several processes.


def test_files_are_dealt_out_in_rounds_of_like_sizes():
    sizes = np.array([50, 10, 40, 11, 30, 41, 31])
    dealt = deal(sizes, 2, np.random.default_rng(0))
    assert dealt.shape == (3, 2)
    assert len(set(dealt.ravel())) == 6
    # Sorted, any six of them are neighbours in pairs; one file waits.
    kept = np.sort(sizes[dealt.ravel()])
    assert sorted(map(sorted, sizes[dealt].tolist())) == kept.reshape(3, 2).tolist()
    assert deal(sizes, 3, None).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_files_that_wait_and_who_gets_which_change_from_epoch_to_epoch():
    sizes = np.array([1, 2, 3, 4, 5])
    dealt = [deal(sizes, 2, np.random.default_rng(epoch)) for epoch in range(30)]
    assert {int(15 - sizes[rounds].sum()) for rounds in dealt} == {1, 2, 3, 4, 5}
    assert {int(number) for rounds in dealt for number in rounds[:, 0]} == {0, 1, 2, 3, 4}
    assert len({tuple(rounds.ravel()) for rounds in dealt}) > 20


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_process_has_as_many_windows_and_batches_as_the_others(uneven, processes, workers):
    parts = [
        stream_windows(uneven, PROCESSOR, mixed_recordings=1, process_index=rank, num_processes=processes)
        for rank in range(processes)
    ]
    seen = set()
    for epoch in range(2):
        batches = []
        for part in parts:
            part.set_epoch(epoch)
            batches.append(list(DataLoader(part, 8, collate_fn=list, num_workers=workers)))
        assert len({len(rank) for rank in batches}) == 1
        read = [numbers(as_loaded(rank)) for rank in batches]
        assert len({len(as_loaded(rank)) for rank in batches}) == 1
        # Whole recordings to one process each: neighbours are those of the field.
        assert sum(map(len, read)) == len(set.union(*read)) == 7 // processes * processes
        assert all(len(set(indices(as_loaded(rank)))) == len(as_loaded(rank)) for rank in batches)
        seen.add(tuple(map(frozenset, read)))
    assert len(seen) > 1


def test_a_shard_gives_what_the_smallest_of_its_place_promises(tmp_path):
    # 12 and 8 neurons with three windows each: both processes take 24 windows.
    build = write(tmp_path / "build", [recording(0, 12), recording(1, 8)])
    parts = {
        min(numbers(windows)): indices(windows)
        for rank in range(2)
        for windows in [list(stream_windows(build, PROCESSOR, process_index=rank, num_processes=2))]
    }
    assert len(parts[0]) == len(set(parts[0])) == 24
    assert sorted(parts[1]) == [MOST_WINDOWS + row for row in range(24)]


def test_a_shard_with_dropped_neurons_repeats_windows(tmp_path):
    lame = recording(1)
    lame.traces[:2] = 0
    build = write(tmp_path / "build", [recording(0), lame])
    for rank in range(2):
        windows = indices(stream_windows(build, PROCESSOR, process_index=rank, num_processes=2))
        assert len(windows) == 36
        assert len(set(windows)) == (36 if windows[0] < MOST_WINDOWS else 30)


def test_a_shard_without_windows_stops_several_processes_only(tmp_path):
    constant = recording(1)
    constant.traces[:] = 1
    build = write(tmp_path / "build", [recording(0), constant])
    parts = [stream_windows(build, PROCESSOR, process_index=rank, num_processes=2) for rank in range(2)]
    with pytest.raises(ValueError, match="expected recordings that give windows, got none .r1: "):
        list(map(list, parts))
    assert len(list(stream_windows(build, PROCESSOR))) == 36


# Memory.


@pytest.mark.parametrize("mixed", [1, 2])
def test_recordings_are_gone_from_memory_when_the_next_shard_is_read(five, monkeypatch, mixed):
    held, alive = [], []
    original = window_streams.cut_windows

    def watched(*arguments, **options):
        alive.append(sum(channels() is not None for channels in held))
        windows = original(*arguments, **options)
        held.append(weakref.ref(windows.channels))
        return windows

    monkeypatch.setattr(window_streams, "cut_windows", watched)
    gc.disable()
    try:
        for _ in stream_windows(five, PROCESSOR, mixed_recordings=mixed):
            pass
    finally:
        gc.enable()
    assert alive == ([0] * 5 if mixed == 1 else [0, 1, 0, 1, 0])


# Training.


@pytest.mark.parametrize("face", ["cached", "streamed"])
def test_both_faces_train_with_the_trainer(five, tmp_path, tiny_model, face):
    if face == "cached":
        windows = cached_windows(five, PROCESSOR, cache_dir=tmp_path / "cache")
    else:
        windows = stream_windows(five, PROCESSOR)
    epochs = []

    class Collator(MaskedSignalCollator):
        def __call__(self, windows):
            epochs.append({window.get("epoch", 0) for window in windows})
            return super().__call__(windows)

    arguments = TrainingArguments(
        tmp_path / "trainer",
        max_steps=12,
        per_device_train_batch_size=32,
        remove_unused_columns=False,
        logging_steps=1,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    trainer = Trainer(tiny_model(), arguments, data_collator=Collator(), train_dataset=windows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 12 and np.isfinite(losses).all()
    if face == "streamed":  # 180 windows are six steps: two epochs
        assert epochs[:12] == [{0}] * 6 + [{1}] * 6
