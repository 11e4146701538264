"""HDF5 files of strangers: what they link to, promise and lack."""

import h5py
import numpy as np
import pytest
from damaged_files import damage_heap
from neurt.dataset_scripts import hdf5_file
from neurt.dataset_scripts.hdf5_file import open_hdf5
from neurt.dataset_scripts.nwb_file import open_series, read_clock, read_traces
from nwb_by_hand import DATA, FRAMES, PATH, TIMES, both, link, made, put, refused, save


def test_links_within_the_file_are_followed():
    shared = both(put("/processing/times", TIMES), link(f"{PATH}/timestamps", h5py.SoftLink("/processing/times")))
    assert read_clock(made(shared)).sampling_rate == pytest.approx(5)


def outside(file):
    del file[PATH]["data"]
    file[PATH].create_dataset("data", (FRAMES, 3), "f4", external=[("secret.bin", 0, h5py.h5f.UNLIMITED)])


def virtual(file):
    layout = h5py.VirtualLayout((FRAMES, 3), "f4")
    layout[:] = h5py.VirtualSource("b.nwb", f"{PATH}/data", (FRAMES, 3))
    del file[PATH]["data"]
    file[PATH].create_virtual_dataset("data", layout)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (link(f"{PATH}/data", h5py.ExternalLink("b.nwb", f"{PATH}/data")), "expected links within the file"),
        (link(f"{PATH}/data", h5py.SoftLink(f"{PATH}/data")), "expected links within the file"),
        (outside, "expected the values of data in the file"),
        (virtual, "expected the values of data in the file"),
    ],
)
def test_values_of_another_file_are_not_read(tmp_path, edit, message):
    save(tmp_path / "b.nwb")
    (tmp_path / "secret.bin").write_bytes(bytes(480))
    with open_hdf5(save(tmp_path / "a.nwb", edit)) as file:
        refused(open_series, file, PATH, "a.nwb", match=message)


def test_an_array_that_the_file_is_too_small_for_is_refused_before_memory_is_taken():
    def promise(file):
        del file[PATH]["data"], file[PATH]["timestamps"]
        file[PATH].create_dataset("data", (10**9, 3), "f4", chunks=(1000, 3), compression="gzip")

    refused(read_traces, made(promise), match=r"expected values for shape \(1000000000, 3\), got 0 bytes")


def test_chunks_of_more_than_a_gibibyte_are_refused():
    def promise(file):
        del file[PATH]["data"]
        file[PATH].create_dataset("data", (40, 3), "f4", maxshape=(None, 3), chunks=(10**8, 3))

    refused(made, promise, match="chunks of at most 1 GiB")


def test_large_arrays_that_are_there_are_read(monkeypatch):
    monkeypatch.setattr(hdf5_file, "_UNCHECKED_BYTES", 0)
    np.testing.assert_array_equal(read_traces(made()), DATA.T)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_one_plain_line(tmp_path, share):
    path = save(tmp_path / "a.nwb")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(open_hdf5, path, match=r"a\.nwb: expected an HDF5 file, got a file that cannot be read, perhaps truncated")


@pytest.mark.parametrize(("named", "size"), [(0, 0), (1, 2**64 - 8), (1, 5000)])
def test_a_heap_that_would_hold_the_library_up_for_ever_is_refused(tmp_path, named, size):
    path = damage_heap(save(tmp_path / "a.nwb"), named, size)
    refused(open_hdf5, path, match=r"a\.nwb: expected an HDF5 file, got one with a damaged heap")


def test_what_is_not_there_is_one_plain_line(tmp_path):
    refused(open_hdf5, tmp_path / "a.nwb", match=r"a\.nwb: expected an HDF5 file")
    with open_hdf5(save(tmp_path / "b.nwb")) as file:
        refused(
            open_series, file, "/nowhere", "b.nwb", match="b.nwb, /nowhere: expected a RoiResponseSeries, found no"
        )
