"""A window of a build is found by recording, neuron and time."""

import numpy as np
import pytest
import torch
from neurt.dataset_scripts.parquet_build import read_build
from neurt.explain.one_window import find_window
from neurt.masking import span_mask
from small_builds import PROCESSOR, recording, write


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Recordings of 116 frames at 5 Hz; those of r1 are two segments."""
    recordings = [recording(0), recording(1, segment_starts=(0, 50)), recording(2, centroids=None)]
    return write(tmp_path_factory.mktemp("data") / "build", recordings)


def channels_of(build, place):
    found = list(read_build(build))[place]
    return PROCESSOR.neighbour_channels(found.traces, found.centroids, coordinate_unit="um")


def test_the_first_window_of_the_first_neuron_of_the_first_recording(build):
    window = find_window(build, PROCESSOR)
    assert (window.recording.recording_id, window.roi_id, window.start_frame) == ("r0", "r0-0", 0)
    assert (window.start, window.end, window.num_frames) == (0, 8, 40)
    np.testing.assert_array_equal(window.inputs["input_values"][0], channels_of(build, 0)[0, :40])


def test_a_window_begins_at_any_frame(build):
    window = find_window(build, PROCESSOR, recording="r1", neuron="r1-7", start=13.4)
    assert (window.roi_id, window.start_frame, window.num_frames) == ("r1-7", 67, 40)
    np.testing.assert_array_equal(window.inputs["input_values"][0], channels_of(build, 1)[7, 67:107])


def test_a_window_ends_with_its_segment_and_is_padded(build):
    window = find_window(build, PROCESSOR, recording="r1", start=3)
    assert (window.start_frame, window.num_frames, window.end) == (15, 35, 10)
    assert window.inputs["input_values"].shape == (1, 40, 5)
    assert not window.inputs["input_values"][0, 35:].any()
    assert find_window(build, PROCESSOR, start=16.8).num_frames == 32
    assert find_window(build, PROCESSOR, recording="r1", start=10).num_frames == 40


@pytest.mark.parametrize("start", [-1, -1000.0, 17, 23.2, 1e9, float("nan"), float("inf"), -float("inf")])
def test_a_start_outside_of_the_recording_is_refused(build, start):
    message = f"expected a start from 0 to 16.8 s, 32 frames or more before the end of its segment, got {start}"
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        find_window(build, PROCESSOR, start=start)


def test_a_start_near_the_end_of_a_segment_is_refused(build):
    with pytest.raises(ValueError, match="32 frames or more before the end of its segment, got 4"):
        find_window(build, PROCESSOR, recording="r1", start=4)


def test_a_recording_or_neuron_that_is_not_there_is_refused(build):
    with pytest.raises(ValueError, match="expected a recording among r0, r1, r2, got 'r9'"):
        find_window(build, PROCESSOR, recording="r9")
    with pytest.raises(ValueError, match="expected a neuron of r0 that gives windows, among r0-0, .* more, got 'x'"):
        find_window(build, PROCESSOR, neuron="x")


def test_a_neuron_without_windows_is_not_taken(tmp_path):
    constant = recording(0)
    constant.traces[0] = 1
    build = write(tmp_path / "build", [constant])
    assert find_window(build, PROCESSOR).roi_id == "r0-1"
    with pytest.raises(ValueError, match="got 'r0-0'"):
        find_window(build, PROCESSOR, neuron="r0-0")


def test_a_recording_without_positions_is_used_on_request(build):
    with pytest.raises(ValueError, match="expected centroids, got none; .*--missing-neighbours mask"):
        find_window(build, PROCESSOR, recording="r2")
    window = find_window(build, PROCESSOR, recording="r2", missing_neighbours="mask")
    assert window.inputs["bool_masked_pos"][0, 0].tolist() == [False, True, True, True, True]


def test_hidden_spans_are_those_of_training_and_of_real_frames(build):
    window = find_window(build, PROCESSOR, recording="r1", start=3)
    hidden = window.with_hidden_spans(seed=7).inputs["bool_masked_pos"]
    expected = torch.zeros(40, dtype=torch.bool)
    expected[:35] = torch.as_tensor(span_mask(35, np.random.default_rng(7)))
    assert torch.equal(hidden[0], expected.unsqueeze(-1).expand(40, 5))
    assert "bool_masked_pos" not in window.inputs or not window.inputs["bool_masked_pos"].any()
