"""The core of reading NWB: small files made with h5py by the schema, and what of them must be refused."""

import io

import h5py
import numpy as np
import pytest
from neurt.dataset_scripts import hdf5_file, nwb_file
from neurt.dataset_scripts.nwb_file import (
    column,
    find_series,
    grid_of,
    integer_column,
    mask_centroids,
    open_nwb,
    open_series,
    read_clock,
    read_traces,
)

FRAMES = 40
DATA = np.arange(FRAMES * 3, dtype=np.float32).reshape(FRAMES, 3)
TIMES = 20 + 0.2 * np.arange(FRAMES)
PATH = "/processing/ophys/F/dF"
TABLE = "/processing/ophys/S/cells"
PLANE = "/general/optophysiology/plane"
PIXEL = np.dtype([("x", "u4"), ("y", "u4"), ("weight", "f4")])


def masks(rois=3):
    """Mask r has weight 1 at (r, 1) and 3 at (r, 3): its centre is (r, 2.5)."""
    found = np.zeros((rois, 4, 5), np.float32)
    found[np.arange(rois), np.arange(rois), 1] = 1
    found[np.arange(rois), np.arange(rois), 3] = 3
    return found


def write(file, edit=None):
    """Write a series of three ROIs, in the order 12, 10, 11, of a table of three."""
    series, table, plane = (file.create_group(path) for path in (PATH, TABLE, PLANE))
    for group, kind in ((series, "RoiResponseSeries"), (table, "PlaneSegmentation"), (plane, "ImagingPlane")):
        group.attrs["neurodata_type"] = kind
    data = series.create_dataset("data", data=DATA)
    data.attrs.update({"unit": "n.a.", "conversion": 1.0, "offset": 0.0})
    series["timestamps"] = TIMES
    series["rois"] = np.array([2, 0, 1])
    series["rois"].attrs["table"] = table.ref
    table["id"] = np.array([10, 11, 12])
    table["image_mask"] = masks()
    table["imaging_plane"] = h5py.SoftLink(PLANE)
    plane["grid_spacing"] = np.array([2e-6, 2.5e-6])
    plane["grid_spacing"].attrs["unit"] = "meters"
    if edit:
        edit(file)


def save(path, edit=None):
    with h5py.File(path, "w") as file:
        write(file, edit)
    return path


def put(path, values, **attributes):
    """Return an edit that stores values in place of what is there; None stores nothing."""

    def edit(file):
        kept = dict(file[path].attrs) if path in file else {}
        if path in file:
            del file[path]
        if values is not None:
            file[path] = values
            file[path].attrs.update(kept | attributes)

    return edit


def both(*edits):
    def edit(file):
        for each in edits:
            each(file)

    return edit


@pytest.fixture
def made(tmp_path):
    """Open the series of a file that an edit changed."""
    opened = []

    def make(edit=None):
        opened.append(open_nwb(save(tmp_path / f"{len(opened)}.nwb", edit)))
        return open_series(opened[-1], PATH, "a.nwb")

    yield make
    for file in opened:
        file.close()


def refused(read, *arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        read(*arguments)
    assert "\n" not in str(error.value)


def test_a_series_leads_to_its_table_by_reference_and_takes_its_rows(made):
    series = made()
    assert (series.num_frames, series.num_rois, series.table.name) == (40, 3, TABLE)
    assert series.rows.tolist() == [2, 0, 1] and series.roi_ids.tolist() == [12, 10, 11]
    assert (series.unit, series.conversion, series.offset) == ("n.a.", 1, 0)


@pytest.mark.parametrize("storage", [{}, {"chunks": (7, 3)}, {"chunks": (7, 2), "compression": "gzip"}])
@pytest.mark.parametrize("block_bytes", [1, 200, 2**24])
def test_traces_are_the_transposed_data_whatever_the_chunks(made, monkeypatch, storage, block_bytes):
    monkeypatch.setattr(nwb_file, "_BLOCK_BYTES", block_bytes)

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
    monkeypatch.setattr(nwb_file, "_BLOCK_BYTES", 40 * 10 * 4)
    with h5py.File("blocks.h5", "w", driver="core", backing_store=False) as file:
        data = file.create_dataset("data", (40, 12), np.float32, chunks=chunks)
        blocks = [(f.start, f.stop, r.start, r.stop) for f, r in nwb_file._blocks(data)]
    assert blocks == expected


def test_traces_take_conversion_and_offset_in_double_precision(made):
    scaled = made(put(f"{PATH}/data", DATA.astype(np.int16), conversion=0.1, offset=1000.0))
    np.testing.assert_array_equal(read_traces(scaled), (DATA.T.astype(np.float64) * 0.1 + 1000).astype(np.float32))


def test_a_series_of_one_roi_may_have_one_dimension(made):
    series = made(both(put(f"{PATH}/data", DATA[:, 1]), put(f"{PATH}/rois", np.array([1]))))
    np.testing.assert_array_equal(read_traces(series), DATA[:, 1:2].T)


def test_nan_frames_are_left_for_preparation(made):
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
def test_a_series_that_does_not_fit_together_is_one_plain_line(made, edit, message):
    refused(made, edit, match=message)


def test_a_table_that_is_a_dangling_or_empty_reference_is_one_plain_line(made):
    def empty(file):
        file[PATH]["rois"].attrs["table"] = h5py.Reference()

    refused(made, empty, match="expected rois that refer to a PlaneSegmentation")


def timestamps(values):
    return put(f"{PATH}/timestamps", np.asarray(values, dtype=np.float64))


def test_the_rate_is_one_over_the_mean_of_the_steps(made):
    clock = read_clock(made(timestamps(np.append(0, np.tile([0.15, 0.25, 0.2], 13).cumsum()))))
    assert clock.sampling_rate == pytest.approx(5) and clock.from_ == "timestamps"
    assert (clock.segment_starts, clock.notes) == ((0,), ())


@pytest.mark.parametrize(("step", "length"), [(0, 3), (29, 0.32), (38, 1000)])
def test_a_hole_begins_a_segment_and_does_not_slow_the_rate(made, step, length):
    steps = np.tile([0.19, 0.21], 20)[:39]
    expected = 38 / np.delete(steps, step).sum()
    steps[step] = length
    clock = read_clock(made(timestamps(np.append(0, steps.cumsum()))))
    assert clock.sampling_rate == pytest.approx(expected) and clock.segment_starts == (0, step + 1)
    assert clock.notes == ("holes in the timestamps begin a new segment",)


def test_a_frame_that_came_too_soon_begins_no_segment(made):
    values = np.append(TIMES, TIMES[-1] + [0.05, 0.25, 0.45])
    clock = read_clock(made(both(put(f"{PATH}/data", np.zeros((43, 3))), timestamps(values))))
    assert clock.sampling_rate == pytest.approx(5) and clock.segment_starts == (0,)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.where(np.arange(40) >= 17, TIMES - 129, TIMES), "got a step back or none at frame 17; correct them or"),
        (np.where(np.arange(40) == 9, TIMES[8], TIMES), "step back or none at frame 9"),
        (np.where(np.arange(40) == 9, np.nan, TIMES), "not finite at frame 9"),
        (np.cumsum(np.tile([0.1, 0.1, 0.1, 0.9], 10)), "25.6 % of irregular steps"),
    ],
)
def test_timestamps_that_give_no_rate_are_refused_unless_one_is_stated(made, values, message):
    series = made(timestamps(values))
    refused(read_clock, series, match=message)
    clock = read_clock(series, 5.0)
    assert (clock.sampling_rate, clock.from_, clock.segment_starts) == (5, "stated", (0,))
    assert clock.notes[0].startswith("timestamps are not used: ")


def test_one_timestamp_gives_no_rate(made):
    series = made(both(put(f"{PATH}/data", DATA[:1]), timestamps([1])))
    refused(read_clock, series, match="expected regular timestamps, got 1 of them")


def starting_time(rate):
    return put(f"{PATH}/starting_time", 0.0, rate=rate, unit="seconds")


def test_without_timestamps_the_rate_beside_the_start_counts(made):
    clock = read_clock(made(both(timestamps([]), put(f"{PATH}/timestamps", None), starting_time(15.5))))
    assert clock == (15.5, "starting_time.rate", (0,), ())


@pytest.mark.parametrize("rate", [np.nan, np.inf, 0.0, -5.0])
def test_a_rate_that_is_no_number_above_0_is_none(made, rate):
    series = made(both(put(f"{PATH}/timestamps", None), starting_time(rate), put(f"{PLANE}/imaging_rate", rate)))
    refused(read_clock, series, match="expected timestamps or a rate in Hz, found neither; state the sampling rate")


def test_a_rate_and_timestamps_must_agree_and_a_stated_rate_wins(made):
    assert read_clock(made(starting_time(5.04))).from_ == "timestamps"
    series = made(starting_time(6.0))
    refused(read_clock, series, match="expected one sampling rate, got 6 Hz beside timestamps of 5 Hz")
    clock = read_clock(series, 6.0)
    assert (clock.sampling_rate, clock.from_) == (6, "stated")
    assert clock.notes == ("the stated sampling rate was used, not that of timestamps",)


def test_timestamps_in_another_unit_are_refused(made):
    series = made(put(f"{PATH}/timestamps", 1000 * TIMES, unit="milliseconds"))
    refused(read_clock, series, match="expected timestamps in seconds, got 'milliseconds'")


def test_centres_are_weighted_by_the_mask_and_count_pixels_from_0(made):
    series = made()
    centroids = mask_centroids(series.table, series.rows)
    assert centroids.dtype == np.float64
    np.testing.assert_array_equal(centroids, [[2, 2.5], [0, 2.5], [1, 2.5]])


def test_a_mask_with_depth_is_summed_over_it(made):
    series = made(put(f"{TABLE}/image_mask", np.stack([masks(), 2 * masks()], axis=3)))
    np.testing.assert_array_equal(mask_centroids(series.table, series.rows), [[2, 2.5], [0, 2.5], [1, 2.5]])


@pytest.mark.parametrize("most", [1, 100, 2**26])
def test_masks_are_read_in_pieces(made, monkeypatch, most):
    monkeypatch.setattr("neurt.dataset_scripts.nwb_tables._MOST_BLOCK_BYTES", most)
    series = made()
    np.testing.assert_array_equal(mask_centroids(series.table, np.array([2, 1])), [[2, 2.5], [1, 2.5]])


def listed(pixels, ends, name="pixel_mask", dtype=PIXEL):
    return both(
        put(f"{TABLE}/image_mask", None),
        put(f"{TABLE}/{name}", np.array(pixels, dtype)),
        put(f"{TABLE}/{name}_index", np.array(ends, dtype=np.uint8)),
    )


def test_lists_of_pixels_give_the_same_centres_and_a_mask_of_zeros_none(made):
    pixels = [(1, 5, 1), (3, 5, 3), (7, 9, 0), (4, 6, 0.5)]
    series = made(listed(pixels, [2, 3, 4]))
    expected = [[2.5, 5], [np.nan, np.nan], [4, 6]]
    np.testing.assert_array_equal(mask_centroids(series.table, np.arange(3)), expected)
    voxels = np.dtype([("x", "u4"), ("y", "u4"), ("z", "u4"), ("weight", "f4")])
    series = made(listed([(x, y, 8, w) for x, y, w in pixels], [2, 3, 4], "voxel_mask", voxels))
    np.testing.assert_array_equal(mask_centroids(series.table, np.arange(3)), expected)


def test_a_table_without_masks_has_no_positions(made):
    assert mask_centroids(made(put(f"{TABLE}/image_mask", None)).table, np.arange(3)) is None


def test_an_image_mask_of_zeros_has_no_position(made):
    series = made(put(f"{TABLE}/image_mask", masks() * [[[1]], [[0]], [[1]]]))
    np.testing.assert_array_equal(np.isnan(mask_centroids(series.table, np.arange(3)))[:, 0], [False, True, False])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put(f"{TABLE}/image_mask", -masks()), "image_mask, row 0: expected a mask of finite values from 0"),
        (put(f"{TABLE}/image_mask", masks() * np.nan), "expected a mask of finite values from 0"),
        (put(f"{TABLE}/image_mask", masks(2)), r"for 3 ROIs, got float32 of shape \(2, 4, 5\)"),
        (put(f"{TABLE}/image_mask", masks()[0]), r"expected numbers of shape \(ROIs, width, height\)"),
        (listed([(1, 1, -1)], [1, 1, 1]), "pixel_mask, row 0: expected a mask of finite values"),
        (listed([(1, 1, 1)], [1, 2, 3]), "expected pixel_mask_index to increase up to 1 pixels"),
        (listed([(1, 1, 1)], [1, 0, 1]), "expected pixel_mask_index to increase"),
        (listed([(1, 1, 1)], [1]), "expected 3 ends in pixel_mask_index"),
        (listed([1, 1], [1, 1, 2], dtype=np.float32), "expected pixel_mask as a list of x, y and weight"),
        (both(listed([(1, 1, 1)], [1, 1, 1]), put(f"{TABLE}/pixel_mask_index", None)), "expected pixel_mask_index, f"),
    ],
)
def test_masks_that_are_none_are_one_plain_line(made, edit, message):
    refused(mask_centroids, made(edit).table, np.arange(3), match=message)


def grid(spacing, unit, name="grid_spacing"):
    return put(f"{PLANE}/{name}", np.array(spacing), unit=unit)


@pytest.mark.parametrize(
    ("spacing", "unit"),
    [
        ([2e-6, 2.5e-6], "meters"),
        ([2e-3, 2.5e-3], "millimeters"),
        ([2, 2.5], "micrometers"),
        ([2.0, 2.5, 9.0], "um"),
    ],
)
def test_the_grid_is_in_micrometres_whatever_its_unit(made, spacing, unit):
    got = grid_of(made(both(grid(spacing, unit), grid([1.0, -2.0, 3.0], "millimeters", "origin_coords"))).table)
    np.testing.assert_allclose(got.spacing_um, [2, 2.5])
    np.testing.assert_allclose(got.origin_um, [1000, -2000, 3000])


def test_an_origin_in_the_plane_has_no_depth_and_an_unknown_spacing_is_none(made):
    got = grid_of(made(both(grid([0.0, np.nan], "meters"), grid([1e-6, 2e-6], "meters", "origin_coords"))).table)
    assert got.spacing_um is None
    np.testing.assert_allclose(got.origin_um, [1, 2, np.nan])
    got = grid_of(made(both(put(f"{PLANE}/grid_spacing", None))).table)
    assert got == (None, None) == grid_of(made(put(f"{TABLE}/imaging_plane", None)).table)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (grid([2.0, 2.0], "furlongs"), "grid_spacing in meters, millimeters or micrometers, got 'furlongs'"),
        (grid([0.7, 0.7], "meters"), r"less than a millimetre, got grid_spacing = 700000 µm by its unit"),
        (grid([2e-6], "meters"), "expected 2 or 3 lengths in grid_spacing"),
    ],
)
def test_a_grid_that_makes_no_sense_is_one_plain_line(made, edit, message):
    refused(grid_of, made(edit).table, match=message)


def test_columns_keep_texts_and_all_digits_of_whole_numbers(made):
    root_ids = np.array([864_691_135_000_000_001, 0, 5])
    table = made(
        both(put(f"{TABLE}/pt_root_id", root_ids), put(f"{TABLE}/mask_type", ["soma", "µ", "artifact"]))
    ).table
    assert column(table, "mask_type").tolist() == ["soma", "µ", "artifact"]
    assert integer_column(table, "pt_root_id").tolist() == root_ids.tolist()
    assert column(table, "absent") is None is integer_column(table, "absent")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put(f"{TABLE}/c", np.array([1.0, 2, 3])), "whole numbers in c, got float64, which loses digits .* 2.*53"),
        (put(f"{TABLE}/c", ["a", "b", "c"]), "expected whole numbers in c, got object"),
        (put(f"{TABLE}/c", np.array([1, 2, 2**63], dtype=np.uint64)), "expected whole numbers in c, got uint64"),
        (put(f"{TABLE}/c", np.arange(4)), r"expected 3 rows in c, got shape \(4,\)"),
        (both(put(f"{TABLE}/c", np.arange(3)), put(f"{TABLE}/c_index", np.arange(3))), "one value a row in c"),
    ],
)
def test_a_column_that_holds_no_ids_is_one_plain_line(made, edit, message):
    refused(integer_column, made(edit).table, "c", match=message)


def test_series_are_found_by_their_type_in_natural_order(tmp_path):
    def add(file):
        for number in (10, 2):
            file.create_group(f"/processing/other/s{number}").attrs["neurodata_type"] = "RoiResponseSeries"

    with open_nwb(save(tmp_path / "a.nwb", add)) as file:
        assert find_series(file) == [PATH, "/processing/other/s2", "/processing/other/s10"]
        assert find_series(file, "/processing/ophys") == [PATH] == find_series(file, PATH)
        assert find_series(file, "/nowhere") == []


def test_groups_that_contain_themselves_and_links_out_of_the_file_are_no_trap(tmp_path):
    save(tmp_path / "b.nwb")

    def add(file):
        file["/processing/ophys/circle"] = file["/processing"]
        file["/processing/ophys/soft"] = h5py.SoftLink("/processing")
        file["/processing/ophys/out"] = h5py.ExternalLink("b.nwb", "/processing")

    with open_nwb(save(tmp_path / "a.nwb", add)) as file:
        assert find_series(file) == [PATH]


def link(path, to):
    def edit(file):
        del file[path]
        file[path] = to

    return edit


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
def test_values_of_another_file_are_not_read(tmp_path, made, edit, message):
    save(tmp_path / "b.nwb")
    (tmp_path / "secret.bin").write_bytes(bytes(480))
    refused(made, edit, match=message)


def test_links_within_the_file_are_followed(made):
    shared = both(put("/processing/times", TIMES), link(f"{PATH}/timestamps", h5py.SoftLink("/processing/times")))
    assert read_clock(made(shared)).sampling_rate == pytest.approx(5)


def test_an_array_that_the_file_is_too_small_for_is_refused_before_memory_is_taken(made):
    def promise(file):
        del file[PATH]["data"], file[PATH]["timestamps"]
        file[PATH].create_dataset("data", (10**9, 3), "f4", chunks=(1000, 3), compression="gzip")

    refused(read_traces, made(promise), match=r"expected values for shape \(1000000000, 3\), got 0 bytes")


def test_chunks_of_more_than_a_gibibyte_are_refused(made):
    def promise(file):
        del file[PATH]["data"]
        file[PATH].create_dataset("data", (40, 3), "f4", maxshape=(None, 3), chunks=(10**8, 3))

    refused(made, promise, match="chunks of at most 1 GiB")


def test_large_arrays_that_are_there_are_read(made, monkeypatch):
    monkeypatch.setattr(hdf5_file, "UNCHECKED_BYTES", 0)
    np.testing.assert_array_equal(read_traces(made()), DATA.T)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_one_plain_line(tmp_path, share):
    path = save(tmp_path / "a.nwb")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(open_nwb, path, match=r"a\.nwb: expected an HDF5 file, got one that cannot be read, perhaps truncated")


def test_what_is_not_there_is_one_plain_line(tmp_path):
    refused(open_nwb, tmp_path / "a.nwb", match=r"a\.nwb: expected an HDF5 file")
    with open_nwb(save(tmp_path / "b.nwb")) as file:
        refused(
            open_series, file, "/nowhere", "b.nwb", match="b.nwb, /nowhere: expected a RoiResponseSeries, found no"
        )


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
    with open_nwb("https://example.org/scan.nwb", stored) as file:
        (path,) = find_series(file)
        series = open_series(file, path, "scan.nwb")
        np.testing.assert_array_equal(read_traces(series), DATA.T)
        assert mask_centroids(series.table, series.rows).shape == (3, 2) and read_clock(series).segment_starts == (0,)
        refused(
            integer_column, series.table, "image_mask", match=r"^https://example\.org/scan\.nwb, /processing/ophys/S/"
        )
    assert stored.taken < len(stored.getvalue()) / 10
