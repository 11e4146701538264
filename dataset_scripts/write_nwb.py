"""Write simulated scans as NWB files shaped like those of the MICrONS functional release (DANDI 000402).

Like there: raw fluorescence (time, roi) with timestamps and no rate, an imaging rate of NaN, positions only as pixel
masks on a grid given in metres, mask ids from 1 in every field, somata and artifacts among the masks. Unlike there: no
movie, no behaviour, no stack position. Needs pynwb (`pip install neurt[nwb]`).
"""

import datetime
import os
from collections.abc import Sequence

import numpy as np

from .recording import Recording

# Unequal, so that a reader that swaps x and y cannot go unnoticed.
UM_PER_PIXEL = (2.0, 2.5)
SOMA_RADIUS = 5.0
FIRST_TIMESTAMP = 20.0
FIELD_DELAY = 0.01
FIELD_DEPTH = 50.0
# Root ids of the MICrONS volume have 18 digits; as float64 they would lose the last ones.
FIRST_ROOT_ID = 864_691_135_000_000_001


def write_scan(
    recordings: Sequence[Recording], path: str | os.PathLike, session_id: str, extent: tuple[float, float]
) -> None:
    """Write the fields of one scan, all with positions in µm, to one NWB file.

    Args:
        recordings: The fields; `accepted` tells somata from artifacts.
        path: The file to make.
        session_id: Session and scan as in "4-scan-7".
        extent: Width and height of each field in µm.

    Raises:
        ValueError: If pynwb is not installed or a recording has no positions in µm.
    """
    nwb = _import_pynwb()
    for recording in recordings:
        if recording.coordinate_unit != "um":
            raise ValueError(
                f"recording {recording.recording_id!r}: expected positions in µm for NWB masks, got "
                f"{recording.coordinate_unit or 'none'}; write it as Parquet instead"
            )
    nwbfile = _describe(nwb, recordings[0], session_id)
    device = nwbfile.create_device(name="Simulation", description="simulated, no microscope")
    ophys = nwbfile.create_processing_module(name="ophys", description="simulated calcium imaging")
    segmentation, fluorescence = nwb.ophys.ImageSegmentation(), nwb.ophys.Fluorescence()
    ophys.add(segmentation)
    ophys.add(fluorescence)
    for number, recording in enumerate(recordings, start=1):
        imaging_plane = _imaging_plane(nwb, nwbfile, device, recording, number)
        planes = _plane_segmentation(nwb, recording, imaging_plane, number, extent)
        segmentation.add_plane_segmentation(planes)
        fluorescence.add_roi_response_series(_response_series(nwb, recording, planes, number))
    with nwb.NWBHDF5IO(path, mode="w") as io:
        io.write(nwbfile)


def soma_masks(recording: Recording, extent: tuple[float, float]) -> np.ndarray:
    """Return one mask per ROI, (N, width, height): a disc with soft borders whose weighted centre is its position.

    Pixel (i, j) is centred at (i, j) × `UM_PER_PIXEL` µm. Artifacts are drawn half as wide as somata.
    """
    x, y = (np.arange(size) * step for size, step in zip(_image_shape(extent), UM_PER_PIXEL, strict=True))
    masks = np.empty((recording.num_neurons, len(x), len(y)), dtype=np.float32)
    for mask, (x_um, y_um), is_soma in zip(masks, recording.centroids, recording.accepted, strict=True):
        radius = SOMA_RADIUS if is_soma else SOMA_RADIUS / 2
        distance = np.hypot(x[:, None] - x_um, y[None, :] - y_um)
        mask[:] = np.clip((radius - distance) / max(UM_PER_PIXEL) + 0.5, 0, 1)
    return masks


def _import_pynwb():
    try:
        import pynwb
        import pynwb.ophys
    except ImportError:
        raise ValueError(
            "expected the package pynwb to write NWB, found none: pip install neurt[nwb], or choose --format parquet"
        ) from None
    return pynwb


def _describe(nwb, recording, session_id):
    return nwb.NWBFile(
        session_description="simulated: no animal was recorded",
        identifier=f"simulated-{recording.subject_id}-{session_id}",
        # NWB requires a date; nothing was recorded on this one.
        session_start_time=datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
        session_id=session_id,
        subject=nwb.file.Subject(subject_id=recording.subject_id, description="simulated"),
    )


def _imaging_plane(nwb, nwbfile, device, recording, number):
    channel = nwb.ophys.OpticalChannel(name="Green", description="simulated", emission_lambda=510.0)
    return nwbfile.create_imaging_plane(
        name=f"ImagingPlane{number}",
        description="simulated",
        optical_channel=channel,
        device=device,
        excitation_lambda=920.0,
        indicator=str(recording.indicator),
        location="none (simulated)",
        imaging_rate=float("nan"),
        grid_spacing=[1e-6 * step for step in UM_PER_PIXEL],
        grid_spacing_unit="meters",
        origin_coords=[0.0, 0.0, 1e-6 * FIELD_DEPTH * number],
        origin_coords_unit="meters",
    )


def _plane_segmentation(nwb, recording, imaging_plane, number, extent):
    from hdmf.common import ElementIdentifiers, VectorData

    masks = soma_masks(recording, extent)
    masks = nwb.H5DataIO(masks, compression="gzip", chunks=(1, *masks.shape[1:]))
    types = ["soma" if is_soma else "artifact" for is_soma in recording.accepted]
    columns = [
        VectorData(name="image_mask", description="weight of each pixel, (roi, width, height)", data=masks),
        VectorData(name="mask_type", description="soma or artifact", data=types),
    ]
    if recording.unit_ids is not None:
        root_ids = np.where(recording.unit_ids > 0, FIRST_ROOT_ID + recording.unit_ids, 0).astype(np.int64)
        columns.append(VectorData(name="pt_root_id", description="simulated neuron, 0 where none", data=root_ids))
    return nwb.ophys.PlaneSegmentation(
        name=f"PlaneSegmentation{number}",
        description="simulated regions of interest",
        imaging_plane=imaging_plane,
        id=ElementIdentifiers(name="id", data=np.arange(1, recording.num_neurons + 1)),
        columns=columns,
    )


def _response_series(nwb, recording, planes, number):
    rois = planes.create_roi_table_region(
        region=list(range(recording.num_neurons)), description="all regions of interest of this field"
    )
    # Fields of a scan are imaged one after the other.
    start = FIRST_TIMESTAMP + FIELD_DELAY * (number - 1)
    return nwb.ophys.RoiResponseSeries(
        name=f"RoiResponseSeries{number}",
        description="simulated raw fluorescence",
        data=nwb.H5DataIO(recording.traces.T.astype(np.float32), compression="gzip"),
        unit="a.u.",
        rois=rois,
        timestamps=start + np.arange(recording.num_frames) / recording.sampling_rate,
    )


def _image_shape(extent):
    """Pixels in x and y that cover the field and its borders."""
    return tuple(int(np.ceil(size / step)) + 1 for size, step in zip(extent, UM_PER_PIXEL, strict=True))
