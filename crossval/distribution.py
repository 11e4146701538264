"""Are these recordings like those a model was pretrained on? Judged by how well it fills what is hidden of them.

    errors = reconstruction_errors(model, recordings, processor, seed=0)
    found = percentiles(errors, load_reference(folder))
    print([name for name, out in zip(recording_ids, outside(found), strict=True) if out])

Symbols: R recordings, P recordings of the reference.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import DataLoader, Subset
from transformers.utils import cached_file

from ..dataset_scripts.recording import Recording, any_simulated
from ..dataset_scripts.windows import WindowDataset
from ..evaluation import BASELINES, MODEL, evaluate_reconstruction
from ..masking import MaskedSignalCollator
from ..processing_neurt import NeurtProcessor
from ..sampling import evenly_spaced
from ..writing_aside import file_aside

REFERENCE_FILE = "reconstruction_errors.json"
MOST_WINDOWS = 128
BATCH_SIZE = 128
_INTERPOLATION = next(iter(BASELINES))


def reconstruction_errors(
    model: nn.Module,
    recordings: Sequence[Recording],
    processor: NeurtProcessor,
    *,
    seed: int = 0,
    missing_neighbours: str = "error",
) -> np.ndarray:
    """The model's squared error over that of linear interpolation, in hidden spans of each recording's own traces.

    Sums over at most 128 windows, evenly spaced over neurons and time, of each recording. Own traces alone, because
    that channel is there without positions too; relative to interpolation, because the error itself grows with noise.

    Args:
        model: As in `evaluate_reconstruction`, in evaluation mode or not.
        recordings: R of them.
        processor: Cuts the windows.
        seed: Of the masks.
        missing_neighbours: As for `WindowDataset`.

    Returns:
        float64 (R,); NaN for a recording without windows, or in which straight lines leave no error.
    """
    errors = np.full(len(recordings), np.nan)
    for place, recording in enumerate(recordings):
        try:
            windows = WindowDataset([recording], processor, missing_neighbours=missing_neighbours)
        except ValueError:
            continue
        sample = Subset(windows, evenly_spaced(len(windows), MOST_WINDOWS).tolist())
        batches = DataLoader(sample, BATCH_SIZE, collate_fn=MaskedSignalCollator(seed))
        scores = evaluate_reconstruction(model, batches, simulated=any_simulated([recording]), seed=seed)
        error, of_lines = (scores.row(name)["squared_error"] for name in (MODEL, _INTERPOLATION))
        errors[place] = error / of_lines if of_lines > 0 else np.nan
    return errors


def percentiles(errors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The share of the reference below each error, equal ones by half: (R,) and (P,) to (R,), 0 to 1; NaN stays."""
    below, upto = (np.searchsorted(np.sort(reference), errors, side) for side in ("left", "right"))
    return np.where(np.isnan(errors), np.nan, (below + upto) / (2 * len(reference)))


def outside(found: np.ndarray, level: float = 0.99) -> np.ndarray:
    """Which recordings are unlike those of the reference.

    Both tails count: a recording that is much easier than all of pretraining is as foreign as one that is harder.

    Args:
        found: (R,), of `percentiles`.
        level: The central share of the reference that is inside.

    Returns:
        bool (R,); True where the percentile is NaN, for what could not be measured is not known to be alike.
    """
    tail = (1 - level) / 2
    return ~((found >= tail) & (found <= 1 - tail))


def save_reference(folder: Path, errors: np.ndarray, measured_on: Mapping[str, Any]) -> None:
    """Write the errors of the pretraining's recordings beside the weights, as plain numbers.

    Args:
        folder: Of the model.
        errors: (P,), of `reconstruction_errors`; NaN are left out. Better of recordings that were held out.
        measured_on: What they were measured on, for people.

    Raises:
        ValueError: If no error is known.
    """
    known = np.sort(errors[~np.isnan(errors)])
    if not len(known):
        raise ValueError("expected reconstruction errors of recordings to compare others with, got none")
    contents = {"errors": known.round(4).tolist(), "measured_on": dict(measured_on)}
    with file_aside(folder / REFERENCE_FILE, replace=True) as aside:
        aside.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def load_reference(model: str | Path) -> np.ndarray | None:
    """Read the errors (P,) of a model's pretraining; None where none lie beside its weights.

    Args:
        model: Folder or Hub name.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        path = cached_file(str(model), REFERENCE_FILE)
    except OSError:
        return None
    try:
        errors = np.array(json.loads(Path(path).read_text(encoding="utf-8"))["errors"], dtype=np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of numbers under errors, got a file without; {error}") from error
    if errors.ndim != 1 or not len(errors) or not np.isfinite(errors).all():
        raise ValueError(f"{path}: expected finite numbers under errors, got others; measure them again")
    return errors
