"""Masks, grids and columns of NWB tables, worked out by hand."""

import numpy as np
import pytest
from neurt.dataset_scripts.nwb_tables import column, grid_of, integer_column, mask_centroids
from nwb_by_hand import PLANE, TABLE, both, made, masks, put, refused

PIXEL = np.dtype([("x", "u4"), ("y", "u4"), ("weight", "f4")])


def test_centres_are_weighted_by_the_mask_and_count_pixels_from_0():
    series = made()
    centroids = mask_centroids(series.table, series.rows)
    assert centroids.dtype == np.float64
    np.testing.assert_array_equal(centroids, [[2, 2.5], [0, 2.5], [1, 2.5]])


def test_a_mask_with_depth_is_summed_over_it():
    series = made(put(f"{TABLE}/image_mask", np.stack([masks(), 2 * masks()], axis=3)))
    np.testing.assert_array_equal(mask_centroids(series.table, series.rows), [[2, 2.5], [0, 2.5], [1, 2.5]])


@pytest.mark.parametrize("most", [1, 100, 2**26])
def test_masks_are_read_in_pieces(monkeypatch, most):
    monkeypatch.setattr("neurt.dataset_scripts.hdf5_file._MOST_BLOCK_BYTES", most)
    series = made()
    np.testing.assert_array_equal(mask_centroids(series.table, np.array([2, 1])), [[2, 2.5], [1, 2.5]])


def listed(pixels, ends, name="pixel_mask", dtype=PIXEL):
    return both(
        put(f"{TABLE}/image_mask", None),
        put(f"{TABLE}/{name}", np.array(pixels, dtype)),
        put(f"{TABLE}/{name}_index", np.array(ends, dtype=np.uint8)),
    )


def test_lists_of_pixels_give_the_same_centres_and_a_mask_of_zeros_none():
    pixels = [(1, 5, 1), (3, 5, 3), (7, 9, 0), (4, 6, 0.5)]
    series = made(listed(pixels, [2, 3, 4]))
    expected = [[2.5, 5], [np.nan, np.nan], [4, 6]]
    np.testing.assert_array_equal(mask_centroids(series.table, np.arange(3)), expected)
    voxels = np.dtype([("x", "u4"), ("y", "u4"), ("z", "u4"), ("weight", "f4")])
    series = made(listed([(x, y, 8, w) for x, y, w in pixels], [2, 3, 4], "voxel_mask", voxels))
    np.testing.assert_array_equal(mask_centroids(series.table, np.arange(3)), expected)


def test_a_table_without_masks_has_no_positions():
    assert mask_centroids(made(put(f"{TABLE}/image_mask", None)).table, np.arange(3)) is None


def test_an_image_mask_of_zeros_has_no_position():
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
def test_masks_that_are_none_are_one_plain_line(edit, message):
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
def test_the_grid_is_in_micrometres_whatever_its_unit(spacing, unit):
    got = grid_of(made(both(grid(spacing, unit), grid([1.0, -2.0, 3.0], "millimeters", "origin_coords"))).table)
    np.testing.assert_allclose(got.spacing_um, [2, 2.5])
    np.testing.assert_allclose(got.origin_um, [1000, -2000, 3000])


def test_an_origin_in_the_plane_has_no_depth_and_an_unknown_spacing_is_none():
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
def test_a_grid_that_makes_no_sense_is_one_plain_line(edit, message):
    refused(grid_of, made(edit).table, match=message)


def test_columns_keep_texts_and_all_digits_of_whole_numbers():
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
def test_a_column_that_holds_no_ids_is_one_plain_line(edit, message):
    refused(integer_column, made(edit).table, "c", match=message)
