"""Maps of a whole recording: where windows lie, what overlaps, how rows are sorted, what neurons contribute."""

import numpy as np
import pytest
import torch
from example_recordings import recording
from neurt import NeurtProcessor
from neurt.dataset_scripts.windows import WindowDataset
from neurt.explain.explained import ExplainedWindows, gather
from neurt.explain.recording_map import contributions, mean_in_cells, recording_map, relative_weights, row_order
from small_builds import recording as field


def windows_at(neurons, starts, frames=3, real=None, recording_ids=("r1",), places=None):
    """Windows of three frames of neurons of one recording, or of those in `places`."""
    mask = np.ones((len(neurons), frames), dtype=np.int64) if real is None else np.array(real)
    return ExplainedWindows(
        inputs={"input_values": torch.zeros(len(neurons), frames, 5), "attention_mask": torch.as_tensor(mask)},
        recording=np.zeros(len(neurons), int) if places is None else np.array(places),
        recording_ids=recording_ids,
        subject_ids=("m",) * len(recording_ids),
        class_ids=None,
        roi_ids=tuple(str(neuron) for neuron in neurons),
        neuron_index=np.array(neurons),
        start_frame=np.array(starts),
    )


def test_the_weight_of_an_average_frame_is_one_in_windows_of_any_length():
    weights = np.array([[0.5, 0.25, 0.25, 0], [0.1, 0.2, 0.3, 0.4]])
    found = relative_weights(weights, np.array([[1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool))
    np.testing.assert_allclose(found, [[1.5, 0.75, 0.75, 0], [0.4, 0.8, 1.2, 1.6]])


def test_windows_are_laid_side_by_side_overlap_is_averaged_and_gaps_are_nan():
    values = np.array([[1.0, 2, 3], [5, 6, 7], [8, 9, 10]])
    # Neuron 1 from frames 0 and 2, which share frame 2; neuron 0 from frame 3; neuron 2 has no window.
    found = recording_map(values, windows_at([1, 1, 0], [0, 2, 3]), recording(neurons=3, frames=7))
    nan = np.nan
    expected = [[nan, nan, nan, 8, 9, 10, nan], [1, 2, 4, 6, 7, nan, nan], [nan] * 7]
    np.testing.assert_array_equal(found, expected)


def test_padding_enters_no_map():
    windows = windows_at([0, 0], [0, 3], real=[[1, 1, 1], [1, 0, 0]])
    found = recording_map(np.array([[1.0, 2, 3], [4, 99, 99]]), windows, recording(neurons=1, frames=4))
    np.testing.assert_array_equal(found, [[1, 2, 3, 4]])


def test_windows_of_other_recordings_are_left_out():
    windows = windows_at([0, 0], [0, 0], recording_ids=("r1", "r2"), places=[0, 1])
    values = np.array([[1.0, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(recording_map(values, windows, recording("r2", 1, 3)), [[4, 5, 6]])
    with pytest.raises(ValueError, match="windows of recording 'r3', got none"):
        recording_map(values, windows, recording("r3", 1, 3))


def test_the_traces_themselves_come_back_from_their_windows():
    """Rejected and dropped neurons, segments, overlap and padding, as real windows have them."""
    accepted = np.ones(30, dtype=bool)
    accepted[[2, 7]] = False
    given = field(1, neurons=30, accepted=accepted, segment_starts=(0, 70))
    given.traces[4] = 1  # constant: gives no windows
    dataset = WindowDataset([given], NeurtProcessor(window_length=40, window_stride=25, normalization="none"))
    windows = gather(dataset, np.arange(len(dataset)))
    found = recording_map(windows.inputs["input_values"][..., 0].numpy(), windows, given)
    expected = given.traces[accepted].astype(float)
    expected[3] = np.nan
    # Windows from frames 0, 25 and 70; what is left of each segment after them is too short for one.
    expected[:, 65:70] = expected[:, 110:] = np.nan
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("neuron", "start"), [(3, 0), (0, 5)])
def test_windows_that_lie_outside_of_the_recording_are_refused(neuron, start):
    with pytest.raises(ValueError, match="within the 3 neurons and 7 frames of 'r1'"):
        recording_map(np.ones((1, 3)), windows_at([neuron], [start]), recording(neurons=3, frames=7))


NAN = np.nan
MAP = np.array([[1.0, 1, 4, 1], [NAN, NAN, NAN, NAN], [NAN, 5, 1, 5], [0, 2, 2, 0]])


@pytest.mark.parametrize(
    ("by", "expected"),
    # Means 7/4, none, 11/3, 1; first at their maximum in frames 2, none, 1, 1.
    [("as given", [0, 1, 2, 3]), ("importance", [2, 0, 3, 1]), ("first peak", [2, 3, 0, 1])],
)
def test_rows_are_sorted_and_empty_ones_come_last(by, expected):
    assert row_order(MAP, by).tolist() == expected


def test_rows_are_sorted_from_the_top_of_the_field_to_its_bottom():
    centroids = np.array([[5.0, 9], [NAN, NAN], [7, 2], [1, 2]])
    assert row_order(MAP, "position", centroids).tolist() == [3, 2, 0, 1]


def test_orders_that_cannot_be_made_are_refused():
    with pytest.raises(ValueError, match="an order among importance, position, first peak, as given, got 'size'"):
        row_order(MAP, "size")
    for centroids in (None, np.full((4, 2), NAN)):
        with pytest.raises(ValueError, match="expected centroids to sort neurons by position"):
            row_order(MAP, "position", centroids)


def test_a_neuron_contributes_what_its_windows_say_beyond_the_mean_of_neurons():
    windows = windows_at([0, 0, 2, 0], [0, 3, 0, 0], recording_ids=("r1", "r2"), places=[0, 0, 0, 1])
    found = contributions(np.array([1.0, 3, 6, 100]), windows, recording(neurons=3, frames=6))
    # Neurons 0 and 2 say 2 and 6, on average 4.
    np.testing.assert_array_equal(found, [-2, NAN, 2])


def test_means_in_cells():
    np.testing.assert_array_equal(mean_in_cells(np.array([1.0, 2, 6]), np.array([1, 3, 3]), 5), [NAN, 1, NAN, 4, NAN])
