"""Are these recordings like those a model was pretrained on? Judged by how well it fills what is hidden of them.

    measure_reference(model, processor, data).save(folder)                       # once, by the pretraining
    found = compare_with_pretraining(folder, recordings, processor)              # by a study of other recordings
    print(found.outside)

It asks one thing, and what is foreign in other ways passes. The shipped weights find square waves outside, but neither
white noise (0.20 of their reference is below it), nor a random walk (0.98), nor sines of 0.3 and 2 Hz (0.03 and 0.07):
simulated traces of 20 neurons, 1,000 frames at 8 Hz.

Symbols: R recordings, P recordings of the reference.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm
from transformers.utils import cached_file

from .dataset_scripts.recording import Recording
from .dataset_scripts.windows import WindowDataset
from .evaluation import BASELINES, MODEL, evaluate_reconstruction
from .loading import load_quietly
from .masking import MaskedSignalCollator
from .modeling_neurt import NeurtForMaskedSignalModeling
from .processing_neurt import NeurtProcessor
from .sampling import evenly_spaced
from .training.data import TrainingData
from .writing_aside import file_aside

REFERENCE_FILE = "reconstruction_errors.json"
MOST_WINDOWS = 128
BATCH_SIZE = 128
# Of a reference: at most so many recordings, and those of the training too where so few were held out.
MOST_RECORDINGS, FEWEST_HELD_OUT = 300, 20
# The central share of the reference that is inside.
LEVEL = 0.99
_INTERPOLATION = next(iter(BASELINES))


@dataclass(frozen=True, eq=False)
class Reference:
    """How well a model reconstructs the recordings of its pretraining.

    Args:
        errors: (P,), of `reconstruction_errors`; finite.
        measured_on: What they were measured on, for people.
    """

    errors: np.ndarray
    measured_on: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Write the errors beside the weights of a model, as plain numbers."""
        contents = {"errors": np.sort(self.errors).round(4).tolist(), "measured_on": dict(self.measured_on)}
        with file_aside(folder / REFERENCE_FILE, replace=True) as aside:
            aside.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True, eq=False)
class Comparison:
    """How recordings lie among those of a model's pretraining.

    Args:
        recordings: R of them.
        percentiles: (R,), of `percentiles`; NaN where nothing was measured.
        reference: What they were compared with; None if nothing was.
        why_not: Why nothing was compared; empty otherwise.
    """

    recordings: Sequence[Recording] = field(repr=False)
    percentiles: np.ndarray
    reference: Reference | None
    why_not: str = ""

    @property
    def outside(self) -> list[str]:
        """The recordings that are unlike those of the pretraining; none where nothing was compared."""
        flags = outside(self.percentiles) & (self.reference is not None)
        return [recording.recording_id for recording, out in zip(self.recordings, flags, strict=True) if out]

    def to_dict(self) -> dict[str, Any]:
        """What `json` can write: percentile, flag and animal of each recording, or why there are none."""
        if self.reference is None:
            return {"not_measured": self.why_not}
        found = zip(self.recordings, self.percentiles.tolist(), outside(self.percentiles).tolist(), strict=True)
        return {
            "measured_on": dict(self.reference.measured_on),
            "level": LEVEL,
            "expected_outside": expected_outside(len(self.reference.errors)),
            "recordings": {
                recording.recording_id: {"subject_id": recording.subject_id, "percentile": percentile, "outside": out}
                for recording, percentile, out in found
            },
        }


def reconstruction_errors(
    model: nn.Module,
    recordings: Iterable[Recording],
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
        recordings: R of them, one in memory at a time if it is an iterator.
        processor: Cuts the windows.
        seed: Of the masks.
        missing_neighbours: As for `WindowDataset`.

    Returns:
        float64 (R,); NaN for a recording without windows, or in which straight lines leave no error.
    """
    error = functools.partial(_error, model, processor=processor, seed=seed, missing_neighbours=missing_neighbours)
    return np.array([error(recording) for recording in recordings], dtype=np.float64)


def _error(
    model: nn.Module, recording: Recording, *, processor: NeurtProcessor, seed: int, missing_neighbours: str
) -> float:
    try:
        windows = WindowDataset([recording], processor, missing_neighbours=missing_neighbours)
    except ValueError:
        return float("nan")
    sample = Subset(windows, evenly_spaced(len(windows), MOST_WINDOWS).tolist())
    batches = DataLoader(sample, BATCH_SIZE, collate_fn=MaskedSignalCollator(seed))
    scores = evaluate_reconstruction(model, batches, simulated=recording.simulated, seed=seed)
    error, of_lines = (scores.row(name)["squared_error"] for name in (MODEL, _INTERPOLATION))
    return error / of_lines if of_lines > 0 else float("nan")


def percentiles(errors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The share of the reference below each error, equal ones by half: (R,) and (P,) to (R,), 0 to 1; NaN stays."""
    below, upto = (np.searchsorted(np.sort(reference), errors, side) for side in ("left", "right"))
    return np.where(np.isnan(errors), np.nan, (below + upto) / (2 * len(reference)))


def outside(found: np.ndarray) -> np.ndarray:
    """Which recordings are unlike those of the reference.

    Both tails count: a recording that is much easier than all of pretraining is as foreign as one that is harder.

    Args:
        found: (R,), of `percentiles`.

    Returns:
        bool (R,); True where the percentile is NaN, for what could not be measured is not known to be alike.
    """
    tail = (1 - LEVEL) / 2
    return ~((found >= tail) & (found <= 1 - tail))


def expected_outside(size: int) -> float:
    """The share of recordings exactly like those of a reference of P = `size` that lie outside of it.

    Any of the P + 1 places among them is as likely: the smaller the reference, the more lie beyond its ends.
    """
    places = np.arange(size + 1) / size
    return float(outside(places).mean())


def measure_reference(
    model: nn.Module,
    processor: NeurtProcessor,
    data: TrainingData,
    *,
    seed: int = 0,
    missing_neighbours: str = "error",
) -> Reference | None:
    """Errors of recordings that the pretraining held out, at most 300; with fewer than 20, of its own ones as well.

    Args:
        model: What was pretrained.
        processor: Cut its windows.
        data: Who trained and who was tested.
        seed: Of the masks.
        missing_neighbours: As in the pretraining.

    Returns:
        None if no error is known.
    """

    def errors_of(part: str, most: int) -> np.ndarray:
        members = data.split.recordings(data.recordings, part)
        chosen = [members[place] for place in evenly_spaced(len(members), most)]
        hidden = not PartialState().is_main_process
        each = tqdm(data.read(chosen), f"{part} recordings", len(chosen), unit="recording", disable=hidden)
        errors = reconstruction_errors(model, each, processor, seed=seed, missing_neighbours=missing_neighbours)
        return errors[~np.isnan(errors)]

    held_out, trained_on = errors_of("test", MOST_RECORDINGS), np.array([])
    if len(held_out) < FEWEST_HELD_OUT:
        trained_on = errors_of("train", MOST_RECORDINGS - len(held_out))
    errors = np.concatenate([held_out, trained_on])
    measured_on = {"held_out_recordings": len(held_out), "training_recordings": len(trained_on)}
    return Reference(errors, measured_on | {"simulated": data.simulated, "seed": seed}) if len(errors) else None


def load_reference(model: str | Path) -> Reference | None:
    """Read the reference of a model; None where none lies beside its weights.

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
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
        errors, measured_on = np.array(contents["errors"], dtype=np.float64), dict(contents["measured_on"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected a list of numbers under errors, and measured_on, got a file without; {error}"
        ) from error
    if errors.ndim != 1 or not len(errors) or not np.isfinite(errors).all():
        raise ValueError(f"{path}: expected finite numbers under errors, got others; measure them again")
    return Reference(errors, measured_on)


def compare_with_pretraining(
    model: str | Path,
    recordings: Sequence[Recording],
    processor: NeurtProcessor,
    *,
    seed: int = 0,
    missing_neighbours: str = "error",
) -> Comparison:
    """Place recordings among those of a model's pretraining, where its folder has their errors and a decoder.

    Args:
        model: Folder or Hub name.
        recordings: R of them.
        processor: Cuts the windows.
        seed: Of the masks.
        missing_neighbours: As for `WindowDataset`.

    Raises:
        ValueError: If the model's reference cannot be read.
    """
    reference, unknown = load_reference(model), np.full(len(recordings), np.nan)
    if reference is None:
        return Comparison(recordings, unknown, None, f"no {REFERENCE_FILE} lies beside the model's weights")
    try:
        decoder = load_quietly(NeurtForMaskedSignalModeling, model)
    except ValueError:
        return Comparison(recordings, unknown, None, "the model has no decoder to reconstruct with")
    each = tqdm(recordings, desc="compared with pretraining", unit="recording")
    errors = reconstruction_errors(decoder, each, processor, seed=seed, missing_neighbours=missing_neighbours)
    return Comparison(recordings, percentiles(errors, reference.errors), reference)
