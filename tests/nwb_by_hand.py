"""Small NWB files made with h5py alone, by the schema, and edits that leave something wrong in them."""

import io

import h5py
import numpy as np
import pytest
from neurt.dataset_scripts.hdf5_file import open_hdf5
from neurt.dataset_scripts.nwb_file import RoiSeries, open_series

FRAMES = 40
DATA = np.arange(FRAMES * 3, dtype=np.float32).reshape(FRAMES, 3)
TIMES = 20 + 0.2 * np.arange(FRAMES)
PATH = "/processing/ophys/F/dF"
TABLE = "/processing/ophys/S/cells"
PLANE = "/general/optophysiology/plane"


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


def made(edit=None) -> RoiSeries:
    """Open the series of a file in memory that an edit changed."""
    stored = io.BytesIO()
    with h5py.File(stored, "w") as file:
        write(file, edit)
    return open_series(open_hdf5("a.nwb", stored), PATH, "a.nwb")


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


def link(path, to):
    def edit(file):
        del file[path]
        file[path] = to

    return edit


def refused(read, *arguments, match):
    with pytest.raises(ValueError, match=match) as error:
        read(*arguments)
    assert "\n" not in str(error.value)
