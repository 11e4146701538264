"""A small recording and builds of such, for the tests of what is written and read back."""

import numpy as np
from neurt.dataset_scripts.parquet_build import write_build
from neurt.dataset_scripts.recording import Recording


def recording(name="r1", neurons=3, frames=4, **changes):
    values = {
        "traces": np.arange(neurons * frames, dtype=np.float32).reshape(neurons, frames),
        "sampling_rate": 5.1,
        "recording_id": name,
        "subject_id": "m1",
        "session_id": "s1",
        "roi_ids": tuple(str(i) for i in range(neurons)),
    }
    return Recording(**(values | changes))


def full_recording(name="r1", **changes):
    """One of three neurons in which everything is stated that can be."""
    values = {
        "centroids": np.array([[1.5, 2], [np.nan, np.nan], [5, 6]], dtype=np.float32),
        "coordinate_unit": "um",
        "trace_kind": "dff",
        "accepted": np.array([True, False, True]),
        "unit_ids": np.array([2**53 + 1, -1, 7]),
        "field": 3,
        "modality": "two-photon",
        "brain_area": "V1",
        "indicator": "GCaMP6s",
        "segment_starts": (0, 2),
        "labels": {"genotype": "5xFAD", "age": 8},
        "columns": {
            "mask_type": np.array(["soma", "artifact", "soma"]),
            "root_id": np.ma.MaskedArray([2**53 + 1, 0, 2**62], [False, True, False]),
            "quality": np.array([0.1, np.nan, 3]),
            "snr": np.array([1, 2, 3], dtype=np.float32),
            "seen": np.ma.MaskedArray([True, False, True], [False, False, True]),
            "note": np.ma.MaskedArray(["a", "", "é"], [True, False, False]),
        },
        "source": {"file": "a.mat"},
    }
    return recording(name, **(values | changes))


def write(recordings, folder, **changes):
    return write_build(recordings, folder, **({"builder": "test", "parameters": {}} | changes))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
