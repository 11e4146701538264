"""The small real recordings that benchmarks are run on, as `Recording`s. They are no part of the project.

`NEURT_REAL_DATA` names the folder that holds them, with its loader `real_recordings.py`; the default lies beside the
checkout. Recordings faster than 30 Hz are resampled to at most that by a whole factor.
"""

import datetime
import functools
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measurement import load_file
from neurt.dataset_scripts.readers.source import digest
from neurt.dataset_scripts.recording import Recording
from scipy.signal import resample_poly

FASTEST = 30.0  # Hz
UNKNOWN_RATE = 30.0  # Hz, what is assumed of suite2p_plane0, whose files do not say
PARK_TRIAL = 49  # frames; park_v1 is a concatenation of trials
SETS = (
    "algamal_two_photon",
    "park_v1",
    "ca1_ca3_events",
    "cascade_ground_truth",
    "chang_rsc",
    "minian_ca1",
    "suite2p_plane0",
)


def real_data_folder() -> Path:
    """Where the real recordings lie, if they do."""
    default = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("NEURT_REAL_DATA", default))


def real_sets() -> dict[str, Callable[[], list[Recording]]]:
    """The sets by name, each read when it is called.

    Raises:
        ValueError: If the folder is not there.
    """
    loader = real_data_folder() / "real_recordings.py"
    if not loader.is_file():
        raise ValueError(f"expected {loader.name} in the folder NEURT_REAL_DATA, got none in {loader.parent}")
    loaders = load_file(loader)
    return {name: functools.partial(_recordings, name, getattr(loaders, name)) for name in SETS}


def _recordings(name: str, items: Callable[[], Iterator[dict]]) -> list[Recording]:
    return [_recording(name, index, item) for index, item in enumerate(items())]


def _recording(name: str, index: int, item: dict) -> Recording:
    rate = item["fps"] or UNKNOWN_RATE
    factor = math.ceil(rate / FASTEST * (1 - 1e-3))  # 30.02 Hz counts as 30
    traces, centroids = item["x"], item["xy"]
    if factor > 1:
        traces = resample_poly(traces, 1, factor, axis=1, padtype="line").astype(np.float32)
    trials = range(0, traces.shape[1], PARK_TRIAL) if name == "park_v1" else [0]
    return Recording(
        traces=traces,
        sampling_rate=rate / factor,
        recording_id=f"{index}_{item['session']}",
        subject_id=item["subject"],
        session_id=item["session"],
        roi_ids=tuple(map(str, range(len(traces)))),
        centroids=None if centroids is None else centroids.astype(np.float32),
        coordinate_unit=item["xy_unit"],
        trace_kind=item["kind"],
        segment_starts=tuple(trials),
        labels=_labels(name, item),
        # Of what the files say: resampled values differ between processors in their last digit.
        source={"sha256": digest(item["x"], item["xy"])},
    )


def _labels(name: str, item: dict) -> dict[str, str]:
    labels = {} if item["label"] is None else {"label": item["label"]}
    if name == "park_v1":  # its sessions begin with the day, as 230803
        labels["date"] = datetime.datetime.strptime(item["session"][:6], "%y%m%d").date().isoformat()
    return labels
