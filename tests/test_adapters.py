"""Objects of roiextractors and pynapple become recordings; the stand-ins here behave as those of the packages did.

They were checked against roiextractors 0.5.13, 0.7.0 and 0.10.0 and pynapple 0.11.4.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from neurt.dataset_scripts.adapters import recording_from_pynapple, recording_from_roiextractors
from neurt.dataset_scripts.parquet_build import write_build

WHO = {"trace_kind": "dff", "recording_id": "m1_day1", "subject_id": "m1"}
DFF = np.arange(120, dtype=np.float64).reshape(40, 3)


class Segmentation:
    """An extractor of roiextractors 0.10: samples first, `get_property`, masks of height x width x ROIs."""

    def __init__(self, dff=DFF, roi_ids=("a", "b", "c"), rate=30.0, accepted=(True, False, True)):
        self.traces = {"raw": None, "dff": dff}
        self.roi_ids, self.rate, self.accepted = list(roi_ids), rate, accepted

    def get_traces(self, name="raw"):
        return self.traces.get(name)

    def get_traces_dict(self):
        return self.traces

    def get_roi_ids(self):
        return self.roi_ids

    def get_num_rois(self):
        return 3

    def get_num_samples(self):
        return 40

    def get_sampling_frequency(self):
        return self.rate

    def get_property_keys(self):
        return ["snr", "is_accepted"] if self.accepted else ["snr"]

    def get_property(self, key, ids):
        assert key == "is_accepted"
        return np.array([self.accepted[self.roi_ids.index(roi)] for roi in ids])

    def get_roi_image_masks(self, roi_ids):
        """ROI i lies in row 1, three times heavier in column i + 1 than in column i."""
        masks = np.zeros((4, 5, len(roi_ids)))
        for n, roi in enumerate(roi_ids):
            i = self.roi_ids.index(roi)
            masks[1, i : i + 2, n] = 1.0, 3.0
        return masks


class OldSegmentation(Segmentation):
    """An extractor of roiextractors 0.5: frames, and a list of accepted ROIs."""

    get_num_samples = get_property_keys = get_property = property()

    def get_num_frames(self):
        return 40

    def get_accepted_list(self):
        return ["c", "a"]


def tsdframe(times, epochs=None, columns=("a", "b", "c")):
    start, end = np.transpose(epochs if epochs else [(times[0], times[-1])])
    values = np.arange(len(times) * len(columns), dtype=np.float64).reshape(len(times), len(columns))
    support = SimpleNamespace(start=start, end=end)
    return SimpleNamespace(values=values, t=np.asarray(times), columns=list(columns), time_support=support)


@pytest.mark.parametrize("kind", [Segmentation, OldSegmentation])
@pytest.mark.parametrize("dff", [DFF, DFF.T])
def test_a_segmentation_of_either_way_round_becomes_a_recording(kind, dff):
    got = recording_from_roiextractors(kind(dff), **WHO)
    np.testing.assert_array_equal(got.traces, DFF.T)
    np.testing.assert_array_equal(got.centroids, [[0.75, 1], [1.75, 1], [2.75, 1]])
    assert (got.roi_ids, got.accepted.tolist(), got.coordinate_unit) == (("a", "b", "c"), [True, False, True], "px")
    assert (got.sampling_rate, got.session_id, got.traces.dtype) == (30, "m1_day1", np.float32)
    assert got.source["sampling_rate_from"] == "its frequency"


def test_what_is_stated_wins_over_the_segmentation():
    got = recording_from_roiextractors(
        Segmentation(rate=None, accepted=None), **WHO, session_id="day1", sampling_rate=10.0, um_per_pixel=2.0
    )
    np.testing.assert_array_equal(got.centroids, [[1.5, 2], [3.5, 2], [5.5, 2]])
    assert (got.sampling_rate, got.session_id, got.coordinate_unit) == (10, "day1", "um")
    assert got.accepted.all() and got.source["sampling_rate_from"] == "stated"


def test_a_segmentation_without_masks_has_no_positions():
    class Bare(Segmentation):
        def get_roi_image_masks(self, roi_ids):
            raise NotImplementedError

    assert recording_from_roiextractors(Bare(), **WHO).centroids is None


@pytest.mark.parametrize(
    ("made", "stated", "message"),
    [
        ({}, {"trace_kind": "fluorescence"}, "has among fluorescence, dff.*got 'fluorescence'; it has dff"),
        ({}, {"trace_kind": "events"}, "got 'events'; it has dff"),
        ({"dff": DFF[:, :2]}, {}, r"tell the way round of, got shape \(40, 2\)"),
        ({"rate": None}, {}, "got none from the extractor; pass sampling_rate"),
        ({"roi_ids": ("a", "b")}, {}, "expected 3 roi_ids"),
    ],
)
def test_a_segmentation_that_does_not_fit_together_is_refused(made, stated, message):
    with pytest.raises(ValueError, match=message) as error:
        recording_from_roiextractors(Segmentation(**made), **WHO | stated)
    assert "\n" not in str(error.value)


def test_as_many_rois_as_samples_could_be_either_way_round():
    square = Segmentation(np.zeros((3, 3)))
    square.get_num_samples = lambda: 3
    with pytest.raises(ValueError, match="3 ROIs and 3 samples tell the way round of"):
        recording_from_roiextractors(square, **WHO)


def test_a_tsdframe_becomes_a_recording_and_goes_into_a_build(tmp_path):
    frame = tsdframe(np.arange(40) / 10)
    got = recording_from_pynapple(frame, [[1, 2], [3, 4], [5, 6]], "px", **WHO, um_per_pixel=2.0)
    np.testing.assert_array_equal(got.traces, frame.values.T)
    np.testing.assert_array_equal(got.centroids, [[2, 4], [6, 8], [10, 12]])
    assert (got.roi_ids, got.coordinate_unit, got.segment_starts) == (("a", "b", "c"), "um", (0,))
    assert got.sampling_rate == pytest.approx(10) and got.source["sampling_rate_from"] == "its times"
    assert write_build([got], tmp_path / "build", builder="in memory", parameters={}).num_neurons == 3


def test_epochs_and_holes_begin_segments():
    # The second epoch follows the first without a pause; in the third, 0.3 s are missing.
    times = np.concatenate([np.arange(20), np.arange(20, 40), np.arange(100, 120), np.arange(123, 160)]) / 10
    frame = tsdframe(times, epochs=[(0, 1.95), (1.98, 4), (9, 16)])
    assert recording_from_pynapple(frame, **WHO).segment_starts == (0, 20, 40, 60)


def test_pauses_between_many_short_epochs_are_not_irregular_times():
    times = np.add.outer(10 * np.arange(8), np.arange(5) / 10).ravel()
    got = recording_from_pynapple(tsdframe(times, epochs=[(10 * i, 10 * i + 1) for i in range(8)]), **WHO)
    assert got.sampling_rate == pytest.approx(10) and got.segment_starts == tuple(range(0, 40, 5))


def test_irregular_times_need_a_stated_rate():
    frame = tsdframe(np.cumsum([0.1, 0.9] * 20))
    with pytest.raises(ValueError, match=r"recording 'm1_day1': .*irregular \(\d+% of the steps.*pass sampling_rate"):
        recording_from_pynapple(frame, **WHO)
    assert recording_from_pynapple(frame, **WHO, sampling_rate=2.0).sampling_rate == 2


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ((np.zeros((2, 2)), "um"), "expected 3 centroids"),
        ((np.zeros((3, 3)), "um"), "centroids of shape"),
        ((np.zeros((3, 2)), None), 'coordinate_unit "um" or "px"'),
    ],
)
def test_centroids_of_other_neurons_or_without_a_unit_are_refused(positions, message):
    with pytest.raises(ValueError, match=message):
        recording_from_pynapple(tsdframe(np.arange(40) / 10), *positions, **WHO)


def test_something_else_than_a_tsdframe_is_refused():
    with pytest.raises(ValueError, match="expected a TsdFrame, got ndarray"):
        recording_from_pynapple(np.zeros((3, 3)), **WHO)
