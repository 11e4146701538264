"""Object arrays are read without running what their pickles ask for."""

import datetime
import os
import pathlib
import pickle

import numpy as np
import pytest
from neurt.dataset_scripts.safe_pickle import load_object_array


class Runs:
    """Pickles to a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def save(path, value, protocol=4):
    """Write an object array as `numpy.save` does, with a protocol of choice."""
    array = np.asarray(value, dtype=object) if not isinstance(value, np.ndarray) else value
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": array.shape})
        pickle.dump(array, file, protocol=protocol)
    return path


def roi():
    return {
        "med": [3, 4.5],
        "ypix": np.arange(3),
        "skew": np.float32(1.5),
        "tall": np.array([[1, 2], [3, 4]], ">f8").T,
    }


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_numbers_and_containers_come_back_in_every_protocol(tmp_path, protocol):
    value = {**roi(), "fs": 5.0, "name": "m1", "many": [(1, {2}), None, True, b"\xff"], "text": np.array(["a", "bc"])}
    loaded = load_object_array(save(tmp_path / "ops.npy", value, protocol)).item()
    assert loaded["med"] == [3, 4.5] and loaded["many"] == value["many"] and loaded["fs"] == 5.0
    assert loaded["skew"] == np.float32(1.5) and loaded["skew"].dtype == np.float32
    np.testing.assert_array_equal(loaded["ypix"], [0, 1, 2])
    np.testing.assert_array_equal(loaded["tall"], [[1, 3], [2, 4]])
    assert loaded["text"].tolist() == ["a", "bc"]


def test_an_array_of_dictionaries_comes_back(tmp_path):
    np.save(tmp_path / "stat.npy", np.array([roi(), roi()], dtype=object))
    assert [entry["med"] for entry in load_object_array(tmp_path / "stat.npy")] == [[3, 4.5], [3, 4.5]]


def test_an_array_of_numbers_needs_no_pickle(tmp_path):
    np.save(tmp_path / "F.npy", np.eye(3))
    np.testing.assert_array_equal(load_object_array(tmp_path / "F.npy"), np.eye(3))


def test_the_dates_and_paths_that_suite2p_writes_are_values_not_calls(tmp_path):
    when = datetime.datetime(2024, 5, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    value = {"date_proc": when, "save_path0": pathlib.PurePosixPath("/data"), "fs": 5.0}
    assert load_object_array(save(tmp_path / "ops.npy", value)).item() == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("bury", [lambda bad: bad, lambda bad: {**roi(), "lam": [bad]}])
def test_a_pickle_that_runs_a_command_is_refused_and_nothing_runs(tmp_path, bury, protocol):
    proof = tmp_path / "ran"
    bad = Runs(os.system, f"touch {proof}")
    path = save(tmp_path / "stat.npy", np.array([roi(), bury(bad)], dtype=object), protocol)
    with pytest.raises(ValueError, match=r"stat\.npy.*posix\.system.*refused"):
        load_object_array(path)
    assert not proof.exists()
    np.load(path, allow_pickle=True)
    assert proof.exists(), "the file was harmless, so the test proved nothing"


@pytest.mark.parametrize("name", [b"builtins eval", b"builtins getattr", b"numpy load", b"numpy.f2py os"])
def test_other_functions_are_refused_by_name(tmp_path, name):
    path = save(tmp_path / "ops.npy", {})
    header = path.read_bytes()[:128]
    path.write_bytes(header + b"c" + name.replace(b" ", b"\n") + b"\n.")
    with pytest.raises(ValueError, match=name.decode().replace(" ", ".")):
        load_object_array(path)


def test_a_structured_data_type_is_refused(tmp_path):
    path = save(tmp_path / "ops.npy", {"a": np.zeros(2, dtype=[("x", "f8")])})
    with pytest.raises(ValueError, match="structured"):
        load_object_array(path)


@pytest.mark.parametrize("keep", [0, 5, 60, 130, 200, -1])
def test_a_truncated_file_is_one_plain_line(tmp_path, keep):
    path = save(tmp_path / "stat.npy", np.array([roi(), roi()], dtype=object))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"stat\.npy: expected a whole \.npy file"):
        load_object_array(path)


def test_a_pickle_of_another_shape_than_its_header_is_refused(tmp_path):
    path = save(tmp_path / "stat.npy", np.array([roi()], dtype=object))
    header = path.read_bytes()[:128]
    for other in ([1], np.array([roi(), roi()], dtype=object)):
        path.write_bytes(header + pickle.dumps(other))
        with pytest.raises(ValueError, match="shape"):
            load_object_array(path)
