"""What the tables of ROIs in NWB files say: masks, the grid that their pixels lie on, and plain columns."""

import math
from typing import NamedTuple

import h5py
import numpy as np

from .hdf5_file import Refused, find_array, member, place_of, read_array, readable, row_blocks, text_attribute

_MOST_MASK_BYTES = 2**28
_UM_PER_UNIT = {
    **dict.fromkeys(("meters", "meter", "m"), 1e6),
    **dict.fromkeys(("millimeters", "millimeter", "mm"), 1e3),
    **dict.fromkeys(("micrometers", "micrometer", "microns", "micron", "um", "µm", "μm"), 1.0),
}
# A pixel of a millimetre is a number in µm that stands there as metres, the default unit.
_MOST_UM_PER_PIXEL = 1e3


class Grid(NamedTuple):
    """Where the pixels of a plane lie: µm from one to the next in x and y, and µm of the first in x, y and z."""

    spacing_um: np.ndarray | None
    origin_um: np.ndarray | None


def column(table: h5py.Group, name: str) -> np.ndarray | None:
    """Return a column of a table, one entry per row: texts as str, numbers as they are stored; None if it has none.

    Raises:
        ValueError: If it has several values a row, Python has no word for them, or there are not as many as rows.
    """
    where = place_of(table)
    with readable(where):
        found = find_array(table, name, where)
        if found is None:
            return None
        if member(table, f"{name}_index") is not None:
            raise Refused(f"{where}: expected one value a row in {name}, got lists")
        values, num_rows = read_array(table, name, where), len(read_array(table, "id", where))
    if values.ndim == 0 or len(values) != num_rows:
        raise Refused(f"{where}: expected {num_rows} rows in {name}, got shape {values.shape}")
    return values


def integer_column(table: h5py.Group, name: str) -> np.ndarray | None:
    """Return a column of whole numbers, for example ids, as int64; None if the table has none.

    Raises:
        ValueError: If it holds anything else, floats included: ids of 17 digits lose the last ones there.
    """
    values = column(table, name)
    if values is None:
        return None
    if values.dtype.kind == "f":
        raise Refused(
            f"{place_of(table)}: expected whole numbers in {name}, got {values.dtype}, which loses digits of ids "
            "above 2**53; export it again as int64"
        )
    if values.dtype.kind not in "iu" or values.ndim != 1 or (values > np.iinfo(np.int64).max).any():
        raise Refused(f"{place_of(table)}: expected whole numbers in {name}, got {values.dtype}")
    return values.astype(np.int64)


def imaging_plane(table: h5py.Group) -> h5py.Group | None:
    """Return the `ImagingPlane` that a table belongs to."""
    with readable(place_of(table)):
        plane = member(table, "imaging_plane")
    return plane if isinstance(plane, h5py.Group) else None


def grid_of(table: h5py.Group) -> Grid:
    """Return the pixel grid of a table's imaging plane in µm; None for what the file does not say.

    Raises:
        ValueError: If a unit is not known, or a pixel would be larger than a millimetre.
    """
    plane = imaging_plane(table)
    if plane is None:
        return Grid(None, None)
    where = place_of(plane)
    with readable(where):
        spacing = _lengths(plane, "grid_spacing", where)
        origin = _lengths(plane, "origin_coords", where)
    if spacing is not None:
        spacing = spacing[:2]
        if spacing.max() > _MOST_UM_PER_PIXEL:
            raise Refused(
                f"{where}: expected pixels of less than a millimetre, got grid_spacing = {spacing.max():g} µm by its "
                "unit; correct the unit or state the µm per pixel"
            )
        # Some writers put 0 or NaN for what they do not know.
        spacing = spacing if (spacing > 0).all() else None
    if origin is not None:
        origin = np.append(origin, [np.nan] * (3 - len(origin)))
    return Grid(spacing, origin)


def _lengths(plane: h5py.Group, name: str, where: str) -> np.ndarray | None:
    """Return 2 or 3 lengths in µm. The unit stands beside them and is metres where it does not."""
    found = find_array(plane, name, where)
    if found is None:
        return None
    values, unit = read_array(plane, name, where), text_attribute(found, "unit") or "meters"
    if values.shape not in ((2,), (3,)) or values.dtype.kind not in "iuf":
        raise Refused(f"{where}: expected 2 or 3 lengths in {name}, got {values.dtype} of shape {values.shape}")
    if unit.strip().lower() not in _UM_PER_UNIT:
        raise Refused(f"{where}: expected {name} in meters, millimeters or micrometers, got {unit!r}")
    return values.astype(np.float64) * _UM_PER_UNIT[unit.strip().lower()]


def mask_centroids(table: h5py.Group, rows: np.ndarray) -> np.ndarray | None:
    """Return the centre of each ROI's mask, weighted by its values.

    Args:
        table: A `PlaneSegmentation`.
        rows: Its rows, int64 of shape (N,).

    Returns:
        float64 of shape (N, 2): (x, y) as pixel indices from 0; NaN where a mask is all zeros. None if the table has
        no masks.

    Raises:
        ValueError: If values are negative or not finite, or masks do not fit the table.
    """
    where = place_of(table)
    with readable(where):
        num_rows = len(read_array(table, "id", where))
        if (masks := find_array(table, "image_mask", where)) is not None:
            return _image_centroids(masks, rows, num_rows, f"{where}/image_mask")
        for name in ("pixel_mask", "voxel_mask"):
            if find_array(table, name, where) is not None:
                return _pixel_centroids(table, name, rows, num_rows, where)
    return None


def _image_centroids(masks: h5py.Dataset, rows: np.ndarray, num_rows: int, where: str) -> np.ndarray:
    if masks.ndim not in (3, 4) or len(masks) != num_rows or masks.dtype.kind not in "biuf":
        raise Refused(
            f"{where}: expected numbers of shape (ROIs, width, height) for {num_rows} ROIs, got {masks.dtype} of "
            f"shape {masks.shape}"
        )
    if math.prod(masks.shape[1:]) * masks.dtype.itemsize > _MOST_MASK_BYTES:
        raise Refused(f"{where}: expected masks of at most 256 MiB each, got shape {masks.shape}")
    centroids = np.full((len(rows), 2), np.nan)
    for some_rows in row_blocks(masks):
        hit = np.flatnonzero((rows >= some_rows.start) & (rows < some_rows.stop))
        block = masks[some_rows] if len(hit) else ()
        for i in hit:
            mask = block[rows[i] - some_rows.start].astype(np.float64)
            mask = mask.reshape(*mask.shape[:2], -1).sum(axis=2)
            centroids[i] = _centre(*np.indices(mask.shape, sparse=True), mask, f"{where}, row {rows[i]}")
    return centroids


def _pixel_centroids(table: h5py.Group, name: str, rows: np.ndarray, num_rows: int, where: str) -> np.ndarray:
    pixels, ends = read_array(table, name, where), read_array(table, f"{name}_index", where)
    if pixels.ndim != 1 or not {"x", "y", "weight"} <= set(pixels.dtype.names or ()):
        raise Refused(f"{where}: expected {name} as a list of x, y and weight, got {pixels.dtype}")
    if ends.shape != (num_rows,) or ends.dtype.kind not in "iu":
        raise Refused(f"{where}: expected {num_rows} ends in {name}_index, got {ends.dtype} of shape {ends.shape}")
    bounds = np.append(0, ends.astype(np.int64))
    if (np.diff(bounds) < 0).any() or bounds[-1] > len(pixels):
        raise Refused(f"{where}: expected {name}_index to increase up to {len(pixels)} pixels, got something else")
    centroids = np.empty((len(rows), 2))
    for centroid, row in zip(centroids, rows, strict=True):
        x, y, weight = (
            pixels[bounds[row] : bounds[row + 1]][axis].astype(np.float64) for axis in ("x", "y", "weight")
        )
        centroid[:] = _centre(x, y, weight, f"{where}/{name}, row {row}")
    return centroids


def _centre(x: np.ndarray, y: np.ndarray, weight: np.ndarray, where: str) -> tuple[float, float]:
    total = weight.sum()
    if not np.isfinite(total) or (weight < 0).any():
        raise Refused(f"{where}: expected a mask of finite values from 0, got others")
    return ((x * weight).sum() / total, (y * weight).sum() / total) if total > 0 else (np.nan, np.nan)
