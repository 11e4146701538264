"""A MATLAB file of any version says the same; one that is damaged or lies about its sizes is one plain line."""

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io.matlab
import scipy.sparse
from damaged_files import bounded, damage, damages, reads_or_refuses
from hypothesis import given
from matlab_files import VERSIONS, StructArray, read_suite2p, write_matlab, write_object
from neurt.dataset_scripts.hdf5_file import open_hdf5, read_blocks, read_lines, read_whole
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers.footprints import column_centroids, image_centroids
from neurt.dataset_scripts.readers.matlab import open_matlab, variables_in_matlab
from neurt.dataset_scripts.readers.matlab_values import Opaque, Stack
from neurt.dataset_scripts.readers.sparse import checked_columns
from neurt.dataset_scripts.readers.suite2p import find_suite2p

SCIPY_FILES = Path(scipy.io.matlab.__file__).parent / "tests" / "data"
RATE = Facts(sampling_rate=10.0)
NUMBERS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
STACK = np.arange(24.0).reshape(2, 3, 4)
SPARSE = scipy.sparse.csc_array(np.array([[0, 0, 5.0], [7.0, 0, 0]]))


def variables():
    return {
        "numbers": NUMBERS,
        "stack": STACK,
        "sparse": SPARSE,
        "nothing": scipy.sparse.csc_array((2, 3)),
        "text": "GCaMP6s",
        "struct": {"fs": np.array([[5.0]]), "inner": {"name": "a"}},
        "several": StructArray([{"med": np.array([[1.0, 2.0]])}, {"med": np.array([[3.0, 4.0]])}]),
        "cell": [{"med": np.array([[1.0, 2.0]])}, NUMBERS],
        "empty": np.zeros((0, 3)),
    }


def fall(rois=3, frames=40):
    """What suite2p saves: every ROI is accepted but the second."""
    F = 100 + np.arange(rois * frames, dtype=np.float32).reshape(rois, frames)
    return {
        "F": F,
        "Fneu": np.full_like(F, 10),
        "iscell": np.array([[i != 1, 0.5] for i in range(rois)], dtype=np.float64),
        "stat": [{"med": np.array([[10.0 * i, i]]), "ypix": np.arange(3.0)[None]} for i in range(rois)],
        "ops": {"fs": np.array([[7.5]]), "frames_per_folder": np.array([[30.0, 10.0]])},
    }


def hdf5(path, **create):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", **create)
    return path


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_variable_reads_the_same_from_both_kinds_of_file(tmp_path, version):
    path = write_matlab(tmp_path / "a.mat", variables(), version)
    with open_matlab(path) as file:
        assert set(file) == set(variables())
        np.testing.assert_array_equal(file["numbers"], NUMBERS)
        np.testing.assert_array_equal(file["sparse"].toarray(), SPARSE.toarray())
        assert file["nothing"].shape == (2, 3) and file["nothing"].nnz == 0
        assert (file["text"], file["struct"]["inner"]["name"]) == ("GCaMP6s", "a")
        assert file["struct"]["fs"].item() == 5
        assert [roi["med"].tolist() for roi in file["several"]] == [[[1, 2]], [[3, 4]]]
        assert file["cell"][0]["med"].tolist() == [[1, 2]]
        np.testing.assert_array_equal(file["cell"][1], NUMBERS)
        assert file["empty"].size == 0
        stack = file["stack"]
        assert isinstance(stack, Stack) and stack.shape == (2, 3, 4)
        np.testing.assert_array_equal(list(stack.slices), np.moveaxis(STACK, 2, 0))


@pytest.mark.parametrize("version", VERSIONS)
def test_names_and_fields_are_listed_without_reading(tmp_path, version):
    found = variables_in_matlab(write_matlab(tmp_path / "a.mat", variables(), version))
    assert found.keys() == variables().keys()
    assert found["struct"].fields == {"fs", "inner"} and found["several"].fields == {"med"}
    assert not any(found[name].fields for name in ("numbers", "sparse", "text", "cell"))
    assert not any(variable.class_name for variable in found.values())


def test_an_object_of_a_class_is_named_and_not_read(tmp_path):
    path = write_object(tmp_path / "a.mat", "neuron", "Sources2D")
    assert variables_in_matlab(path)["neuron"].class_name == "Sources2D"
    with open_matlab(path) as file:
        assert file["neuron"] == Opaque("Sources2D")


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def opaque(name, class_name):
    """An object of version 7: flags of class 17, name, type system, class, and a matrix that means nothing here."""
    flags = element(6, struct.pack("<II", 17, 0))
    texts = b"".join(element(1, text) for text in (name, b"MCOS", class_name))
    numbers = element(6, struct.pack("<II", 13, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"")
    return element(14, flags + texts + element(14, numbers + element(6, struct.pack("<I", 7))))


def test_objects_of_version_7_are_named_on_their_own_and_in_structures(tmp_path):
    head = element(6, struct.pack("<II", 2, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"results")
    fields = struct.pack("<HHI", 5, 4, 2) + element(1, b"P\0")
    body = opaque(b"neuron", b"Sources2D") + element(14, head + fields + opaque(b"", b"table"))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + body)
    found = variables_in_matlab(tmp_path / "a.mat")
    assert found["neuron"].class_name == "Sources2D" and found["results"].fields == {"P"}
    with open_matlab(tmp_path / "a.mat") as file:
        assert file["results"] == {"P": Opaque("table")}


def test_an_element_that_says_to_be_longer_than_its_variable_is_refused(tmp_path):
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<ii", 1, 1)) + element(1, b"stat")
    body = element(14, head + struct.pack("<II", 14, 1000))
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + body)
    with open_matlab(tmp_path / "a.mat") as file, pytest.raises(ValueError, match="in the middle of an element"):
        file["stat"]


@pytest.mark.skipif(not SCIPY_FILES.is_dir(), reason="SciPy is installed without its test files")
def test_files_that_matlab_itself_wrote_are_read():
    for version in ("6.1_SOL2", "7.4_GLNX86"):
        # Big-endian and little-endian; the second is compressed.
        path = SCIPY_FILES / f"teststructarr_{version}.mat"
        assert variables_in_matlab(path)["teststructarr"].fields == {"one", "two"}
        with open_matlab(path) as file:
            first, second = file["teststructarr"]
            assert (first["one"].item(), first["two"].item(), second["two"]) == (1, 2, "number 2")
    assert variables_in_matlab(SCIPY_FILES / "testobject_7.4_GLNX86.mat")["testobject"].class_name == "inline"
    assert set(variables_in_matlab(SCIPY_FILES / "some_functions.mat")) == {"a", "b", "c", "nCf", "parabola", "sqr"}
    with open_matlab(SCIPY_FILES / "testobject_7.4_GLNX86.mat") as file:
        assert file["testobject"] == Opaque("inline")
    with open_matlab(SCIPY_FILES / "some_functions.mat") as file:
        assert file["sqr"] == Opaque("function_handle")
    with open_matlab(SCIPY_FILES / "teststringarray_7.4_GLNX86.mat") as file:
        assert file["teststringarray"] == "one  two  three"
    with open_matlab(SCIPY_FILES / "testunicode_7.4_GLNX86.mat") as file:
        assert file["testunicode"].startswith("Japanese")
    with open_matlab(SCIPY_FILES / "test_empty_struct.mat") as file:
        assert file["a"] == {}
    with open_matlab(SCIPY_FILES / "testhdf5_7.4_GLNX86.mat") as file:
        np.testing.assert_allclose(file["testdouble"], np.arange(9)[None] * np.pi / 4)
    with open_matlab(SCIPY_FILES / "testmatrix_4.2c_SOL2.mat") as file:
        np.testing.assert_array_equal(file["testmatrix"], [[1, 2, 3, 4, 5], [2, 0, 0, 0, 0], [3, 0, 0, 0, 0]])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fall_mat_of_any_version_reads_like_its_plane(tmp_path, version):
    path = write_matlab(tmp_path / "m1" / "suite2p" / "plane0" / "Fall.mat", fall(), version)
    (got,) = read_suite2p(path, trace_kind="fluorescence")
    assert (got.recording_id, got.roi_ids, got.sampling_rate) == ("m1_plane0", ("0", "2"), 7.5)
    # ROI 0 begins at 100, ROI 2 at 100 + 80; both lose 0.7 * 10.
    np.testing.assert_allclose(got.traces[:, 0], [93, 173])
    np.testing.assert_array_equal(got.centroids, [[0, 0], [2, 20]])
    assert got.segment_starts == (0, 30) and got.source["accepted_rois"] == 2


def test_the_digest_of_a_fall_mat_does_not_depend_on_its_version(tmp_path):
    old, new = (write_matlab(tmp_path / version / "Fall.mat", fall(), version) for version in VERSIONS)
    digests = {next(read_suite2p(path)).source["sha256"] for path in (old, new)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"F": "bright"}, "expected numbers in F, got str"),
        ({"stat": np.zeros((3, 40))}, "expected stat as a structure as suite2p saves it, got ndarray"),
        ({"ops": [np.zeros((1, 1))]}, "expected ops as a structure"),
        ({"F": {"a": NUMBERS}}, "expected numbers in F"),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_other_things_in_place_of_suite2p_s_are_one_plain_line(tmp_path, version, changes, message):
    path = write_matlab(tmp_path / "a.mat", fall() | changes, version)
    with pytest.raises(ValueError, match=message):
        list(read_suite2p(path, RATE))


def test_cells_are_read_one_by_one_and_those_that_hold_themselves_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        cell = file.create_dataset("stat", (1, 60), dtype=h5py.ref_dtype)
        for i in range(60):
            cell[0, i] = cell.ref
        file["F"] = NUMBERS
    with bounded(), pytest.raises(ValueError, match="expected stat as a structure as suite2p saves it, got Cells"):
        list(read_suite2p(tmp_path / "a.mat", RATE))


def test_links_out_of_the_file_are_not_followed(tmp_path):
    write_matlab(tmp_path / "other.mat", {"F": NUMBERS}, "7.3")
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["F"] = h5py.ExternalLink("other.mat", "F")
        file["ops"] = h5py.SoftLink("/ops")
        file["dt"] = NUMBERS
    assert set(variables_in_matlab(tmp_path / "a.mat")) == {"dt"}


@pytest.mark.parametrize("chunks", [None, (10**4, 10**4)])
def test_a_header_that_promises_more_than_is_stored_allocates_nothing(tmp_path, chunks):
    path = hdf5(tmp_path / "a.mat", shape=(10**5, 10**5), dtype="f8", chunks=chunks)
    with bounded(), open_hdf5(path) as file:
        for read in (read_whole, lambda x: next(read_blocks(x)), lambda x: read_lines(x, np.arange(3), axis=0)):
            with pytest.raises(ValueError, match=r"expected values for shape \(100000, 100000\), got 0 bytes"):
                read(file["x"])


def test_chunks_that_were_never_written_are_not_made_up(tmp_path):
    path = hdf5(tmp_path / "a.mat", shape=(10**4, 10**4), dtype="f8", chunks=(100, 1000))
    with h5py.File(path, "a") as file:
        file["x"][:200] = 1
    with open_hdf5(path) as file, pytest.raises(ValueError, match=r"for shape \(10000, 10000\), got 16000000 bytes"):
        read_whole(file["x"])


def test_numbers_that_lie_in_another_file_are_refused(tmp_path):
    (tmp_path / "raw.bin").write_bytes(bytes(8))
    path = hdf5(tmp_path / "a.mat", shape=(1,), dtype="f8", external=[("raw.bin", 0, 8)])
    with open_hdf5(path) as file, pytest.raises(ValueError, match="expected the values of x in the file"):
        read_whole(file["x"])


def test_rows_are_read_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr("neurt.dataset_scripts.hdf5_file._BLOCK_BYTES", 3 * 5 * 8)
    data = np.arange(50.0).reshape(10, 5)
    plain, chunked = hdf5(tmp_path / "a.h5", data=data), hdf5(tmp_path / "b.h5", data=data, chunks=(4, 5))
    for path, sizes in ((plain, [3, 3, 3, 1]), (chunked, [4, 4, 2])):
        with open_hdf5(path) as file:
            assert [len(block) for block in read_blocks(file["x"])] == sizes
            got = read_lines(file["x"], np.array([0, 3, 4, 9]), axis=0)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, data[[0, 3, 4, 9]])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_plain_line(tmp_path, version, share):
    path = write_matlab(tmp_path / "a.mat", fall(), version)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"a\.mat: expected") as error:
        list(read_suite2p(path, RATE))
    assert "\n" not in str(error.value)
    write_matlab(tmp_path / "b.mat", fall(), version)
    found = find_suite2p(tmp_path)
    assert [each.file for each in found.sources] == ["b.mat"] and [file for file, _ in found.passed_over] == ["a.mat"]


def test_a_variable_that_claims_the_rest_of_a_longer_file_is_a_truncated_one(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 14, 2**31) + bytes(100))
    with pytest.raises(ValueError, match="it ends in the middle of a variable"):
        variables_in_matlab(path)


@pytest.mark.parametrize("version", VERSIONS)
def test_damage_to_a_fall_mat_gives_recordings_or_one_plain_line(tmp_path, version):
    whole = write_matlab(tmp_path / "whole" / "Fall.mat", fall(rois=2), version).read_bytes()
    path = tmp_path / "Fall.mat"

    @damages
    @given(damage())
    def check(change):
        path.write_bytes(change(whole))
        reads_or_refuses(lambda: [list(read_suite2p(s.path, RATE)) for s in find_suite2p(path).sources])

    check()


@pytest.mark.parametrize(
    ("rows", "starts", "message"),
    [
        ([0, 1, 1], [0, 2, 0], "do not follow one another"),
        ([0, 1, 1], [0, 2, 4], "do not follow one another"),
        ([0, 1, 1], [0, 5 * 2**60, -5 * 2**60], "do not follow one another"),
        ([0, 1, 1], [1, 2, 3], "do not follow one another"),
        ([0, 1, 1], [0, 3], "do not follow one another"),
        ([0, 1, 2], [0, 2, 3], "not all among its 2"),
        ([0, -1, 1], [0, 2, 3], "not all among its 2"),
        ([0, 1], [0, 2, 3], "not all among its 2"),
        ([0.0, 1.0, 1.0], [0, 2, 3], "not whole numbers"),
    ],
)
def test_a_sparse_matrix_that_would_crash_compiled_code_is_refused(rows, starts, message):
    values = np.array([5.0, 6.0, 7.0])
    right = checked_columns(values, np.array([0, 1, 1]), np.array([0, 2, 3]), (2, 2))
    np.testing.assert_array_equal(right.toarray(), [[5, 0], [6, 7]])
    with pytest.raises(ValueError, match=message):
        checked_columns(values, np.array(rows), np.array(starts), (2, 2))


def test_a_centroid_is_the_weighted_mean_of_pixel_indices():
    image = np.zeros((3, 4))
    image[1, 2], image[2, 2], image[2, 3] = 1, 2, 1
    # x = (2 + 2 * 2 + 3) / 4, y = (1 + 2 * 2 + 2) / 4
    expected = [[2.25, 1.75], [np.nan, np.nan]]
    np.testing.assert_allclose(image_centroids([image, np.zeros((3, 4))]), expected)
    columns = np.stack([image.ravel(order="F"), np.zeros(12)], axis=1)
    np.testing.assert_allclose(column_centroids(columns, 3, 4), expected)
    np.testing.assert_allclose(column_centroids(scipy.sparse.csc_array(columns), 3, 4), expected)


def test_weights_below_zero_pull_nothing_and_bad_ones_are_refused():
    np.testing.assert_allclose(image_centroids([np.array([[2.0, 1.0, -9.0]])]), [[1 / 3, 0]])
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="expected finite weights"):
            image_centroids([np.array([[1.0, bad]])])
    with pytest.raises(ValueError, match="expected footprints of 3 x 4 pixels, got 10 pixels"):
        column_centroids(np.zeros((10, 1)), 3, 4)
