"""minian's folders are read as zarr's own library wrote them; units are matched by their ids."""

import json
import os
import tracemalloc
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from damaged_files import damage, damages, reads_or_refuses
from hypothesis import given
from hypothesis import strategies as st
from neurt.dataset_scripts.metadata import Facts
from neurt.dataset_scripts.readers import detect
from neurt.dataset_scripts.readers.minian import find_minian, read_minian

REAL = Path(os.environ.get("NEURT_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
RATE = Facts(sampling_rate=20.0)
UNITS = np.array([2, 5, 9])
FRAMES = np.arange(40)
C = np.arange(120, dtype=np.float64).reshape(3, 40)
AXES = {"C": ("unit_id", "frame"), "S": ("unit_id", "frame"), "YrA": ("unit_id", "frame")}
AXES |= {"A": ("unit_id", "height", "width"), "unit_id": ("unit_id",), "frame": ("frame",)}


def footprints():
    """Units 9, 5 and 7, in this order: 9 at x = 3, y = 1; 5 between x = 1 and 2, three times heavier at 2, y = 4."""
    A = np.zeros((3, 6, 5))
    A[0, 1, 3] = 2.0
    A[1, 4, 1:3] = 1.0, 3.0
    A[2, 0, 0] = 1.0
    return A


def write_array(folder, name, values, version=2, chunks=None, **options):
    named = {"attributes": {"_ARRAY_DIMENSIONS": AXES[name]}} if version == 2 else {"dimension_names": AXES[name]}
    named = options.pop("named", named)
    chunks = chunks or (1, *values.shape[1:])
    array = zarr.create_array(
        str(folder / name),
        shape=values.shape,
        chunks=chunks,
        dtype=values.dtype,
        zarr_format=version,
        config={"write_empty_chunks": True},
        **named,
        **options,
    )
    array[:] = values


def write_store(folder, name, values, units=UNITS, frames=FRAMES, version=2, group=True, **options):
    store = folder / f"{name}.zarr"
    if group:
        zarr.open_group(str(store), mode="w", zarr_format=version)
    write_array(store, name, values, version, **options)
    write_array(store, "unit_id", units, version)
    if frames is not None:
        write_array(store, "frame", frames, version, chunks=(16,))


def write_session(folder, **options):
    write_store(folder, "C", C, **options)
    write_store(folder, "A", footprints(), units=np.array([9, 5, 7]), frames=None)
    return folder


def write_times(path, times, frames=None, header="Frame Number,Time Stamp (ms),Buffer Index"):
    frames = range(len(times)) if frames is None else frames
    path.write_text("\n".join([header, *(f"{i},{time},0" for i, time in zip(frames, times, strict=True))]) + "\n")


def read(path, facts=RATE, **options):
    return [r for source in find_minian(path.absolute()).sources for r in read_minian(source, facts, **options)]


@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("version", [2, 3])
def test_a_session_is_read_and_its_units_are_matched_by_id(tmp_path, version, group):
    (got,) = read(write_session(tmp_path / "m1" / "minian", version=version, group=group))
    np.testing.assert_array_equal(got.traces, C)
    np.testing.assert_array_equal(got.centroids, [[np.nan, np.nan], [1.75, 4], [3, 1]])
    assert (got.roi_ids, got.trace_kind, got.coordinate_unit) == (("2", "5", "9"), "denoised", "px")
    assert (got.recording_id, got.session_id, got.segment_starts) == ("m1", "m1", (0,))
    assert got.traces.dtype == np.float32
    assert got.source["notes"] == ["units without a footprint in A.zarr have no position"]


def test_pixels_of_known_size_become_micrometres(tmp_path):
    (got,) = read(write_session(tmp_path), Facts(sampling_rate=20.0, um_per_pixel=2.0))
    np.testing.assert_array_equal(got.centroids[1:], [[3.5, 8], [6, 2]])
    assert got.coordinate_unit == "um"


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (2, {"compressors": None}),
        (2, {"compressors": numcodecs.Zlib()}),
        (2, {"compressors": numcodecs.GZip()}),
        (2, {"compressors": numcodecs.Zstd()}),
        (2, {"compressors": numcodecs.LZ4()}),
        (2, {"compressors": numcodecs.BZ2()}),
        (2, {"compressors": numcodecs.LZMA()}),
        (2, {"compressors": numcodecs.Blosc(cname="zstd"), "order": "F", "chunks": (2, 17)}),
        (2, {"chunks": (2, 17), "chunk_key_encoding": {"name": "v2", "separator": "/"}}),
        (3, {"compressors": zarr.codecs.BloscCodec(), "chunks": (2, 17)}),
        (3, {"compressors": zarr.codecs.GzipCodec(), "chunk_key_encoding": {"name": "default", "separator": "."}}),
        (3, {"compressors": None, "serializer": zarr.codecs.BytesCodec(endian="big")}),
    ],
)
def test_chunks_of_every_shape_and_codec_give_the_same_traces(tmp_path, version, options):
    write_store(tmp_path, "C", C, version=version, **options)
    (got,) = read(tmp_path)
    np.testing.assert_array_equal(got.traces, C)
    assert got.centroids is None and "no A.zarr" in got.source["notes"][0]


def test_footprints_cut_into_chunks_have_the_same_centres(tmp_path):
    write_store(tmp_path, "C", C)
    write_store(tmp_path, "A", footprints(), units=np.array([9, 5, 7]), frames=None, chunks=(2, 4, 2))
    np.testing.assert_array_equal(read(tmp_path)[0].centroids[1:], [[1.75, 4], [3, 1]])


def test_other_traces_are_read_on_request_in_the_order_of_c(tmp_path):
    write_session(tmp_path)
    write_store(tmp_path, "S", C + 1000)
    write_store(tmp_path, "YrA", np.array([[1.0], [2.0], [3.0]]) + np.zeros(40), units=UNITS[::-1].copy())
    (deconvolved,), (raw,) = read(tmp_path, trace_kind="deconvolved"), read(tmp_path, trace_kind="fluorescence")
    np.testing.assert_array_equal(deconvolved.traces, C + 1000)
    np.testing.assert_array_equal(raw.traces, C + [[3], [2], [1]])
    assert (deconvolved.trace_kind, raw.trace_kind, raw.source["trace"]) == ("deconvolved", "fluorescence", "C + YrA")


def test_missing_values_stay_missing(tmp_path):
    write_store(tmp_path, "C", np.where(C == 41, np.nan, C))
    assert np.argwhere(np.isnan(read(tmp_path)[0].traces)).tolist() == [[1, 1]]


def test_the_rate_is_the_mean_of_regular_intervals_though_milliseconds_are_rounded(tmp_path):
    write_session(tmp_path / "day" / "minian")
    # 30 Hz in whole milliseconds: 0, 33, 67, 100; the median interval, 33 ms, would say 30.3 Hz.
    write_times(tmp_path / "day" / "timeStamps.csv", [round(1000 * i / 30) for i in range(40)])
    (got,) = read(tmp_path / "day", Facts())
    assert got.sampling_rate == pytest.approx(30) and got.source["sampling_rate_from"] == "timeStamps.csv"
    assert (got.segment_starts, got.recording_id) == ((0,), "day")


def test_times_are_those_of_the_frames_that_were_kept_and_what_is_left_out_begins_a_segment(tmp_path):
    frames = np.concatenate([np.arange(10, 30, 2), np.arange(50, 110, 2)])
    write_store(tmp_path, "C", C, frames=frames)
    times = np.arange(200) * 50
    times[71:] += 400
    write_times(tmp_path / "timeStamps.csv", times)
    (got,) = read(tmp_path, Facts())
    # Frame 72, the 22nd that was kept, comes 0.4 s late.
    assert got.sampling_rate == pytest.approx(10) and got.segment_starts == (0, 10, 21)
    # Beside a stated rate 0.4 s are no pause.
    assert read(tmp_path)[0].segment_starts == (0, 10)


def test_a_pause_in_the_timestamps_begins_a_segment_with_or_without_a_stated_rate(tmp_path):
    write_session(tmp_path)
    write_times(tmp_path / "timeStamps.csv", np.arange(40) * 50 + 60_000 * (np.arange(40) >= 15))
    for facts in (Facts(), RATE):
        (got,) = read(tmp_path, facts)
        assert got.segment_starts == (0, 15) and got.sampling_rate == pytest.approx(20)
        assert "frames that are left out and jumps of the timestamps begin a new segment" in got.source["notes"]


@pytest.mark.parametrize(
    "times", [np.cumsum(np.tile([50, 50, 5000, 50], 10)), np.arange(40) // 20 * 1000, np.zeros(40)]
)
def test_timestamps_that_are_irregular_all_over_begin_no_segments_beside_a_stated_rate(tmp_path, times):
    write_session(tmp_path)
    write_times(tmp_path / "timeStamps.csv", times)
    assert read(tmp_path)[0].segment_starts == (0,)


def test_unix_times_in_seconds_are_read_too(tmp_path):
    write_session(tmp_path)
    header = "frame,timestamp_first,timestamp_last"
    write_times(tmp_path / "neural_timestamp.csv", 1766172594.5 + np.arange(40) / 20, header=header)
    assert read(tmp_path, Facts())[0].sampling_rate == pytest.approx(20, rel=1e-6)


@pytest.mark.parametrize(
    ("times", "options", "message"),
    [
        (None, {}, "got neither timeStamps.csv nor neural_timestamp.csv beside it or one folder up; pass --samp"),
        (np.arange(40) * 50 - 129_000 * (np.arange(40) >= 7), {}, r"7 \(frames are about 1/20 s apart\); pass --samp"),
        (np.arange(39) * 50, {}, "no time of frame 39"),
        (np.arange(40) * 50, {"frames": range(1, 41)}, "no time of frame 0"),
        (np.cumsum(np.tile([10, 100], 20)), {}, r"irregular \(\d+% of the steps are far"),
        (np.zeros(40), {}, "far from 0 s"),
        (np.arange(40) * 50, {"header": "frame,ticks,x"}, "no column of times that is known in timeStamps.csv"),
        (np.arange(40) * 50, {"header": "frame,time_s"}, "expected a CSV table in UTF-8"),
        (["x"] * 40, {}, "expected a CSV table in UTF-8"),
    ],
)
def test_without_usable_times_the_rate_is_asked_for(tmp_path, times, options, message):
    write_session(tmp_path)
    if times is not None:
        write_times(tmp_path / "timeStamps.csv", times, **options)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path, Facts())
    assert "\n" not in str(error.value)
    assert read(tmp_path)[0].sampling_rate == 20


def test_times_that_go_back_are_noted_beside_a_stated_rate(tmp_path):
    write_session(tmp_path)
    write_times(tmp_path / "timeStamps.csv", np.arange(40) * 50 - 129_000 * (np.arange(40) >= 7))
    (got,) = read(tmp_path)
    assert "its timestamps go back by 129 s at frame 7; the stated rate was used" in got.source["notes"]
    assert got.segment_starts == (0, 7)


def test_traces_that_minian_did_not_save_are_asked_of_those_that_are_there(tmp_path):
    write_session(tmp_path)
    message = r"expected S\.zarr for --trace-kind deconvolved, found A\.zarr, C\.zarr; choose denoised$"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, trace_kind="deconvolved")


def test_two_files_of_timestamps_ask_for_the_rate(tmp_path):
    write_session(tmp_path)
    for name in ("timestamps_a.csv", "timestamps_b.csv"):
        write_times(tmp_path / name, np.arange(40) * 50)
    with pytest.raises(ValueError, match=r"several files of timestamps \(timestamps_a.csv, timestamps_b.csv\)"):
        read(tmp_path, Facts())


def test_tables_of_a_session_are_claimed_and_those_elsewhere_are_not(tmp_path):
    write_session(tmp_path / "day" / "minian")
    for name in ("timeStamps.csv", "behaviour.csv", "minian/centres.csv", "minian/inner/x.csv"):
        (tmp_path / "day" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "day" / name).write_text("a,b\n1,2\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    claimed = {path.relative_to(tmp_path).as_posix() for path in find_minian(tmp_path).claimed}
    assert claimed == {"day/timeStamps.csv", "day/behaviour.csv", "day/minian/centres.csv"}


def test_sessions_are_named_after_the_folders_that_tell_them_apart(tmp_path):
    for day in ("m1/day1/minian", "m1/day2/minian", "m2"):
        write_session(tmp_path / day)
    (tmp_path / "empty" / "C.zarr").mkdir(parents=True)
    found = find_minian(tmp_path)
    assert [(s.recording, s.file) for s in found.sources] == [
        ("m1_day1", "m1/day1/minian"),
        ("m1_day2", "m1/day2/minian"),
        ("m2", "m2"),
    ]
    assert found.passed_over == [("empty/C.zarr", "it holds no array C")]
    for path in (tmp_path / "m1" / "day1", tmp_path / "m1/day1/minian", tmp_path / "m1/day1/minian/C.zarr"):
        assert [s.recording for s in find_minian(path).sources] == ["day1"]
    assert find_minian(tmp_path / "m2" / "C.zarr" / "C" / "0.0").sources == []


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": np.array([1, 2, 2])}, r"C\.zarr/unit_id: expected each unit_id once, got 2 more than once"),
        ({"units": np.array([1.0, 2.0, 3.0])}, "expected whole numbers, got float64"),
        ({"units": np.arange(4)}, r"expected unit_id, frame of \(4, 40\), got shape \(3, 40\)"),
        ({"frames": np.arange(40)[::-1].copy()}, "whose numbers increase"),
        ({"frames": np.full(40, np.nan)}, "whose numbers increase"),
        ({"named": {"attributes": {"_ARRAY_DIMENSIONS": ["frame", "unit_id"]}}}, "got frame, unit_id"),
        ({"filters": [numcodecs.Delta("f8")]}, "filters are not read"),
    ],
)
def test_arrays_that_do_not_fit_together_are_one_plain_line(tmp_path, options, message):
    write_store(tmp_path, "C", C, **options)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [10**6, 10**6]}, "expected unit_id, frame of"),
        ({"chunks": [1, 10**12]}, "expected chunks of up to 512 MiB"),
        ({"chunks": [1, 41]}, "expected a chunk of 328 bytes"),
        ({"chunks": [40]}, "chunks of as many axes"),
        ({"chunks": [0, 40]}, "sizes are no whole numbers above 0"),
        ({"shape": "many"}, "sizes are no whole numbers"),
        ({"dtype": "|O"}, "expected an array of numbers, got object, which is not loaded"),
        ({"compressor": {"id": "pickle"}}, "expected chunks compressed by blosc.*got 'pickle'"),
        ({"filters": [{"id": "pickle"}]}, "filters are not read"),
        ({"dtype": 7}, "the metadata of a zarr array"),
    ],
)
def test_metadata_that_lie_are_one_plain_line(tmp_path, changes, message):
    write_session(tmp_path)
    edit_json(tmp_path / "C.zarr" / "C" / ".zarray", **changes)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


def test_an_array_that_claims_more_than_its_files_hold_is_refused_before_there_is_room_for_it(tmp_path):
    write_session(tmp_path)
    edit_json(tmp_path / "C.zarr" / "unit_id" / ".zarray", shape=[10**12])
    message = reads_or_refuses(lambda: read(tmp_path))
    assert "expected as much as its files can hold, got 8000000000000 bytes" in message


@pytest.mark.parametrize("compressor", [numcodecs.Blosc(), numcodecs.Zstd(), numcodecs.GZip(), numcodecs.BZ2()])
def test_a_chunk_that_unpacks_to_more_than_it_should_is_refused(tmp_path, compressor):
    write_store(tmp_path, "C", C, compressors=compressor)
    (tmp_path / "C.zarr" / "C" / "1.0").write_bytes(compressor.encode(np.zeros(2**20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="expected a chunk of 320 bytes"):
        read(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_a_chunk_that_lacks_its_last_byte_is_refused(tmp_path):
    write_store(tmp_path, "C", np.random.default_rng(0).normal(size=(3, 40)), compressors=numcodecs.Blosc())
    path = tmp_path / "C.zarr" / "C" / "1.0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its header says another length"):
        read(tmp_path)


def test_chunks_that_are_not_there_are_the_fill_value_and_said(tmp_path):
    write_store(tmp_path, "C", C, fill_value=np.nan)
    (tmp_path / "C.zarr" / "C" / "1.0").unlink()
    (got,) = read(tmp_path)
    assert np.isnan(got.traces[1]).all() and not np.isnan(got.traces[[0, 2]]).any()
    assert "chunks that are not there were read as the fill value of their array" in got.source["notes"]


def test_footprints_that_are_not_finite_are_refused(tmp_path):
    write_store(tmp_path, "C", C)
    write_store(tmp_path, "A", np.full((3, 6, 5), np.inf), frames=None)
    with pytest.raises(ValueError, match="expected finite footprints"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["C.zarr/frame", "A.zarr/unit_id"])
def test_an_array_that_is_not_there_is_named(tmp_path, name):
    write_session(tmp_path)
    for path in (tmp_path / name).glob(".z*"):
        path.unlink()
    with pytest.raises(ValueError, match=f"(?s){name.split('/')[0]}/.*: expected a zarr array"):
        read(tmp_path)


def test_units_of_another_session_are_refused(tmp_path):
    write_session(tmp_path)
    write_store(tmp_path, "YrA", C, units=np.array([1, 5, 9]))
    with pytest.raises(ValueError, match="expected YrA of the units and frames of C"):
        read(tmp_path, trace_kind="fluorescence")
    with pytest.raises(ValueError, match="expected denoised, deconvolved, fluorescence for minian, got 'dff'"):
        read(tmp_path, trace_kind="dff")


FILES = [f"C.zarr/{name}" for name in ("C/.zarray", "C/.zattrs", "C/1.0", "unit_id/.zarray", "unit_id/0", "frame/0")]
FILES += ["A.zarr/A/.zarray", "A.zarr/A/1.0.0", "A.zarr/unit_id/0", "timeStamps.csv", "v3/C.zarr/C/zarr.json"]
FILES += ["v3/C.zarr/C/c/1/0"]


@damages
@given(name=st.sampled_from(FILES), change=damage())
def test_a_damaged_session_is_read_or_refused(tmp_path_factory, name, change):
    root = tmp_path_factory.mktemp("damaged")
    write_session(root)
    write_store(root / "v3", "C", C, version=3)
    write_times(root / "timeStamps.csv", np.arange(40) * 50)
    (root / name).write_bytes(change((root / name).read_bytes()))
    reads_or_refuses(lambda: read(root, Facts()))
    reads_or_refuses(lambda: read(root))


@pytest.mark.skipif(not (REAL / "minian_ca1").is_dir(), reason="no real recordings here")
def test_the_real_session_is_refused_for_its_times_and_read_with_a_rate(monkeypatch):
    monkeypatch.syspath_prepend(str(REAL))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    import real_recordings

    name, found = detect(REAL / "minian_ca1")
    assert (name, [s.recording for s in found.sources]) == ("minian", ["minian_ca1"])
    with pytest.raises(ValueError, match="go back by 129 s at frame 4402 .frames are about 1/20.2 s apart.; pass"):
        list(read_minian(found.sources[0], Facts()))
    (got,) = read_minian(found.sources[0], RATE)
    assert "its timestamps go back by 129 s at frame 4402; the stated rate was used" in got.source["notes"]
    # Of over seventy jumps those of more than a second, and not the single frames that were lost.
    times = np.genfromtxt(REAL / "minian_ca1" / "neural_timestamp.csv", delimiter=",", names=True)["timestamp_first"]
    jumps = np.flatnonzero(np.abs(np.diff(times[: got.num_frames])) > 1) + 1
    assert got.segment_starts == (0, *jumps) and 4402 in jumps and len(jumps) == 15
    (expected,) = real_recordings.minian_ca1()
    np.testing.assert_array_equal(got.traces, expected["x"])
    np.testing.assert_allclose(got.centroids, expected["xy"], rtol=1e-6)
