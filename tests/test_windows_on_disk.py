"""Windows on disk are those in memory, and train the same; memory holds none of them."""

import resource

import numpy as np
import pytest
from neurt import NeurtProcessor
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.windows import WindowDataset
from neurt.dataset_scripts.windows_on_disk import StoredWindowDataset, on_disk
from neurt.train import SplitOptions, TrainingOptions
from tiny_training import HELD_OUT, Interrupted, assert_same_weights, interrupt_after, results

PROCESSOR = NeurtProcessor(window_length=40)


@pytest.fixture
def train(tiny_pretrain, tmp_path, tiny_model):
    """Pretrain a tiny model for two epochs, with windows in memory or on disk; returns its folder."""

    def run(name, cache=None, resume=False):
        split = SplitOptions(test=HELD_OUT, validation_fraction=0.1)
        options = TrainingOptions(epochs=2, batch_size=32, checkpoint_every=1)
        model = tiny_model(hidden_dropout_prob=0.1)
        tiny_pretrain(tmp_path / name, model=model, split=split, options=options, cache=cache, resume=resume)
        return tmp_path / name

    return run


UNTIMED = {"training_hours": None}


def assert_same(first, second):
    assert results(first) | UNTIMED == results(second) | UNTIMED
    assert_same_weights(first, second)


def test_windows_on_disk_are_those_in_memory(build, tmp_path):
    memory = WindowDataset(read_build(build), PROCESSOR)
    disk = StoredWindowDataset(read_build(build), PROCESSOR, tmp_path)
    assert len(memory) == len(disk) > 100
    for expected, got in zip(memory, disk, strict=False):
        assert expected.keys() == got.keys()
        assert all(np.array_equal(value, got[name]) for name, value in expected.items())
        assert not isinstance(got["input_values"], np.memmap)
    assert (disk.dropped, disk.skipped, disk.unused_frames) == (memory.dropped, memory.skipped, memory.unused_frames)


def test_channels_are_mapped_and_written_once(build, tmp_path):
    disk = StoredWindowDataset(read_build(build), PROCESSOR, tmp_path)
    assert all(isinstance(windows.channels[0], np.memmap) for windows in disk._recordings)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == len(disk.recording_ids)
    StoredWindowDataset(read_build(build), PROCESSOR, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    StoredWindowDataset(read_build(build), NeurtProcessor(window_length=40, normalization="none"), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2 * len(files)


def test_values_of_another_shape_or_type_are_other_values(tmp_path):
    values = np.arange(6, dtype=np.float32)
    for other in (values, values.reshape(2, 3), values.view(np.int32), values.reshape(3, 2).T):
        stored = on_disk(other, tmp_path)
        assert stored.shape == other.shape
        for row, expected in enumerate(other):
            assert np.array_equal(stored[row], expected) and stored[row].dtype == other.dtype


def test_more_arrays_are_kept_than_files_may_be_open(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        arrays = [on_disk(np.full((2, 3), float(number)), tmp_path) for number in range(100)]
        assert [array[1][2] for array in arrays] == list(range(100))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_run_on_windows_on_disk_ends_like_one_in_memory_and_goes_on_like_one(train, tmp_path, monkeypatch):
    expected = train("memory")
    assert_same(train("disk", tmp_path / "cache"), expected)
    with monkeypatch.context() as context, pytest.raises(Interrupted):
        interrupt_after(context, 4)
        train("cut", tmp_path / "cache")
    assert_same(train("cut", tmp_path / "elsewhere", resume=True), expected)
