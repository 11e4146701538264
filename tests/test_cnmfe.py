"""Structures that CNMF-E leaves in MATLAB files of any version are read; its objects are refused with the way out."""

import h5py
import numpy as np
import pytest
import scipy.sparse
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from matlab_files import VERSIONS, StructArray, write_matlab, write_object
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.cnmfe import find_cnmfe, read_cnmfe

HEIGHT, WIDTH, FRAMES = 4, 5, 40
C = np.arange(3.0 * FRAMES).reshape(3, FRAMES)


def footprints():
    """Neuron 0 on (x, y) = (1, 2); neuron 1 on (3, 0) and, three times as heavy, (4, 0); neuron 2 nowhere."""
    A = np.zeros((HEIGHT * WIDTH, 3))
    # Pixels run down the columns: x * height + y.
    A[1 * HEIGHT + 2, 0] = 5
    A[3 * HEIGHT + 0, 1], A[4 * HEIGHT + 0, 1] = 1, 3
    return A


def neuron(**changes):
    fields = {
        "A": scipy.sparse.csc_array(footprints()),
        "C": C,
        "C_raw": C + 0.5,
        "S": scipy.sparse.csc_array(np.where(C % 10 == 0, C, 0)),
        "ids": np.array([[2.0, 3.0, 7.0]]),
        "Fs": np.array([[12.5]]),
        "options": {"d1": np.array([[float(HEIGHT)]]), "d2": np.array([[float(WIDTH)]]), "name": "none"},
        "P": {"mat_file": "film.mat"},
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def save(path, version="7", name="results", **changes):
    return write_matlab(path, {name: neuron(**changes), "Cn": np.zeros((HEIGHT, WIDTH))}, version)


def read(path, facts=None, **options):
    return [r for source in find_cnmfe(path).sources for r in read_cnmfe(source, facts or Facts(), **options)]


@pytest.mark.parametrize("name", ["results", "neuron"])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_structure_is_read_with_traces_positions_rate_and_ids(tmp_path, version, name):
    save(tmp_path / "m1.mat", version, name)
    assert detect(tmp_path)[0] == "cnmfe"
    (got,) = read(tmp_path)
    np.testing.assert_array_equal(got.traces, C)
    np.testing.assert_allclose(got.centroids, [[1, 2], [3.75, 0], [np.nan, np.nan]])
    assert got.traces.dtype == np.float32 and got.coordinate_unit == "px"
    assert (got.recording_id, got.roi_ids, got.sampling_rate) == ("m1", ("2", "3", "7"), 12.5)
    assert (got.trace_kind, got.source["trace"], got.source["sampling_rate_from"]) == ("denoised", f"{name}.C", "Fs")
    assert got.source["notes"] == [
        "the traces are C, denoised by CNMF-E's model; --trace-kind chooses others",
        "footprints without weight have no position",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_trace_kind_chooses_the_traces(tmp_path, version):
    save(tmp_path / "m1.mat", version)
    for kind, expected in (("denoised", C), ("fluorescence", C + 0.5), ("deconvolved", np.where(C % 10 == 0, C, 0))):
        (got,) = read(tmp_path, trace_kind=kind)
        np.testing.assert_array_equal(got.traces, expected.astype(np.float32))
        assert got.trace_kind == kind and not any("--trace-kind" in note for note in got.source["notes"])
    with pytest.raises(ValueError, match="expected denoised, fluorescence, deconvolved for CNMF-E, got 'dff'"):
        read(tmp_path, trace_kind="dff")


def test_full_footprints_lie_where_sparse_ones_do(tmp_path):
    save(tmp_path / "a.mat", A=footprints())
    (got,) = read(tmp_path, Facts(um_per_pixel=2.0))
    np.testing.assert_allclose(got.centroids[:2], [[2, 4], [7.5, 0]])
    assert got.coordinate_unit == "um"


@pytest.mark.parametrize(
    "changes", [{"options": None}, {"A": None, "C_raw": C}, {"options": {"d1": np.zeros((1, 1))}}]
)
def test_without_footprints_or_image_size_there_are_no_positions_and_a_note_says_so(tmp_path, changes):
    write_matlab(tmp_path / "a.mat", {"results": neuron(**changes)})
    if "A" in changes:
        # Without A nobody would take it for CNMF-E's.
        assert read(tmp_path) == []
    else:
        (got,) = read(tmp_path)
        assert got.centroids is None and "so there are no positions" in got.source["notes"][1]


def test_nan_in_traces_stays(tmp_path):
    raw = C.copy()
    raw[1, 3] = np.nan
    save(tmp_path / "a.mat", C_raw=raw)
    (got,) = read(tmp_path, trace_kind="fluorescence")
    assert np.isnan(got.traces).sum() == 1 and np.isnan(got.traces[1, 3])


@pytest.mark.parametrize("ids", [None, np.array([[1.0, 1.0, 2.0]]), np.array([[1.0, 2.0]]), "abc"])
def test_ids_that_name_no_neuron_give_way_to_the_order(tmp_path, ids):
    save(tmp_path / "a.mat", ids=ids)
    assert read(tmp_path)[0].roi_ids == ("0", "1", "2")


def test_large_numbers_of_neurons_keep_their_digits(tmp_path):
    save(tmp_path / "a.mat", ids=1234567 + np.arange(3.0)[None])
    assert read(tmp_path)[0].roi_ids == ("1234567", "1234568", "1234569")


def test_an_image_without_end_has_no_positions(tmp_path):
    save(tmp_path / "a.mat", options={"d1": np.array([[np.inf]]), "d2": np.array([[5.0]])})
    assert read(tmp_path)[0].centroids is None


@pytest.mark.parametrize("rate", [None, np.array([[np.nan]]), np.zeros((1, 1)), "fast"])
def test_a_rate_that_nobody_told_cnmfe_is_asked_for(tmp_path, rate):
    save(tmp_path / "a.mat", Fs=rate)
    with pytest.raises(ValueError, match="expected a sampling rate in Hz, got no Fs; pass --sampling-rate"):
        read(tmp_path)
    (got,) = read(tmp_path, Facts(sampling_rate=20.0))
    assert (got.sampling_rate, got.source["sampling_rate_from"]) == (20, "stated")


def test_the_rate_may_stand_among_the_options(tmp_path):
    options = neuron()["options"] | {"Fs": np.array([[15.0]])}
    save(tmp_path / "a.mat", Fs=None, options=options)
    (got,) = read(tmp_path)
    assert (got.sampling_rate, got.source["sampling_rate_from"]) == (15, "options.Fs")


def test_an_object_is_refused_with_the_command_that_makes_a_structure(tmp_path):
    write_object(tmp_path / "a.mat", "neuron", "Sources2D")
    with pytest.raises(ValueError, match=r"a\.mat: expected a structure.*got an object.*neuron\.obj2struct\(\)"):
        read(tmp_path)


def test_other_matlab_files_are_passed_over(tmp_path):
    save(tmp_path / "m1.mat")
    write_matlab(tmp_path / "film.mat", {"neuron": {"Y": C}, "results": C})
    found = find_cnmfe(tmp_path)
    assert [source.file for source in found.sources] == ["m1.mat"]
    assert [file for file, _ in found.passed_over] == ["film.mat"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"C": C.T}, r"A with a column for each of 40 traces, got shape \(20, 3\); the traces look transposed"),
        ({"C": C[:2]}, r"a column for each of 2 traces, got shape \(20, 3\)$"),
        ({"C": "traces"}, r"expected C of shape \(neurons, frames\), got none"),
        ({"C": np.zeros((0, 40))}, "expected C of shape"),
        ({"C": scipy.sparse.csc_array((10**9, 3))}, "expected C as large as a full C, got sparse"),
        ({"options": {"d1": np.array([[9.0]]), "d2": np.array([[5.0]])}}, "footprints of 9 x 5 pixels, got 20 pixels"),
        ({"A": np.full((20, 3), np.nan)}, "expected finite weights"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_fields_that_do_not_fit_together_are_one_plain_line(tmp_path, version, changes, message):
    save(tmp_path / "a.mat", version, **changes)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "a.mat" in str(error.value) and "\n" not in str(error.value)


def test_several_structures_are_not_chosen_from(tmp_path):
    write_matlab(tmp_path / "a.mat", {"neuron": neuron(), "results": neuron()})
    with pytest.raises(ValueError, match="expected one structure of CNMF-E, got neuron, results"):
        read(tmp_path)
    write_matlab(tmp_path / "a.mat", {"neuron": StructArray([neuron(), neuron()])})
    with pytest.raises(ValueError, match="expected one structure neuron, got several"):
        read(tmp_path)


def test_a_sparse_matrix_may_not_say_any_size(tmp_path):
    save(tmp_path / "a.mat", "7.3")
    with h5py.File(tmp_path / "a.mat", "a") as file:
        file["results/S"].attrs["MATLAB_sparse"] = np.uint64(2**40)
    with pytest.raises(ValueError, match="expected S as large as a full C"):
        read(tmp_path, trace_kind="deconvolved")


@pytest.mark.parametrize("version", VERSIONS)
def test_damage_gives_recordings_or_one_plain_line(tmp_path, version):
    whole = save(tmp_path / "whole" / "a.mat", version).read_bytes()
    path = tmp_path / "a.mat"

    @damages
    @given(damage())
    def check(change):
        path.write_bytes(change(whole))
        for kind in ("denoised", "deconvolved"):
            reads_or_refuses(lambda kind=kind: read(path, Facts(sampling_rate=10.0), trace_kind=kind))

    check()
