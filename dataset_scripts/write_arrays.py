"""Write recordings as `.npz` archives with a `recordings.csv` beside them: what `neurt import` reads."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .recording import Recording

_TEXTS = ("coordinate_unit", "trace_kind", "recording_id", "subject_id", "session_id", "modality", "indicator")


def write_arrays(recordings: Iterable[Recording], folder: Path) -> None:
    """Write `{recording_id}.npz` for each recording, and their labels to `recordings.csv`.

    Args:
        recordings: With positions; they must carry the same labels.
        folder: Made if absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for recording in recordings:
        name = f"{recording.recording_id}.npz"
        texts = {key: getattr(recording, key) for key in _TEXTS if getattr(recording, key) is not None}
        np.savez(
            folder / name,
            traces=recording.traces,
            centroids=recording.centroids,
            sampling_rate=recording.sampling_rate,
            roi_ids=np.array(recording.roi_ids),
            accepted=recording.accepted,
            segment_starts=np.array(recording.segment_starts),
            **texts,
        )
        rows.append({"file": name, **recording.labels})
    with open(folder / "recordings.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
