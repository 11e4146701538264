"""Two scans shaped like those of DANDI 000402, written with pynwb, with values that can be computed by hand.

Scan 4-7 has two fields: in field 1 mask 2 is an artifact and mask 4 all zeros, and the first step of its clock is
longer than the others; in field 2 mask 3 is NaN in one frame. Scan 5-6 has one field.
"""

import datetime

import numpy as np
import pynwb
from hdmf.common import ElementIdentifiers, VectorData
from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel, PlaneSegmentation, RoiResponseSeries

NAME = "sub-17797_ses-{}-scan-{}_behavior+image+ophys.nwb"
WIDTH, HEIGHT = 12, 8
SPACING = (2.0, 2.5)  # µm
FIRST_ROOT_ID = 864_691_135_000_000_001
FRAMES = 200

# Pixels (x, y) and their weights in each mask.
MASKS = {
    1: [
        {(3, 2): 1.0},
        {(6, 6): 1.0},
        {(4, 4): 3.0, (8, 4): 1.0},
        {},
        {(0, 0): 0.5, (0, 2): 0.5},
        {(11, 7): 1.0},
    ],
    2: [{(1, 1): 1.0}, {(2, 1): 1.0}, {(3, 1): 1.0}],
}
TYPES = {1: ["soma", "artifact", "soma", "soma", "soma", "soma"], 2: ["soma"] * 3}
# 0 where no neuron of the volume is matched.
ROOT_IDS = {1: [FIRST_ROOT_ID, 0, FIRST_ROOT_ID + 2, 0, FIRST_ROOT_ID + 4, 0], 2: None}
# What must come out of field 1 of scan 4-7: masks 1, 3, 5 and 6 in µm.
KEPT = [1, 3, 5, 6]
CENTROIDS = [[6.0, 5.0], [10.0, 10.0], [0.0, 2.5], [22.0, 17.5]]


def timestamps(field):
    """Seconds: 6.25 Hz after a first step of half a second in field 1, 8 Hz in field 2."""
    if field == 1:
        return np.concatenate([[20.0], 20.5 + 0.16 * np.arange(FRAMES - 1)])
    return 20.01 + 0.125 * np.arange(FRAMES)


def traces(session, field):
    """Raw fluorescence (time, roi)."""
    values = np.random.default_rng([session, field]).normal(500, 50, (FRAMES, len(MASKS[field]))).astype(np.float32)
    if field == 2:
        values[7, 2] = np.nan
    return values


def write_scan(path, session=4, scan=7, fields=(1, 2), movie_bytes=0):
    """Write one scan; a movie of random bytes stands for the 60 GB of the real ones."""
    nwbfile = pynwb.NWBFile(
        session_description="two-photon imaging of mouse visual cortex",
        identifier=f"{session}-{scan}",
        session_start_time=datetime.datetime(2018, 3, 1, tzinfo=datetime.UTC),
        session_id=f"{session}-scan-{scan}",
        subject=pynwb.file.Subject(subject_id="17797", species="Mus musculus"),
    )
    device = nwbfile.create_device(name="Microscope")
    ophys = nwbfile.create_processing_module(name="ophys", description="traces")
    segmentation, fluorescence = ImageSegmentation(), Fluorescence()
    ophys.add(segmentation)
    ophys.add(fluorescence)
    for field in fields:
        plane = _imaging_plane(nwbfile, device, field)
        table = _table(plane, field)
        segmentation.add_plane_segmentation(table)
        fluorescence.add_roi_response_series(_series(table, session, field))
    if movie_bytes:
        frames = np.frombuffer(np.random.default_rng(0).bytes(movie_bytes), np.uint8).reshape(-1, 64, 64)
        movie = pynwb.ophys.TwoPhotonSeries(
            name="TwoPhotonSeries1", imaging_plane=plane, data=frames, rate=6.25, unit="n.a.", starting_time=20.0
        )
        nwbfile.add_acquisition(movie)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pynwb.NWBHDF5IO(path, mode="w") as io:
        io.write(nwbfile, cache_spec=False)
    return path


def _imaging_plane(nwbfile, device, field):
    return nwbfile.create_imaging_plane(
        name=f"ImagingPlane{field}",
        description="field",
        optical_channel=OpticalChannel(name="Green", description="green", emission_lambda=510.0),
        device=device,
        excitation_lambda=920.0,
        indicator="GCaMP6s",
        location="visual cortex",
        imaging_rate=float("nan"),
        grid_spacing=[1e-6 * step for step in SPACING],
        grid_spacing_unit="meters",
        origin_coords=[1e-3, 2e-3, 3e-4 * field],
        origin_coords_unit="meters",
    )


def _table(plane, field):
    masks = np.zeros((len(MASKS[field]), WIDTH, HEIGHT), np.float32)
    for mask, pixels in zip(masks, MASKS[field], strict=True):
        for pixel, weight in pixels.items():
            mask[pixel] = weight
    columns = [
        VectorData(name="image_mask", description="(roi, width, height)", data=masks),
        VectorData(name="mask_type", description="soma or artifact", data=TYPES[field]),
    ]
    if ROOT_IDS[field]:
        root_ids = np.array(ROOT_IDS[field], dtype=np.int64)
        columns.append(VectorData(name="pt_root_id", description="neuron", data=root_ids))
    return PlaneSegmentation(
        name=f"PlaneSegmentation{field}",
        description="masks",
        imaging_plane=plane,
        id=ElementIdentifiers(name="id", data=np.arange(1, len(masks) + 1)),
        columns=columns,
    )


def _series(table, session, field):
    return RoiResponseSeries(
        name=f"RoiResponseSeries{field}",
        description="raw fluorescence",
        data=pynwb.H5DataIO(traces(session, field), compression="gzip", chunks=(50, 3)),
        unit="n.a.",
        rois=table.create_roi_table_region(region=list(range(len(MASKS[field]))), description="all"),
        timestamps=timestamps(field),
    )
