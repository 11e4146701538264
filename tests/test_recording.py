"""A recording is checked when it is made, and can be cut down to some of its neurons."""

import numpy as np
import pytest
from example_recordings import recording


def test_every_neuron_is_accepted_unless_stated():
    assert recording().accepted.tolist() == [True] * 3 and recording().accepted_neurons().num_neurons == 3


def test_some_neurons_keep_all_that_is_theirs():
    whole = recording(
        centroids=np.array([[0, 1], [2, 3], [4, 5]]),
        coordinate_unit="px",
        unit_ids=np.array([7, 8, 9]),
        accepted=np.array([True, False, True]),
        labels={"genotype": "WT"},
        columns={"snr": np.array([1.0, 2.0, 3.0]), "id": np.ma.MaskedArray([4, 5, 6], [False, False, True])},
    )
    for part in (whole.only(np.array([True, False, True])), whole.accepted_neurons()):
        assert part.roi_ids == ("0", "2") and part.accepted.tolist() == [True, True]
        np.testing.assert_array_equal(part.traces, [[0, 1, 2, 3], [8, 9, 10, 11]])
        np.testing.assert_array_equal(part.centroids, [[0, 1], [4, 5]])
        np.testing.assert_array_equal(part.unit_ids, [7, 9])
        assert part.labels == {"genotype": "WT"} and part.coordinate_unit == "px"
        assert part.columns["snr"].tolist() == [1, 3] and part.columns["id"].tolist() == [4, None]
    assert whole.num_neurons == 3
    assert recording().only(np.array([False, True, False])).centroids is None


def test_a_recording_of_rejected_neurons_has_none_to_keep():
    with pytest.raises(ValueError, match="expected at least one accepted neuron, got 3 rejected ones"):
        recording(accepted=np.zeros(3, dtype=bool)).accepted_neurons()


def test_only_the_word_simulated_means_simulated():
    assert recording(modality="simulated").simulated
    assert not recording().simulated and not recording(modality="two-photon").simulated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"traces": np.zeros(4)}, r"expected traces of shape \(neurons, frames\), got \(4,\)"),
        ({"traces": np.zeros((3, 0))}, "expected traces of shape"),
        ({"sampling_rate": 0.0}, "expected a sampling rate in Hz above 0, got 0.0"),
        ({"sampling_rate": np.nan}, "expected a sampling rate in Hz above 0, got nan"),
        ({"trace_kind": "raw"}, "expected a trace kind among fluorescence, .*, got raw"),
        ({"roi_ids": ("a", "b")}, "expected 3 roi_ids, one for each trace, got 2"),
        ({"roi_ids": ("a", "b", "a")}, "expected unique roi_ids, got repeated a"),
        ({"accepted": np.ones(4, dtype=bool)}, "expected 3 accepted, one for each trace, got 4"),
        ({"centroids": np.zeros((3, 3)), "coordinate_unit": "um"}, r"expected centroids of shape \(neurons, 2\)"),
        ({"centroids": np.zeros((3, 2))}, 'expected coordinate_unit "um" or "px", got None'),
        (
            {"columns": {"snr": np.zeros(4)}},
            r"expected column 'snr' of shape \(3,\), .*, got \(4,\)",
        ),
        ({"columns": {"snr": np.zeros((3, 2))}}, "expected column 'snr' of shape"),
        ({"columns": {"id": np.zeros(3, np.int32)}}, "expected column 'id' of int64, .*, bool or text, got int32"),
        ({"columns": {"id": np.array(["a", 1, None])}}, "expected column 'id' of .*, got object"),
        ({"segment_starts": (0, 2, 2)}, "expected increasing segment_starts from 0 to below 4 frames"),
        ({"segment_starts": (0, 4)}, "expected increasing segment_starts"),
        ({"segment_starts": (1,)}, "expected increasing segment_starts"),
        ({"segment_starts": ()}, "expected increasing segment_starts"),
    ],
)
def test_what_does_not_fit_together_is_named_with_the_recording(changes, message):
    with pytest.raises(ValueError, match=f"recording 'r1': {message}"):
        recording(**changes)
