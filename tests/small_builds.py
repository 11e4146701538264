"""Small builds of random fields, and what their windows are, for several test files."""

import itertools

from example_fields import random_field
from neurt import NeurtProcessor
from neurt.dataset_scripts.parquet_build import write_build
from neurt.dataset_scripts.recording import Recording
from neurt.dataset_scripts.window_streams import MOST_WINDOWS
from torch.utils.data import DataLoader

# 116 frames: two windows of 40 and one of 36.
PROCESSOR = NeurtProcessor(window_length=40)
CLASSES = {"a": 0, "b": 1}


def recording(number, neurons=12, frames=116, **options):
    traces, centroids = random_field(neurons, frames, seed=number)
    defaults = {
        "sampling_rate": 5.0,
        "recording_id": f"r{number}",
        "subject_id": f"m{number % 2}",
        "session_id": "day",
        "roi_ids": tuple(f"r{number}-{i}" for i in range(neurons)),
        "centroids": centroids,
        "coordinate_unit": "um",
        "labels": {"group": "ab"[number % 2]},
    }
    return Recording(traces, **{**defaults, **options})


def write(folder, recordings, **options):
    write_build(recordings, folder, builder="test", parameters={}, **options)
    return folder


def indices(windows):
    return [int(window["window_index"]) for window in windows]


def numbers(windows):
    """Places in the manifest of the recordings that windows come from."""
    return {index // MOST_WINDOWS for index in indices(windows)}


def as_loaded(windows):
    """In the batches of a loader that collates nothing."""
    return list(itertools.chain.from_iterable(windows))


def loaded(stream, workers):
    return as_loaded(DataLoader(stream, 8, collate_fn=list, num_workers=workers))
