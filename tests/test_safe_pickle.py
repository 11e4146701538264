"""Object arrays are read without running what their pickles ask for."""

import collections
import datetime
import os
import pathlib
import pickle
import resource
import struct
import subprocess
import sys

import numpy as np
import pytest
from neurt.dataset_scripts import safe_pickle
from neurt.dataset_scripts.safe_pickle import load_object_array


class Runs:
    """Pickles to a call of any function, and to a state for what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.call


def save(path, value, protocol=4):
    """Write an object array as `numpy.save` does, with a protocol of choice."""
    array = np.asarray(value, dtype=object) if not isinstance(value, np.ndarray) else value
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": array.shape})
        pickle.dump(array, file, protocol=protocol)
    return path


def with_pickle(path, pickled):
    """Write a header of an array without dimensions, and this pickle behind it."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)
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
    value = {
        **roi(),
        "fs": 5.0,
        "name": "m1",
        "many": [(1, {2}), None, True, b"\xff", b""],
        "text": np.array(["a", "bc"]),
    }
    value |= {"ordered": collections.OrderedDict(b=1, a=2), "frozen": frozenset("a"), "long": np.full(5000, 65, "u1")}
    value["turned"] = np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2)
    loaded = load_object_array(save(tmp_path / "ops.npy", value, protocol)).item()
    assert loaded["med"] == [3, 4.5] and loaded["many"] == value["many"] and loaded["fs"] == 5.0
    assert loaded["skew"] == np.float32(1.5) and loaded["skew"].dtype == np.float32
    np.testing.assert_array_equal(loaded["ypix"], [0, 1, 2])
    np.testing.assert_array_equal(loaded["tall"], [[1, 3], [2, 4]])
    assert loaded["text"].tolist() == ["a", "bc"] and loaded["long"].tobytes() == b"A" * 5000
    assert list(loaded["ordered"].items()) == [("b", 1), ("a", 2)] and loaded["frozen"] == {"a"}
    np.testing.assert_array_equal(loaded["turned"], value["turned"])


def test_an_array_of_dictionaries_comes_back(tmp_path):
    np.save(tmp_path / "stat.npy", np.array([roi(), roi()], dtype=object))
    assert [entry["med"] for entry in load_object_array(tmp_path / "stat.npy")] == [[3, 4.5], [3, 4.5]]


def test_an_array_of_numbers_needs_no_pickle(tmp_path):
    np.save(tmp_path / "F.npy", np.eye(3))
    np.testing.assert_array_equal(load_object_array(tmp_path / "F.npy"), np.eye(3))


def test_the_dates_and_paths_that_suite2p_writes_are_values_not_calls(tmp_path):
    # Half past two comes twice that night; fold says that this is the second.
    zone = datetime.timezone(datetime.timedelta(hours=2))
    when = datetime.datetime(2024, 10, 27, 2, 30, 5, 678_901, tzinfo=zone, fold=1)
    value = {"date_proc": when, "save_path0": pathlib.PurePosixPath("/data"), "fs": 5.0}
    loaded = load_object_array(save(tmp_path / "ops.npy", value)).item()
    assert loaded == value and loaded["date_proc"].fold == 1


def test_paths_of_later_pythons_and_of_other_systems_are_read(tmp_path):
    path = save(tmp_path / "ops.npy", {"a": pathlib.PurePosixPath("/a/b"), "c": pathlib.PureWindowsPath("c:/d")}, 2)
    path.write_bytes(path.read_bytes().replace(b"cpathlib\nPure", b"cpathlib._local\n"))
    loaded = load_object_array(path).item()
    assert loaded == {"a": pathlib.PurePosixPath("/a/b"), "c": pathlib.PureWindowsPath("c:/d")}


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


@pytest.mark.parametrize(
    "name", ["builtins eval", "builtins getattr", "numpy load", "numpy.f2py os", "x " + "y" * 999]
)
def test_other_functions_are_refused_by_name(tmp_path, name):
    path = with_pickle(tmp_path / "ops.npy", b"c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(ValueError, match=name.replace(" ", ".")[:70]) as refusal:
        load_object_array(path)
    assert len(str(refusal.value)) < 500


def test_a_structured_data_type_is_refused(tmp_path):
    path = save(tmp_path / "ops.npy", {"a": np.zeros(2, dtype=[("x", "f8")])})
    with pytest.raises(ValueError, match="got the type 'V8'"):
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
    for other in ([1], np.array([roi(), roi()], dtype=object), np.ones(1)):
        path.write_bytes(header + pickle.dumps(other))
        with pytest.raises(ValueError, match="shape"):
            load_object_array(path)


RECONSTRUCT = np.zeros(0).__reduce__()[0]
SCALAR = np.float64(0).__reduce__()[0]
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
# S8 as number 0, and an array of it, b"AAAAAAAA", as number 1; both stay on the stack.
TYPE = b"cnumpy\ndtype\n(VS8\nI00\nI01\ntRp0\n(I3\nV|\nNNNI8\nI1\nI0\ntb"
UNBUILT = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntRp1\n"
SHARED = TYPE + UNBUILT + b"(I1\n(I1\ntg0\nI00\nC\x08AAAAAAAAtb"
GROWN = b"g0\n(I3\nV|\nNNNI1000000\nI1\nI0\ntb"
OBJECTS = b"cnumpy\ndtype\n(VO8\nI00\nI01\ntRp0\n(I3\nV|\nNNNI-1\nI-1\nI63\ntb"
PATH = b"cpathlib\nPurePosixPath\np0\n"


def array(*state):
    return Runs(RECONSTRUCT, np.ndarray, (0,), b"b", state=state)


def nested(times, wrap):
    return b"N" + wrap * times


ATTACKS = {
    "pointers of one's own": (Runs(np.ndarray, (1,), np.dtype("O"), b"A" * 8), "functions that are known"),
    "pointers as a state": (array(1, (1,), np.dtype("O"), False, b"A" * 8), "as many values"),
    "pointers from a buffer": (Runs(FROM_BUFFER, b"A" * 8, np.dtype("O"), (1,), "C"), "as many values"),
    "a pointer as a scalar": (Runs(SCALAR, np.dtype("O"), b"A" * 8), "NumPy's scalars"),
    "a type of another size": (Runs(np.dtype, "S8", False, True, state=(3, "|", *[None] * 3, 10**6, 1, 0)), "size"),
    "a type with fields": (
        Runs(np.dtype, "S8", False, True, state=(3, "|", None, ("a",), {"a": (np.dtype("f8"), 10**6)}, 8, 1, 0)),
        "fields",
    ),
    "a type of dates": (np.array(["2024-05-01"], "M8[D]"), "the type 'M8'"),
    "a type that grows under an array": (SHARED + GROWN + b".", "a state for an array or type only"),
    "an array that loses its bytes": (
        SHARED + b"(I1\n(I1\ntg0\nI00\nC\x08BBBBBBBBtb.",
        "a state for an array or type only",
    ),
    "an array over another's bytes": (Runs(FROM_BUFFER, np.zeros(2), np.dtype("f8"), (2,), "C"), "as many values"),
    "more values than bytes": (array(1, (2,), np.dtype("f8"), False, b"A" * 8), "as many values"),
    "fewer values than bytes": (array(1, (1,), np.dtype("f8"), False, b"A" * 16), "as many values"),
    "a negative shape": (array(1, (-1, -1), np.dtype("f8"), False, b"A" * 8), "as many values"),
    "a huge shape": (array(1, (2**40,), np.dtype("f8"), False, b""), "as many values"),
    "a huge shape of objects": (array(1, (2**40,), np.dtype("O"), False, []), "as many values"),
    "a huge shape of nothing": (array(1, (2**40,), np.dtype("S0"), False, b""), "as many values"),
    "a huge buffer": (Runs(FROM_BUFFER, b"", np.dtype("f8"), (2**40,), "C"), "as many values"),
    "numbers of a list": (array(1, (1,), np.dtype("f8"), False, [1] * 8), "as many values"),
    "objects of a text": (array(1, (1,), np.dtype("O"), False, "a"), "as many values"),
    "more dimensions than any array has": (array(1, (1,) * 40, np.dtype("u1"), False, b"A"), "as many values"),
    "another kind of array": (Runs(RECONSTRUCT, np.dtype, (0,), b"b"), "plain arrays"),
    "an array without content": (UNBUILT + b".", "without content"),
    "an array in itself": (OBJECTS + UNBUILT + b"(I1\n(I1\ntg0\nI00\n(lg1\natb.", "without content"),
    "a state for a class": (PATH + b"(N(dVname\nI1\nstb.", "a state for an array or type only"),
    "a state for a path": (PATH + b"(V/a\ntR(N(dV_str\nI1\nstb.", "a state for an array or type only"),
    "a 25th hour": (Runs(datetime.datetime, struct.pack(">H8B", 2024, 5, 1, 25, 0, 0, 0, 0, 0)), "hour must be in"),
    "bytes without end": (Runs(bytearray, 2**40), "asks for 'builtins.bytearray'"),
    "a set without end": (Runs(set, range(2**40)), "asks for 'builtins.range'"),
    "a path that doubles": (PATH + b"(V/a\ntR" + b"p1\n0g0\n(g1\ng1\ntR" * 40 + b".", "paths of texts"),
    "a text used over and over": (
        b"(lp1\n0X"
        + struct.pack("<I", 2**20)
        + b"x" * 2**20
        + b"p0\n0g1\n"
        + b"c_codecs\nencode\n(g0\nVlatin1\ntRa" * 5000
        + b".",
        "over and over",
    ),
    "a list used over and over": (
        b"(lp1\n0(" + b"N" * 2**20 + b"lp0\n0g1\n" + b"c__builtin__\nset\n(g0\ntRa" * 5000 + b".",
        "over and over",
    ),
    "a list in array after array": (
        OBJECTS
        + b"0(lp2\n0("
        + b"N" * 2**20
        + b"lp3\n0g2\n"
        + (UNBUILT + b"(I1\n(I1048576\ntg0\nI00\ng3\ntba") * 100
        + b".",
        "over and over",
    ),
    "a deep tuple as a key": (b"}" + nested(200_000, b"\x85") + b"Ns.", "keys"),
    "a deep tuple in a set": (b"\x8f(" + nested(200_000, b"\x85") + b"\x90.", "keys"),
    "a deep tuple as a name": (nested(200_000, b"\x85") + b"Vx\n\x93.", "texts as the names"),
    "a deep tuple called": (nested(200_000, b"\x85") + b")R.", "functions that are known"),
    "arrays in arrays": (
        OBJECTS + b"Np9\n" + (UNBUILT + b"(I1\n(I1\ntg0\nI00\n(g9\nltbp9\n") * 10**5 + b".",
        "in another",
    ),
    "an object by its class": (b"cpathlib\nPurePosixPath\n)\x81.", "instruction NEWOBJ"),
    "an instance by its class": (b"(ipathlib\nPurePosixPath\n.", "instruction INST"),
    "an extension": (b"\x82\x01.", "instruction EXT1"),
    "a persistent id": (b"Px\n.", "instruction PERSID"),
    "a list taken for a dictionary": (b"]NNs.", "a dict to add to"),
    "an array taken for a list": (SHARED + b"Na.", "a list to add to"),
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """What a process with half a gigabyte of memory and a minute of time says to each attack, as far as it lives."""
    folder = tmp_path_factory.mktemp("attacks")
    for name, (attack, _) in ATTACKS.items():
        with_pickle(folder / f"{name}.npy", attack if isinstance(attack, bytes) else pickle.dumps({"a": attack}))
    child = """if True:
        import pathlib, runpy, sys
        load = runpy.run_path(sys.argv[1])["load_object_array"]
        for path in pathlib.Path(sys.argv[2]).iterdir():
            try:
                print(path.stem, "is harmless:", load(path), sep="|", flush=True)
            except ValueError as error:
                print(path.stem, str(error).removeprefix(str(path)), sep="|", flush=True)
    """

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    done = subprocess.run(
        [sys.executable, "-c", child, safe_pickle.__file__, folder],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return dict(line.split("|", 1) for line in done.stdout.splitlines()) | {"end": f"{done.returncode} {done.stderr}"}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_forged_pickle_is_refused(attacked, name):
    assert ATTACKS[name][1] in attacked.get(name, "it crashed on this or an earlier one"), attacked["end"]


def test_a_name_for_a_stored_value_takes_no_memory_however_large_it_is(tmp_path):
    # Python's own reader would make a table of 64 GiB.
    dictionary = b"}r\xff\xff\xff\xff0j\xff\xff\xff\xff"
    pickled = OBJECTS + UNBUILT + b"(I1\n(tg0\nI00\n(" + dictionary + b"ltb."
    assert load_object_array(with_pickle(tmp_path / "ops.npy", pickled)).item() == {}


def test_what_is_read_cannot_be_changed_under_another_array(tmp_path):
    loaded = load_object_array(save(tmp_path / "ops.npy", {"ypix": np.arange(3)})).item()
    with pytest.raises(ValueError, match="read-only"):
        loaded["ypix"][0] = 7
