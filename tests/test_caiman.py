"""Estimates as CaImAn saves them are read: which traces, which components, and where the rate is from."""

import warnings

import h5py
import numpy as np
import pytest
import scipy.sparse
from damaged_files import damage, damage_heap, damages, reads_or_refuses
from hypothesis import given
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.caiman import find_caiman, read_caiman
from neurt.dataset_scripts.readers.source import scaled_centroids

HEIGHT, WIDTH, FRAMES = 4, 5, 40
C = np.arange(3.0 * FRAMES).reshape(3, FRAMES)
NONE = "NoneType"


def footprints():
    """Component 0 on (x, y) = (1, 2); 1 on (3, 0) and, three times as heavy, (4, 0); 2 on (0, 3)."""
    A = np.zeros((HEIGHT * WIDTH, 3))
    # Pixels run down the columns: x * height + y.
    A[1 * HEIGHT + 2, 0] = 5
    A[3 * HEIGHT + 0, 1], A[4 * HEIGHT + 0, 1] = 1, 3
    A[3, 2] = 1
    return A


def sparse(matrix):
    matrix = scipy.sparse.csc_array(matrix)
    return {name: getattr(matrix, name) for name in ("data", "indices", "indptr")} | {"shape": np.array(matrix.shape)}


def save(path, params=None, **changes):
    """Write estimates and params as attributes in groups, as `CNMF.save` does."""
    estimates = {
        "A": sparse(footprints()),
        "C": C,
        "YrA": np.full_like(C, 0.5),
        "F_dff": C / 100,
        "S": np.where(C % 10 == 0, C, 0),
        "idx_components": np.array([0, 2]),
        "idx_components_bad": np.array([1]),
        "cnn_preds": NONE,
        "dims": NONE,
    }
    tree = {
        "dims": np.array([HEIGHT, WIDTH]),
        "dview": NONE,
        "estimates": estimates | changes,
        "params": {"data": {"dims": np.array([HEIGHT, WIDTH]), "fr": 15.0, "decay_time": 0.4} | (params or {})},
    }
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        _fill(file, tree)
    return path


def _fill(group, tree):
    for name, value in tree.items():
        if isinstance(value, dict):
            _fill(group.create_group(name), value)
        elif value is not None:
            group[name] = value


def read(path, facts=None, **options):
    return [r for source in find_caiman(path).sources for r in read_caiman(source, facts or Facts(), **options)]


@pytest.mark.parametrize("suffix", ["hdf5", "h5"])
def test_accepted_components_are_read_with_positions_and_what_was_assumed(tmp_path, suffix):
    save(tmp_path / f"m1.{suffix}")
    assert detect(tmp_path)[0] == "caiman"
    (got,) = read(tmp_path)
    np.testing.assert_array_equal(got.traces, C[[0, 2]])
    np.testing.assert_allclose(got.centroids, [[1, 2], [0, 3]])
    assert got.traces.dtype == np.float32 and got.coordinate_unit == "px"
    assert (got.recording_id, got.roi_ids, got.trace_kind) == ("m1", ("0", "2"), "denoised")
    assert (got.sampling_rate, got.source["sampling_rate_from"]) == (15, "params.data.fr")
    assert (got.source["rois"], got.source["accepted_rois"], got.source["trace"]) == (3, 2, "estimates.C")
    assert got.source["notes"] == [
        "the traces are estimates.C, denoised by CaImAn's model; --trace-kind chooses others",
        "the sampling rate is params.data.fr, which is 30 Hz where nobody told CaImAn",
    ]


@pytest.mark.parametrize(
    ("kind", "expected", "name"),
    [
        ("denoised", C, "estimates.C"),
        ("fluorescence", C + 0.5, "estimates.C + estimates.YrA"),
        ("dff", C / 100, "estimates.F_dff"),
        ("deconvolved", np.where(C % 10 == 0, C, 0), "estimates.S"),
    ],
)
def test_the_trace_kind_chooses_the_traces(tmp_path, kind, expected, name):
    save(tmp_path / "m1.hdf5")
    (got,) = read(tmp_path, trace_kind=kind)
    np.testing.assert_allclose(got.traces, expected[[0, 2]], rtol=1e-6)
    assert (got.trace_kind, got.source["trace"]) == (kind, name)
    assert not any("--trace-kind" in note for note in got.source["notes"])


@pytest.mark.parametrize(("kind", "missing"), [("dff", "F_dff"), ("fluorescence", "YrA"), ("deconvolved", "S")])
def test_traces_that_caiman_did_not_compute_are_not_replaced(tmp_path, kind, missing):
    for value in (NONE, None):
        save(tmp_path / "m1.hdf5", **{missing: value})
        with pytest.raises(ValueError, match=rf"expected estimates\.{missing} .* got nothing; choose another"):
            read(tmp_path, trace_kind=kind)


def test_all_rois_keeps_the_rejected_ones_and_says_which(tmp_path):
    save(tmp_path / "m1.hdf5")
    (got,) = read(tmp_path, all_rois=True)
    np.testing.assert_array_equal(got.traces, C)
    np.testing.assert_allclose(got.centroids, [[1, 2], [3.75, 0], [0, 3]])
    assert got.accepted.tolist() == [True, False, True] and got.roi_ids == ("0", "1", "2")


def test_components_that_nobody_judged_all_count_as_accepted(tmp_path):
    save(tmp_path / "m1.hdf5", idx_components=NONE)
    (got,) = read(tmp_path)
    assert got.num_neurons == 3 and got.accepted.all()
    assert got.source["notes"][-1] == "idx_components is not set, so every component counts as accepted"


def test_no_accepted_component_leaves_the_recording_out(tmp_path):
    # NumPy makes floats of an empty list.
    save(tmp_path / "m1.hdf5", idx_components=np.array([]))
    with pytest.raises(ValueError, match="none of its 3 components is in idx_components"):
        read(tmp_path)


def test_what_is_stated_wins(tmp_path):
    save(tmp_path / "m1.hdf5")
    (got,) = read(tmp_path, Facts(sampling_rate=20.0, um_per_pixel=2.0, subject="M1"))
    assert (got.sampling_rate, got.subject_id, got.source["sampling_rate_from"]) == (20, "M1", "stated")
    np.testing.assert_allclose(got.centroids, [[2, 4], [0, 6]])
    assert got.coordinate_unit == "um" and not any("params.data.fr" in note for note in got.source["notes"])


@pytest.mark.parametrize(
    ("rate", "got"),
    [(NONE, "none in params"), (0, "0;"), (np.inf, "inf;"), (np.ones(2), "none in")],
)
def test_a_rate_that_is_none_is_asked_for(tmp_path, rate, got):
    save(tmp_path / "m1.hdf5", {"fr": rate})
    with pytest.raises(ValueError, match=f"expected a sampling rate in Hz, got {got}.*pass --sampling-rate"):
        read(tmp_path)


def test_full_footprints_and_an_image_size_among_the_estimates_will_do(tmp_path):
    save(tmp_path / "m1.hdf5", {"dims": NONE}, A=footprints(), dims=np.array([HEIGHT, WIDTH]))
    np.testing.assert_allclose(read(tmp_path)[0].centroids, [[1, 2], [0, 3]])


@pytest.mark.parametrize(
    ("params", "changes"),
    [
        ({"dims": NONE}, {}),
        ({"dims": np.array([4, 5, 2])}, {}),
        ({"dims": np.array([np.inf, 5])}, {}),
        ({}, {"A": NONE}),
    ],
)
def test_without_footprints_or_image_size_there_are_no_positions_and_a_note_says_so(tmp_path, params, changes):
    save(tmp_path / "m1.hdf5", params, **changes)
    (got,) = read(tmp_path)
    assert got.centroids is None and got.source["notes"][-1].endswith("so there are no positions")


def test_nan_in_traces_stays(tmp_path):
    dff = C / 100
    dff[2, 7] = np.nan
    save(tmp_path / "m1.hdf5", F_dff=dff)
    (got,) = read(tmp_path, trace_kind="dff")
    assert np.flatnonzero(np.isnan(got.traces)).tolist() == [FRAMES + 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"C": C.T, "idx_components": NONE}, r"each of 40 traces, got shape \(20, 3\); the traces look transposed"),
        ({"C": C[0]}, r"expected estimates\.C of shape \(components, frames\).*got shape \(40,\)"),
        ({"C": np.full((3, 40), b"x")}, r"expected estimates\.C of shape .* got nothing"),
        ({"C": {"data": C}}, r"expected estimates\.C of shape .* got nothing"),
        ({"idx_components": np.array([0, 3])}, "expected idx_components from 0 to 2, got others"),
        ({"idx_components": np.array([-1])}, "expected idx_components from 0 to 2"),
        ({"idx_components": np.array([0.5])}, "expected idx_components from 0 to 2"),
        ({"idx_components": np.array([np.nan])}, "expected idx_components from 0 to 2"),
        ({"A": sparse(footprints()[:-1])}, "expected footprints of 4 x 5 pixels, got 19 pixels"),
        ({"A": sparse(footprints()) | {"indices": np.array([99, 0, 1, 2])}}, r"expected footprints in estimates\.A"),
        ({"A": sparse(footprints()) | {"indptr": np.array([0, 9, 1, 4])}}, r"expected footprints in estimates\.A"),
        ({"A": sparse(footprints()) | {"shape": np.array([2**62, 2**62])}}, r"expected footprints in estimates\.A"),
        ({"A": sparse(footprints()) | {"shape": np.array([np.nan, 3])}}, r"expected footprints in estimates\.A"),
        ({"A": np.full((20, 3), np.nan)}, "expected finite weights"),
    ],
)
def test_estimates_that_do_not_fit_together_are_one_plain_line(tmp_path, changes, message):
    save(tmp_path / "m1.hdf5", **changes)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "m1.hdf5" in str(error.value) and "\n" not in str(error.value)


def test_traces_of_two_shapes_are_not_added(tmp_path):
    save(tmp_path / "m1.hdf5", YrA=C[:, :-1])
    with pytest.raises(ValueError, match="expected estimates.C and estimates.YrA of one shape"):
        read(tmp_path, trace_kind="fluorescence")


def test_a_trace_kind_of_another_format_is_refused(tmp_path):
    save(tmp_path / "m1.hdf5")
    with pytest.raises(ValueError, match="expected denoised, fluorescence, dff, deconvolved for CaImAn, got 'events'"):
        read(tmp_path, trace_kind="events")


def test_films_and_damaged_files_beside_it_do_not_end_the_search(tmp_path):
    whole = save(tmp_path / "m1.hdf5").read_bytes()
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["mov"] = np.zeros((2, 4, 5))
    (tmp_path / "cut.h5").write_bytes(whole[:-100])
    (tmp_path / "text.h5").write_text("no HDF5")
    found = find_caiman(tmp_path)
    assert [source.file for source in found.sources] == ["m1.hdf5"]
    assert [file for file, _ in found.passed_over] == ["cut.h5", "film.h5", "text.h5"]
    assert "perhaps truncated" in found.passed_over[0][1] and "no estimates" in found.passed_over[1][1]


def test_a_truncated_file_on_its_own_is_refused_with_the_reason(tmp_path):
    path = save(tmp_path / "m1.hdf5")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"m1\.hdf5: expected an HDF5 file, got a file that cannot be read"):
        detect(path)


def test_a_damaged_heap_is_refused(tmp_path):
    (source,) = find_caiman(save(tmp_path / "m1.hdf5")).sources
    damage_heap(source.path)
    for read in (lambda: detect(source.path), lambda: next(read_caiman(source, Facts()))):
        with pytest.raises(ValueError, match=r"m1\.hdf5: expected an HDF5 file, got one with a damaged heap"):
            read()


def test_links_are_followed_within_the_file_and_refused_out_of_it(tmp_path):
    save(tmp_path / "other.hdf5")
    path = save(tmp_path / "m1.hdf5", C=None, YrA=None)
    with h5py.File(path, "a") as file:
        file["shared/C"] = C
        file["estimates/C"] = h5py.SoftLink("/shared/C")
        file["estimates/YrA"] = h5py.ExternalLink("other.hdf5", "/estimates/YrA")
    np.testing.assert_array_equal(read(path)[0].traces, C[[0, 2]])
    with pytest.raises(ValueError, match=r"m1\.hdf5, /estimates: expected links within the file"):
        read(path, trace_kind="fluorescence")


def test_positions_beyond_float32_become_infinite_without_a_warning():
    with warnings.catch_warnings(action="error"):
        for scale in (None, 2.0):
            assert np.isinf(scaled_centroids(np.full((1, 2), 1e300), "px", scale)[0]).all()


def test_damage_gives_recordings_or_one_plain_line(tmp_path):
    whole = save(tmp_path / "whole.hdf5").read_bytes()
    path = tmp_path / "a.hdf5"

    @damages
    @given(damage())
    def check(change):
        path.write_bytes(change(whole))
        for kind in ("fluorescence", "deconvolved"):
            reads_or_refuses(lambda kind=kind: read(path, trace_kind=kind))

    check()
