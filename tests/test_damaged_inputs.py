"""Damaged files of suite2p, of metadata and of labels are read or refused with one plain line.

The files of the other formats are damaged in the tests of their readers.
"""

import shutil

import numpy as np
import pytest
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from hypothesis import strategies as st
from neurt.dataset_scripts.labels import read_labels
from neurt.dataset_scripts.metadata import Facts, read_metadata
from neurt.dataset_scripts.readers import READERS, detect

FILES = ("F.npy", "Fneu.npy", "iscell.npy", "stat.npy", "ops.npy")
METADATA = "file,subject,sampling_rate,field,genotype\nm1.npz,m1,5.1,2,WT\nm2.npz,m2,7.5,,5xFAD\n"


@pytest.fixture(scope="module")
def plane(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite2p") / "plane0"
    folder.mkdir()
    F = np.random.default_rng(0).gamma(2, 50, (3, 40)).astype(np.float32)
    stat = np.array([{"med": [i, 2 * i], "ypix": np.arange(3)} for i in range(3)], dtype=object)
    arrays = {"F": F, "Fneu": F / 4, "iscell": np.ones((3, 2)), "stat": stat, "ops": {"fs": 7.5, "nplanes": 1}}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def read(folder):
    name, found = detect(folder)
    return [recording for source in found.sources for recording in READERS[name].read(source, Facts())]


def test_the_whole_folder_is_read(plane):
    (recording,) = read(plane)
    assert recording.traces.shape == (3, 40) and recording.sampling_rate == 7.5


@damages
@given(st.sampled_from(FILES), damage())
def test_a_damaged_suite2p_folder_is_read_or_refused_with_one_line(plane, tmp_path, name, spoil):
    folder = tmp_path / "plane0"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(plane, folder)
    (folder / name).write_bytes(spoil((plane / name).read_bytes()))
    reads_or_refuses(lambda: read(folder))


@damages
@given(damage())
def test_a_damaged_table_is_read_or_refused_with_one_line(tmp_path, spoil):
    path = tmp_path / "recordings.csv"
    path.write_bytes(spoil(METADATA.encode()))
    reads_or_refuses(lambda: read_metadata(path))
    path.write_bytes(spoil(METADATA.replace("file,subject", "subject,age").encode()))
    reads_or_refuses(lambda: read_labels(path))
