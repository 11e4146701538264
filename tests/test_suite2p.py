"""suite2p's folders and MATLAB files are read as they are; what they do not say is asked for."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from matlab_files import read_suite2p
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.source import NothingUsable
from neurt.dataset_scripts.readers.suite2p import find_suite2p

REAL = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
RATE = Facts(sampling_rate=10.0)


def plane_arrays(rois=4, frames=40):
    """Four ROIs of which 0 and 2 are accepted."""
    F = 100 + np.arange(rois * frames, dtype=np.float32).reshape(rois, frames)
    stat = [{"med": [10 * i, i], "ypix": np.arange(3)} for i in range(rois)]
    iscell = np.array([[1 - i % 2, 0.5] for i in range(rois)], dtype=float)
    return {"F": F, "Fneu": np.full_like(F, 10), "iscell": iscell, "stat": np.array(stat, dtype=object)}


def write_plane(folder, ops=None, **changes):
    folder.mkdir(parents=True)
    for name, array in (plane_arrays() | changes).items():
        if array is not None:
            np.save(folder / f"{name}.npy", array)
    if ops is not None:
        np.save(folder / "ops.npy", ops)
    return folder


def write_mat(path, ops=None, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: array for name, array in (plane_arrays() | changes).items() if array is not None}
    scipy.io.savemat(path, arrays | ({} if ops is None else {"ops": ops}))
    return path


def ids(path):
    return [r.recording_id for r in read_suite2p(path, RATE)]


def test_accepted_cells_only_less_seven_tenths_of_their_neuropil(tmp_path):
    write_plane(tmp_path / "plane0")
    (got,) = read_suite2p(tmp_path / "plane0", RATE, trace_kind="fluorescence")
    assert got.roi_ids == ("0", "2") and got.sampling_rate == 10 and got.field == 0
    # ROI 0 begins at 100, ROI 2 at 100 + 80; both lose 0.7 * 10.
    np.testing.assert_allclose(got.traces[:, 0], [93, 173])
    assert got.source["rois"] == 4 and got.source["accepted_rois"] == 2


def test_dff_is_relative_to_the_tenth_percentile(tmp_path):
    write_plane(tmp_path / "plane0")
    (got,) = read_suite2p(tmp_path / "plane0", RATE)
    # y of ROI 0 is 93 ... 132; its 10th percentile lies at index 3.9, so f0 = 96.9 and (93 - 96.9) / 96.9 comes first.
    np.testing.assert_allclose(got.traces[0, 0], -3.9 / 96.9, rtol=1e-5)
    assert got.trace_kind == "dff" and got.traces.dtype == np.float32


def test_dff_divides_by_no_less_than_a_tenth_of_the_median(tmp_path):
    F = np.full((1, 40), 100.0, dtype=np.float32)
    F[0, 30:] = 200
    write_plane(tmp_path / "plane0", F=F, Fneu=np.full_like(F, 140), iscell=np.ones((1, 2)), stat=None)
    (got,) = read_suite2p(tmp_path / "plane0", RATE)
    # y is 2 and 102; a tenth of the median of F is 10.
    np.testing.assert_allclose(got.traces[0, [0, -1]], [-0.8, 9.2], rtol=1e-5)
    assert got.source["floored_rois"] == ["0"] and got.source["notes"] == []


def test_neurons_without_a_positive_baseline_are_left_out_and_named(tmp_path):
    F = plane_arrays()["F"]
    F[2:] *= -1
    write_plane(tmp_path / "plane0", F=F)
    for options, roi_ids, left_out in (({}, ("0",), "1 of 2"), ({"all_rois": True}, ("0", "1"), "2 of 4")):
        (got,) = read_suite2p(tmp_path / "plane0", RATE, **options)
        rois = "2" if left_out == "1 of 2" else "2, 3"
        note = f"left out as f0 is not above 0: {left_out} neurons: roi {rois}; --trace-kind fluorescence keeps them"
        assert (got.roi_ids, got.source["notes"]) == (roi_ids, [note])
        np.testing.assert_allclose(got.traces[0, 0], -3.9 / 96.9, rtol=1e-5)
        np.testing.assert_array_equal(got.centroids, [[0, 0], [1, 10]][: len(roi_ids)])
        assert got.accepted.tolist() == [True, False][: len(roi_ids)]
    (got,) = read_suite2p(tmp_path / "plane0", RATE, trace_kind="fluorescence")
    assert got.roi_ids == ("0", "2")


def test_a_plane_without_any_positive_baseline_has_nothing_to_use(tmp_path):
    write_plane(tmp_path / "plane0", F=np.zeros((4, 40), np.float32))
    with pytest.raises(NothingUsable, match="none of its 2 neurons has a baseline above 0.*--trace-kind fluorescence"):
        list(read_suite2p(tmp_path / "plane0", RATE))


def test_positions_are_x_then_y_in_pixels_or_micrometres(tmp_path):
    write_plane(tmp_path / "plane0")
    (pixels,) = read_suite2p(tmp_path / "plane0", RATE)
    (microns,) = read_suite2p(tmp_path / "plane0", Facts(sampling_rate=10.0, um_per_pixel=0.5))
    np.testing.assert_array_equal(pixels.centroids, [[0, 0], [2, 20]])
    np.testing.assert_array_equal(microns.centroids, [[0, 0], [1, 10]])
    assert (pixels.coordinate_unit, microns.coordinate_unit) == ("px", "um")


def test_all_rois_keeps_the_rejected_ones_and_says_which(tmp_path):
    write_plane(tmp_path / "plane0")
    (got,) = read_suite2p(tmp_path / "plane0", RATE, all_rois=True)
    assert got.roi_ids == ("0", "1", "2", "3") and got.accepted.tolist() == [True, False, True, False]


def test_without_neuropil_the_coefficient_must_be_zero(tmp_path):
    write_plane(tmp_path / "plane0", Fneu=None)
    with pytest.raises(ValueError, match="--neuropil-coefficient 0"):
        list(read_suite2p(tmp_path / "plane0", RATE))
    (got,) = read_suite2p(tmp_path / "plane0", RATE, trace_kind="fluorescence", neuropil_coefficient=0.0)
    np.testing.assert_array_equal(got.traces[:, 0], [100, 180])


def test_a_plane_is_named_after_the_folders_that_mean_something(tmp_path, monkeypatch):
    for plane in ("plane0", "plane2", "plane10"):
        write_plane(tmp_path / "mouse1" / "suite2p" / plane)
    write_plane(tmp_path / "mouse2" / "suite2p" / "plane0")
    write_plane(tmp_path / "mouse1" / "suite2p" / "combined")
    mouse1 = ["mouse1_plane0", "mouse1_plane2", "mouse1_plane10"]
    assert ids(tmp_path) == [*mouse1, "mouse2_plane0"]
    assert ids(tmp_path / "mouse1") == ids(tmp_path / "mouse1" / "suite2p") == mouse1
    one = tmp_path / "mouse1" / "suite2p" / "plane2"
    assert ids(one) == ids(one / "F.npy") == ["mouse1_plane2"]
    monkeypatch.chdir(one)
    assert ids(Path(".")) == ["mouse1_plane2"]
    assert {r.session_id for r in read_suite2p(tmp_path / "mouse1", RATE)} == {"mouse1"}
    assert [r.subject_id for r in read_suite2p(tmp_path / "mouse1", RATE)] == ["mouse1"] * 3
    assert find_suite2p(tmp_path).passed_over == [
        ("mouse1/suite2p/combined", "the planes it combines are read one by one")
    ]


def test_matlab_files_of_any_name_are_known_by_what_is_inside(tmp_path):
    write_mat(tmp_path / "B.mat")
    write_mat(tmp_path / "A.mat")
    scipy.io.savemat(tmp_path / "other.mat", {"behaviour": np.zeros(3)})
    assert ids(tmp_path) == ["A", "B"]
    assert [file for file, _ in find_suite2p(tmp_path).passed_over] == ["other.mat"]


def test_a_matlab_file_reads_like_the_folder_it_came_from(tmp_path):
    folder = write_plane(tmp_path / "m1" / "plane0")
    (expected,) = read_suite2p(folder, RATE)
    write_mat(tmp_path / "m2" / "suite2p" / "plane0" / "Fall.mat")
    (got,) = read_suite2p(tmp_path / "m2", RATE)
    assert (got.recording_id, got.session_id, got.field) == ("m2_plane0", "m2", 0)
    np.testing.assert_array_equal(got.traces, expected.traces)
    np.testing.assert_array_equal(got.centroids, expected.centroids)
    assert got.roi_ids == expected.roi_ids
    assert ids(tmp_path / "m2" / "suite2p" / "plane0" / "Fall.mat") == ["m2_plane0"]


def test_a_plane_in_both_forms_is_read_once(tmp_path):
    write_mat(write_plane(tmp_path / "m1" / "plane0") / "Fall.mat")
    assert ids(tmp_path) == ["m1_plane0"]


def test_a_single_roi_in_a_matlab_file_keeps_its_shape(tmp_path):
    one = {name: array[:1] for name, array in plane_arrays().items()}
    (got,) = read_suite2p(write_mat(tmp_path / "one.mat", **one), RATE)
    assert got.traces.shape == (1, 40) and got.centroids.shape == (1, 2)


@pytest.mark.parametrize("name", ["ops", "settings"])
def test_the_rate_in_the_file_is_used_unless_another_is_stated(tmp_path, name):
    np.save(write_plane(tmp_path / "plane0") / f"{name}.npy", {"fs": 7.5})
    (own,) = read_suite2p(tmp_path / "plane0")
    (stated,) = read_suite2p(tmp_path / "plane0", RATE)
    assert (own.sampling_rate, own.source["sampling_rate_from"], own.source["notes"]) == (7.5, "ops.fs", [])
    assert (stated.sampling_rate, stated.source["sampling_rate_from"]) == (10, "stated")
    assert stated.source["notes"] == ["ops.fs is not the stated sampling rate, which was used"]


@pytest.mark.parametrize("ops", [None, {}, *({"fs": fs} for fs in (0.0, np.nan, None, [], "fast", {}))])
def test_a_missing_rate_is_asked_for(tmp_path, ops):
    write_plane(tmp_path / "plane0", ops)
    with pytest.raises(ValueError, match="plane0: expected a sampling rate in Hz.*pass --sampling-rate"):
        list(read_suite2p(tmp_path / "plane0"))


def test_a_frame_time_that_contradicts_the_rate_is_not_ignored(tmp_path):
    write_mat(tmp_path / "a.mat", {"fs": 5.0}, dt=0.125)
    with pytest.raises(ValueError, match=r"ops\.fs = 5 Hz but dt = 0\.125 s, which is 8 Hz"):
        list(read_suite2p(tmp_path / "a.mat"))
    write_mat(tmp_path / "b.mat", {"fs": 5.0}, dt=0.2)
    assert next(read_suite2p(tmp_path / "b.mat")).sampling_rate == 5
    assert next(read_suite2p(tmp_path / "a.mat", Facts(sampling_rate=8.0))).sampling_rate == 8


def test_movies_strung_together_begin_new_segments(tmp_path):
    write_plane(tmp_path / "plane0", {"fs": 5.0, "frames_per_folder": np.array([30, 10])})
    write_plane(tmp_path / "plane1", {"fs": 5.0, "frames_per_folder": np.array([60, 20])})
    write_plane(tmp_path / "plane2", {"fs": 5.0, "frames_per_folder": None})
    # The second plane's counts do not add up to its 40 frames, so they say nothing about it.
    assert [r.segment_starts for r in read_suite2p(tmp_path)] == [(0, 30), (0,), (0,)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_frames_stay_and_the_baseline_is_that_of_the_others(tmp_path, bad):
    arrays = plane_arrays()
    arrays["F"][0, 35:] = bad
    arrays["F"][2] = bad
    write_plane(tmp_path / "plane0", **arrays)
    (got,) = read_suite2p(tmp_path / "plane0", RATE)
    # y of ROI 0 is 93 ... 127; its 10th percentile lies at index 3.4, but with infinite frames counted at 3.9.
    f0 = 93 + (3.4 if np.isnan(bad) else 3.9)
    np.testing.assert_allclose(got.traces[0, :35], (np.arange(93, 128) - f0) / f0, rtol=1e-4, atol=1e-6)
    assert not np.isfinite(got.traces[0, 35:]).any() and not np.isfinite(got.traces[1]).any()


def test_bad_frames_of_rejected_rois_do_not_matter(tmp_path):
    F = plane_arrays()["F"]
    F[1] = np.nan
    write_plane(tmp_path / "plane0", F=F)
    assert next(read_suite2p(tmp_path / "plane0", RATE)).num_neurons == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"F": plane_arrays()["F"].T, "Fneu": plane_arrays()["Fneu"].T},
            "expected 40 entries in iscell, got 4.*transposed",
        ),
        ({"Fneu": np.zeros((4, 39))}, r"expected Fneu of the shape of F \(4, 40\), got \(4, 39\)"),
        ({"stat": plane_arrays()["stat"][:3]}, "expected 4 entries in stat, got 3"),
        ({"iscell": None}, "expected iscell.*pass --all-rois"),
        ({"iscell": np.zeros((4, 2))}, "none of its 4 ROIs is accepted"),
        ({"stat": np.array([{"iplane": i, "med": [0, 0]} for i in range(4)])}, "expected one plane, got 4"),
        ({"stat": np.array([{"ypix": 0}] * 4)}, 'expected "med"'),
        ({"stat": np.array([None] * 4)}, 'expected "med"'),
        ({"stat": np.zeros((4, 2))}, 'expected "med"'),
        ({"stat": np.array({"med": [0, 0]})}, 'expected "med"'),
        ({"F": np.full((4, 40), "bright")}, "F.npy: expected numbers in F"),
        ({"F": np.full((4, 40), 1j)}, "F.npy: expected numbers in F, got complex"),
        ({"iscell": np.full((4, 2), "yes")}, "iscell.npy: expected numbers in iscell"),
    ],
)
def test_arrays_that_do_not_fit_together_are_one_plain_line(tmp_path, changes, message):
    write_plane(tmp_path / "plane0", **changes)
    with pytest.raises(ValueError, match=message):
        list(read_suite2p(tmp_path / "plane0", RATE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"F": np.full((4, 40), "bright")}, "expected numbers in F"),
        ({"stat": np.zeros(4)}, "expected stat as a structure"),
        ({"ops": 5.0}, "expected ops as a structure"),
    ],
)
def test_other_things_in_a_matlab_file_are_one_plain_line(tmp_path, changes, message):
    write_mat(tmp_path / "a.mat", **changes)
    with pytest.raises(ValueError, match=message):
        list(read_suite2p(tmp_path / "a.mat", RATE))


@pytest.mark.parametrize("name", ["F.npy", "Fneu.npy", "iscell.npy", "stat.npy"])
def test_a_truncated_array_is_one_plain_line(tmp_path, name):
    path = write_plane(tmp_path / "plane0") / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match=name):
        list(read_suite2p(tmp_path, RATE))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_matlab_file_is_one_plain_line(tmp_path, share):
    path = write_mat(tmp_path / "a.mat", {"fs": 5.0})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"a\.mat: expected") as error:
        list(read_suite2p(path, RATE))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trace_kind": "denoised"}, "expected dff, fluorescence for suite2p"),
        ({"neuropil_coefficient": 7.0}, "from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(tmp_path, options, message):
    write_plane(tmp_path / "plane0")
    with pytest.raises(ValueError, match=message):
        list(read_suite2p(tmp_path, RATE, **options))


def test_a_folder_without_suite2p_output_is_one_plain_line(tmp_path):
    with pytest.raises(ValueError, match="expected recordings as suite2p, found none"):
        detect(tmp_path, "suite2p")


def test_nothing_in_a_pickle_runs(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    write_plane(tmp_path / "plane0", stat=np.array([{"med": Runs()}] * 4, dtype=object))
    with pytest.raises(ValueError, match="refused"):
        list(read_suite2p(tmp_path / "plane0", RATE))
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not (REAL / "algamal_two_photon").is_dir(), reason="no real recordings here")
def test_the_real_recordings_read_as_an_independent_reader_does(monkeypatch):
    monkeypatch.syspath_prepend(str(REAL))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import real_recordings

    for name in ("algamal_two_photon", "suite2p_plane0"):
        ours = {r.recording_id: r for r in read_suite2p(REAL / name, RATE)}
        theirs = list(getattr(real_recordings, name)())
        scale = 0.994 if name == "algamal_two_photon" else 1.0
        assert len(ours) == len(theirs)
        for item in theirs:
            got = ours[item["session"]]
            np.testing.assert_allclose(got.traces, item["x"], rtol=1e-6)
            np.testing.assert_allclose(got.centroids * scale, item["xy"], rtol=1e-6)
