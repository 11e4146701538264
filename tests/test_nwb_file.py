"""Series, traces and times of NWB files made by hand, and what of them must be refused."""

import io

import h5py
import numpy as np
import pytest
from neurt.dataset_scripts import hdf5_file
from neurt.dataset_scripts.hdf5_file import open_hdf5
from neurt.dataset_scripts.nwb_file import (
    find_series,
    open_series,
    read_clock,
    read_traces,
)
from neurt.dataset_scripts.nwb_tables import integer_column, mask_centroids
from nwb_by_hand import DATA, PATH, PLANE, TABLE, TIMES, both, made, put, refused, save, write


def test_a_series_leads_to_its_table_by_reference_and_takes_its_rows():
    series = made()
    assert (series.num_frames, series.num_rois, series.table.name) == (40, 3, TABLE)
    assert series.rows.tolist() == [2, 0, 1] and series.roi_ids.tolist() == [12, 10, 11]
    assert (series.unit, series.conversion, series.offset) == ("n.a.", 1, 0)


@pytest.mark.parametrize("storage", [{}, {"chunks": (7, 3)}, {"chunks": (7, 2), "compression": "gzip"}])
@pytest.mark.parametrize("block_bytes", [1, 200, 2**24])
def test_traces_are_the_transposed_data_whatever_the_chunks(monkeypatch, storage, block_bytes):
    monkeypatch.setattr(hdf5_file, "_BLOCK_BYTES", block_bytes)

    def store(file):
        del file[PATH]["data"]
        file[PATH].create_dataset("data", data=DATA, **storage)

    series = made(store)
    traces = read_traces(series)
    assert traces.dtype == np.float32 and traces.flags.c_contiguous
    np.testing.assert_array_equal(traces, DATA.T)
    np.testing.assert_array_equal(read_traces(series, np.array([2, 0])), DATA.T[[2, 0]])


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((10, 5), [(0, 30, 0, 12), (30, 40, 0, 12)]),
        ((40, 1), [(0, 40, 0, 10), (0, 40, 10, 12)]),
        ((3, 12), [(start, min(start + 33, 40), 0, 12) for start in (0, 33)]),
        (None, [(start, min(start + 33, 40), 0, 12) for start in (0, 33)]),
    ],
)
def test_every_chunk_is_in_one_block_and_blocks_are_small(monkeypatch, chunks, expected):
    monkeypatch.setattr(hdf5_file, "_BLOCK_BYTES", 40 * 10 * 4)
    with h5py.File("blocks.h5", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("data", (40, 12), np.float32, chunks=chunks)
        blocks = [(f.start, f.stop, r.start, r.stop) for f, r in hdf5_file._blocks(data)]
    assert blocks == expected


def test_traces_take_conversion_and_offset_in_double_precision():
    scaled = made(put(f"{PATH}/data", DATA.astype(np.int16), conversion=0.1, offset=1000.0))
    np.testing.assert_array_equal(read_traces(scaled), (DATA.T.astype(np.float64) * 0.1 + 1000).astype(np.float32))


def test_a_series_of_one_roi_may_have_one_dimension():
    series = made(both(put(f"{PATH}/data", DATA[:, 1]), put(f"{PATH}/rois", np.array([1]))))
    np.testing.assert_array_equal(read_traces(series), DATA[:, 1:2].T)


def test_nan_frames_are_left_for_preparation():
    holes = np.where(DATA == 5, np.nan, DATA)
    np.testing.assert_array_equal(read_traces(made(put(f"{PATH}/data", holes))), holes.T)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            put(f"{PATH}/data", DATA.T),
            r"a\.nwb, /proc.*for its 3 rois and 40 timestamps, got shape \(3, 40\).*data\.T",
        ),
        (both(put(f"{PATH}/data", DATA.T), put(f"{PATH}/timestamps", None)), "looks transposed"),
        (put(f"{PATH}/data", DATA[:30]), r"40 timestamps, got shape \(30, 3\)$"),
        (put(f"{PATH}/data", DATA[:, :2]), r"3 rois and 40 timestamps, got shape \(40, 2\)$"),
        (put(f"{PATH}/data", DATA[:0]), r"of shape \(frames, ROIs\), got shape \(0, 3\)"),
        (put(f"{PATH}/data", DATA.reshape(2, 20, 3)), r"of shape \(frames, ROIs\), got shape \(2, 20, 3\)"),
        (put(f"{PATH}/data", None), "expected data, found none"),
        (put(f"{PATH}/data", np.full((40, 3), b"x")), "expected numbers in data, got"),
        (put(f"{PATH}/data", DATA, conversion=np.nan), "expected a finite number as conversion, got nan"),
        (put(f"{PATH}/rois", None), "expected rois that refer to a PlaneSegmentation, found none"),
        (put(f"{PATH}/rois", np.arange(3), table="cells"), "expected rois that refer to a PlaneSegmentation"),
        (put(f"{PATH}/rois", np.array([0, 1, 3])), "expected rows of a table of 3 ROIs, got row 3"),
        (put(f"{PATH}/rois", np.array([0, 1, -1])), "got row -1"),
        (put(f"{PATH}/rois", np.array([0.0, 1, 2])), "expected rois as row numbers, got float64"),
        (put(f"{PATH}/rois", np.array([0, 1, 1])), "expected each ROI once, got repeated ids 11"),
        (put(f"{TABLE}/id", np.array([7, 7, 8])), "expected each ROI once, got repeated ids 7"),
        (put(f"{TABLE}/id", np.array([1.0, 2, 3])), "whole numbers in id, got float64, which loses digits"),
        (put(f"{TABLE}/id", None), "PlaneSegmentation with ids, got /processing/ophys/S/cells"),
    ],
)
def test_a_series_that_does_not_fit_together_is_one_plain_line(edit, message):
    refused(made, edit, match=message)


def test_a_table_that_is_a_dangling_or_empty_reference_is_one_plain_line():
    def empty(file):
        file[PATH]["rois"].attrs["table"] = h5py.Reference()

    refused(made, empty, match="expected rois that refer to a PlaneSegmentation")


def timestamps(values):
    return put(f"{PATH}/timestamps", np.asarray(values, dtype=np.float64))


def test_the_rate_is_one_over_the_mean_of_the_steps():
    clock = read_clock(made(timestamps(np.append(0, np.tile([0.15, 0.25, 0.2], 13).cumsum()))))
    assert clock.sampling_rate == pytest.approx(5) and clock.from_ == "timestamps"
    assert (clock.segment_starts, clock.notes) == ((0,), ())


@pytest.mark.parametrize(("step", "length"), [(0, 3), (29, 0.32), (38, 1000)])
def test_a_hole_begins_a_segment_and_does_not_slow_the_rate(step, length):
    steps = np.tile([0.19, 0.21], 20)[:39]
    expected = 38 / np.delete(steps, step).sum()
    steps[step] = length
    clock = read_clock(made(timestamps(np.append(0, steps.cumsum()))))
    assert clock.sampling_rate == pytest.approx(expected) and clock.segment_starts == (0, step + 1)
    assert clock.notes == ("holes in the timestamps begin a new segment",)


def test_a_frame_that_came_too_soon_begins_no_segment():
    values = np.append(TIMES, TIMES[-1] + [0.05, 0.25, 0.45])
    clock = read_clock(made(both(put(f"{PATH}/data", np.zeros((43, 3))), timestamps(values))))
    assert clock.sampling_rate == pytest.approx(5) and clock.segment_starts == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(np.arange(40) >= 17, TIMES - 129, TIMES), "got a step back or none at frame 17; correct them or"),
        (np.where(np.arange(40) == 9, TIMES[8], TIMES), "step back or none at frame 9"),
        (np.where(np.arange(40) == 9, np.nan, TIMES), "not finite at frame 9"),
        (np.cumsum(np.tile([0.1, 0.1, 0.1, 0.9], 10)), r"irregular \(26% of the steps are far from 0.1 s\)"),
    ],
)
def test_timestamps_that_give_no_rate_are_refused_unless_one_is_stated(values, message):
    series = made(timestamps(values))
    refused(read_clock, series, match=message)
    clock = read_clock(series, 5.0)
    assert (clock.sampling_rate, clock.from_, clock.segment_starts) == (5, "stated", (0,))
    assert clock.notes[0].startswith("timestamps are not used: ")


def test_one_timestamp_gives_no_rate():
    series = made(both(put(f"{PATH}/data", DATA[:1]), timestamps([1])))
    refused(read_clock, series, match="expected regular timestamps, got 1 of them")


def starting_time(rate):
    return put(f"{PATH}/starting_time", 0.0, rate=rate, unit="seconds")


def test_without_timestamps_the_rate_beside_the_start_counts():
    clock = read_clock(made(both(timestamps([]), put(f"{PATH}/timestamps", None), starting_time(15.5))))
    assert clock == (15.5, "starting_time.rate", (0,), ())


@pytest.mark.parametrize("rate", [np.nan, np.inf, 0.0, -5.0])
def test_a_rate_that_is_no_number_above_0_is_none(rate):
    series = made(both(put(f"{PATH}/timestamps", None), starting_time(rate), put(f"{PLANE}/imaging_rate", rate)))
    refused(read_clock, series, match="expected timestamps or a rate in Hz, found neither; state the sampling rate")


def test_a_rate_and_timestamps_must_agree_and_a_stated_rate_wins():
    assert read_clock(made(starting_time(5.04))).from_ == "timestamps"
    series = made(starting_time(6.0))
    refused(read_clock, series, match="expected one sampling rate, got 6 Hz beside timestamps of 5 Hz")
    clock = read_clock(series, 6.0)
    assert (clock.sampling_rate, clock.from_) == (6, "stated")
    assert clock.notes == ("the stated sampling rate was used, not that of timestamps",)


def test_timestamps_that_are_texts_are_refused():
    series = made(put(f"{PATH}/timestamps", [str(time) for time in TIMES]))
    refused(read_clock, series, match="expected numbers in timestamps, got object")


def test_timestamps_in_another_unit_are_refused():
    series = made(put(f"{PATH}/timestamps", 1000 * TIMES, unit="milliseconds"))
    refused(read_clock, series, match="expected timestamps in seconds, got 'milliseconds'")


def test_series_are_found_by_their_type_in_natural_order(tmp_path):
    def add(file):
        for number in (10, 2):
            file.create_group(f"/processing/other/s{number}").attrs["neurodata_type"] = "RoiResponseSeries"

    with open_hdf5(save(tmp_path / "a.nwb", add)) as file:
        assert find_series(file) == [PATH, "/processing/other/s2", "/processing/other/s10"]
        assert find_series(file, "/processing/ophys") == [PATH] == find_series(file, PATH)
        assert find_series(file, "/nowhere") == []


def test_groups_that_contain_themselves_and_links_out_of_the_file_are_no_trap(tmp_path):
    save(tmp_path / "b.nwb")

    def add(file):
        file["/processing/ophys/circle"] = file["/processing"]
        file["/processing/ophys/soft"] = h5py.SoftLink("/processing")
        file["/processing/ophys/out"] = h5py.ExternalLink("b.nwb", "/processing")

    with open_hdf5(save(tmp_path / "a.nwb", add)) as file:
        assert find_series(file) == [PATH]


def test_a_name_in_no_encoding_is_one_plain_line(tmp_path):
    path = save(tmp_path / "a.nwb", lambda file: file.create_group("/processing/latin_1"))
    path.write_bytes(path.read_bytes().replace(b"latin_1", b"latin\xe9\xe9"))
    with open_hdf5(path) as file:
        refused(find_series, file, match="expected an HDF5 file, got a file that cannot be read")


class Counting(io.BytesIO):
    """A file in memory that counts what is read of it, as one over a network would be."""

    taken = 0

    def readinto(self, buffer):
        self.taken += len(buffer)
        return super().readinto(buffer)


def test_traces_and_masks_are_read_from_a_file_object_without_its_movie():
    stored = Counting()

    def movie(file):
        data = np.random.default_rng(0).integers(0, 255, (2000, 32, 32), dtype=np.uint8)
        file.create_dataset("/acquisition/movie/data", data=data, chunks=(1, 32, 32))

    with h5py.File(stored, "w") as file:
        write(file, movie)
    stored.taken = 0
    with open_hdf5("https://example.org/scan.nwb", stored) as file:
        (path,) = find_series(file)
        series = open_series(file, path, "scan.nwb")
        np.testing.assert_array_equal(read_traces(series), DATA.T)
        assert mask_centroids(series.table, series.rows).shape == (3, 2) and read_clock(series).segment_starts == (0,)
        refused(
            integer_column, series.table, "image_mask", match=r"^https://example\.org/scan\.nwb, /processing/ophys/S/"
        )
    assert stored.taken < len(stored.getvalue()) / 10
