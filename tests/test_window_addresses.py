"""Windows of builds that are elsewhere, and of addresses, options and builds that cannot be meant."""

import functools
import http.server
import json
import shutil
import threading

import fsspec
import numpy as np
import pytest
from neurt.dataset_scripts.window_streams import cached_windows, stream_windows
from small_builds import PROCESSOR, indices, loaded, numbers, recording, write


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five recordings r0 to r4 of 12 neurons, 36 windows each; odd ones are of mouse m1 and class b."""
    return write(tmp_path_factory.mktemp("streams") / "five", [recording(i) for i in range(5)])


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    """A call that serves a folder over HTTP and returns its address."""
    servers = []

    def serve(folder):
        handler = functools.partial(_QuietHandler, directory=folder)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def in_memory():
    """A call that copies a folder to fsspec's memory and returns its address."""
    memory = fsspec.filesystem("memory")

    def copy(folder):
        memory.put(str(folder), "/builds/copy", recursive=True)
        return "memory://builds/copy"

    yield copy
    if memory.exists("/builds"):
        memory.rm("/builds", recursive=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_build_is_read_through_http(five, served, workers):
    expected = list(stream_windows(five, PROCESSOR, mixed_recordings=1, shuffle=False))
    stream = stream_windows(served(five), PROCESSOR, mixed_recordings=1, shuffle=False)
    windows = sorted(loaded(stream, workers), key=lambda window: window["window_index"])
    assert indices(windows) == indices(expected)
    for window, other in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(window["input_values"], other["input_values"])


def test_a_build_is_read_from_any_address(five, in_memory, tmp_path):
    expected = indices(stream_windows(five, PROCESSOR))
    address = in_memory(five)
    assert indices(stream_windows(address, PROCESSOR)) == expected
    assert indices(stream_windows(f"file://{five}", PROCESSOR)) == expected
    assert indices(stream_windows(f"{address}/", PROCESSOR, storage_options={"skip_instance_cache": True})) == expected
    local, remote = (cached_windows(build, PROCESSOR, cache_dir=tmp_path) for build in (five, address))
    assert local.cache_files == remote.cache_files


# Bad input.


def change_manifest(folder, **changes):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0].update(changes)
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "expected a split among train, got 'test'"),
        ({"subjects": ["nobody"]}, "expected recordings that give windows, got none .no recordings at all"),
        ({"label": "genotype"}, "expected a label of the build .group., got 'genotype'"),
        ({"process_index": 2, "num_processes": 2}, "expected process_index from 0 to below num_processes 2, got 2"),
        ({"num_processes": 6}, "expected a recording for each of 6 processes, got 5 recordings; use fewer"),
        ({"mixed_recordings": 0}, "expected mixed_recordings of at least 1, got 0"),
        ({"missing_neighbours": "guess"}, 'expected missing_neighbours "error" or "mask", got .guess.'),
    ],
)
def test_what_cannot_be_meant_is_refused(five, options, message):
    with pytest.raises(ValueError, match=message):
        stream_windows(five, PROCESSOR, **options)


@pytest.mark.parametrize("address", ["nowhere", "memory://nowhere", "http://127.0.0.1:9/build", "nosuch://build"])
def test_what_is_no_build_is_refused_in_one_line(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for make in (stream_windows, cached_windows):
        with pytest.raises(ValueError, match="expected a NEuRT build with a manifest.json, got none") as error:
            make(address, PROCESSOR)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changes", [{"path": "../../secret.parquet"}, {"recording_id": "../r0"}, {"neurons": "many"}, {"sha256": None}]
)
def test_a_manifest_that_leads_elsewhere_is_refused_wherever_it_is(five, tmp_path, in_memory, changes):
    build = shutil.copytree(five, tmp_path / "build")
    change_manifest(build, **changes)
    for address in (build, in_memory(build)):
        with pytest.raises(ValueError, match="expected a NEuRT build"):
            stream_windows(address, PROCESSOR)


@pytest.mark.parametrize("neurons", [-1, 13, 10**30])
def test_a_manifest_that_promises_other_sizes_is_refused(five, tmp_path, neurons):
    build = shutil.copytree(five, tmp_path / "build")
    change_manifest(build, neurons=neurons, neurons_with_positions=neurons)
    stream = stream_windows(build, PROCESSOR, missing_neighbours="mask", subjects=["m0"])
    if neurons < 0:
        assert numbers(stream) == {2, 4}
    else:
        with pytest.raises(ValueError, match=r"data/train/r0.parquet, as the manifest says, got \(12, 116\)"):
            list(stream)


@pytest.mark.parametrize("where", ["here", "memory"])
def test_a_file_that_is_cut_short_or_missing_is_refused(five, tmp_path, in_memory, where):
    build = shutil.copytree(five, tmp_path / "build")
    path = build / "data" / "train" / "r2.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    address = build if where == "here" else in_memory(build)
    with pytest.raises(ValueError, match="r2.parquet: expected a recording of a NEuRT build, got a file that cannot"):
        list(stream_windows(address, PROCESSOR))
