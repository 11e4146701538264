"""What is forecast lies behind the frames that set the scale, and no visible value depends on it."""

import dataclasses

import numpy as np
import pytest
from neurt import NeurtProcessor
from neurt.dataset_scripts.windows import WindowDataset
from neurt.evaluation import FORECAST_BASELINES
from neurt.forecasting import cut_forecast_windows, forecast_bounds
from neurt.masking import MaskedSignalCollator
from small_builds import recording


@pytest.mark.parametrize(
    ("frames", "starts", "rate", "seconds", "expected"),
    [
        (200, (0,), 10.0, 1.0, [(130, 170), (140, 180), (150, 190), (160, 200)]),  # past: 160 frames
        (200, (0,), 10.0, 2.0, [(140, 180), (160, 200)]),
        (200, (0, 150), 10.0, 1.0, [(150, 190), (160, 200)]),  # before 182 the segment has no 32 frames
        (200, (0, 170), 10.0, 1.0, [(130, 170)]),
        (200, (0, 165), 10.0, 1.0, [(165, 200)]),
        (40, (0,), 10.0, 1.0, []),  # ten hidden of 40 would reach into the past, which ends with frame 32
        (100, (0,), 1.0, 3.0, [(45, 85), (48, 88), (51, 91), (54, 94), (57, 97), (60, 100)]),
    ],
)
def test_forecast_windows_end_where_they_should(frames, starts, rate, seconds, expected):
    assert forecast_bounds(frames, starts, 40, rate, seconds) == expected


def forecast_windows(*recordings):
    return WindowDataset(recordings, NeurtProcessor(window_length=40), cut=cut_forecast_windows)


def test_the_future_changes_no_visible_value():
    field = recording(0, frames=200, sampling_rate=10.0)
    changed = field.traces.copy()
    changed[:, 160:] = 1e3 * np.random.default_rng(0).normal(size=(12, 40))
    processor = NeurtProcessor(window_length=40)
    before = cut_forecast_windows(field, processor)
    after = cut_forecast_windows(dataclasses.replace(field, traces=changed), processor)
    assert [end - 10 for _, end in before.bounds] == [160, 170, 180, 190]
    first, end = before.bounds[0]
    np.testing.assert_array_equal(after.channels[:, first : end - 10], before.channels[:, first : end - 10])
    assert (after.channels[:, end - 10 : end] != before.channels[:, end - 10 : end]).all()


def test_batches_of_the_collator_hide_nothing_of_the_past():
    recordings = [recording(0, frames=200), recording(1, frames=300), recording(2, frames=35, sampling_rate=10.0)]
    dataset = forecast_windows(*recordings)
    assert dataset.subject_ids == ["m0", "m1"] and list(dataset.skipped) == ["r2"]
    assert [dataset[i]["window_index"] for i in range(len(dataset))] == list(range(len(dataset)))
    batch = MaskedSignalCollator(tasks={"forecast": 1})([dataset[i] for i in range(len(dataset))])
    past = {"r0": 160, "r1": 240}
    for start, name, hidden in zip(batch["start_frame"], batch["recording_id"], batch["bool_masked_pos"], strict=True):
        assert hidden.sum() == 5 and hidden[-5:].all()
        assert start + 35 >= past[name]


def test_recordings_that_leave_nothing_to_forecast_are_named():
    with pytest.raises(ValueError, match="r2: no segment has 1 s to forecast behind the first 80% of the recording"):
        forecast_windows(recording(2, frames=35, sampling_rate=10.0))
    quiet = recording(0, frames=200)
    quiet.traces[:, :160] = 1
    with pytest.raises(ValueError, match="r0: .*finite, varying traces, got 0"):
        forecast_windows(quiet)


def test_copy_last_repeats_the_last_visible_value():
    dataset = forecast_windows(recording(0, frames=200))
    batch = MaskedSignalCollator(tasks={"forecast": 1})([dataset[i] for i in range(5)])
    values = batch["input_values"].numpy()
    filled = FORECAST_BASELINES["copy-last"](batch)
    np.testing.assert_allclose(filled[:, 35:], np.repeat(values[:, 34:35], 5, axis=1))
    np.testing.assert_allclose(FORECAST_BASELINES["window mean"](batch)[:, -1], values[:, :35].mean(1), rtol=1e-5)
