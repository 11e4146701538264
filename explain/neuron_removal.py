"""Whether the neurons that are called important are those that a model needs: they are removed from the recording.

    windows = measuring_half(windows, recordings, processor)
    importance = [neuron_importance(values, windows, recording) for recording in recordings]
    verdict = judge_neurons(model, processor, recordings, importance)

A neuron that is removed is gone from the others' neighbourhoods as well: their channels are computed anew from the
neurons that are left, within the radius of the whole recording. A recording's score is the mean log-odds over the
windows of neurons that are left, for the class that the model gives the animal.

Whatever is measured on some windows also measures their noise, and taking away the largest values lowers the mean of
any numbers. So importance is measured on one half of a recording's windows and the curves on the other.

Of a small recording the last shares leave hardly a neighbourhood. The control loses as much, but what a model makes of
channels that it has never missed is another question.

Shapes: R recordings, N accepted neurons, P of them with positions, F frames, C channels, S shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..dataset_scripts.recording import Recording
from ..modeling_neurt import NeurtForSequenceClassification
from ..processing_neurt import (
    CHANNELS,
    MIN_NEURONS,
    NeurtProcessor,
    neighbour_statistics,
    pairwise_distances,
    window_bounds,
)
from .controls import Groups
from .curves import SHARES, importance_ranks
from .explained import ExplainedWindows, Inputs, log_odds_of, logits_of
from .faithfulness import EXPLANATION, RANDOM_NEURONS, Progress, Verdict, make_verdict
from .recording_map import mean_in_cells

RANDOM_DRAWS = 3
# What is scored at each share: of the neurons that are left at most so many, in at most so many windows of each.
MOST_NEURONS, MOST_WINDOWS = 32, 2


def halves(recording: Recording, processor: NeurtProcessor) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Windows that importance is measured on and those that it is tested on: first frame and end of each.

    Windows that do not overlap, in turn, whatever the processor's stride.
    """
    length = processor.window_length
    bounds = window_bounds(recording.num_frames, recording.segment_starts, length, length)
    return bounds[::2], bounds[1::2]


def measuring_half(
    windows: ExplainedWindows, recordings: Sequence[Recording], processor: NeurtProcessor
) -> ExplainedWindows:
    """Those of some windows that the importance of neurons may be measured on; see `halves`."""
    measured = {
        (recording.recording_id, first) for recording in recordings for first, _ in halves(recording, processor)[0]
    }
    where = zip(np.array(windows.recording_ids)[windows.recording], windows.start_frame, strict=True)
    return windows[np.flatnonzero([place in measured for place in where])]


def judge_neurons(
    model: NeurtForSequenceClassification,
    processor: NeurtProcessor,
    recordings: Sequence[Recording],
    importance: Sequence[np.ndarray],
    *,
    groups: Groups | None,
    missing_neighbours: str = "error",
    seed: int = 0,
    progress: Progress = iter,
) -> Verdict:
    """Remove the most important neurons of each recording first, and compare with neurons in random order.

    The cost is 29 passes over at most 64 windows for each recording: 32 of the neurons that are left, drawn alike for
    all orders and shares, in 2 windows each.

    Args:
        model: A classifier.
        processor: As it was trained with.
        recordings: Recordings, one or several of each animal.
        importance: For each recording the importance of its accepted neurons for the class that the model gives the
            animal, (N,), measured on windows of `measuring_half`; NaN where unknown. Such neurons are neither removed
            nor scored, and stay among the others' neighbours.
        groups: Whether there is anything to explain, see `tells_groups`.
        missing_neighbours: As of `NeurtProcessor`. Channels of a neuron whose neighbours were removed are hidden.
        seed: Of the draws.
        progress: Goes over the recordings, as `tqdm` does.

    Raises:
        ValueError: If a recording has not two windows, or not two neurons of known importance.
    """
    draws = [np.random.default_rng([seed, place]) for place in range(len(recordings))]
    fields = [
        _open_field(recording, processor, missing_neighbours, known, rng)
        for recording, known, rng in zip(recordings, importance, draws, strict=True)
    ]
    subjects = np.array([recording.subject_id for recording in recordings])
    whole = np.stack([logits_of(model, _windows_left(field, field.candidates)).mean(0) for field in fields])
    targets = {subject: int(whole[subjects == subject].mean(0).argmax()) for subject in np.unique(subjects)}
    curves = {EXPLANATION: [], RANDOM_NEURONS: []}
    for field, subject, rng in progress(list(zip(fields, subjects, draws, strict=True))):
        at_random = rng.random((RANDOM_DRAWS, len(field.candidates)))
        own, *others = (
            _removal_curve(model, field, order, targets[subject]) for order in (field.importance, *at_random)
        )
        curves[EXPLANATION].append(own)
        curves[RANDOM_NEURONS].append(np.mean(others, axis=0))
    deletion = {name: np.stack(found) for name, found in curves.items()}
    return make_verdict(deletion, {}, {}, subjects, groups=groups, unit="neurons")


@dataclass(frozen=True, eq=False)
class _Field:
    """A recording as it stands before any neuron is removed.

    Args:
        own: Own traces, scaled over the whole recording, (N, F); NaN for neurons that the processor leaves out.
        placed: Rows that are in neighbourhoods; int (P,).
        distances: Between those, (P, P).
        radius: Of the neighbourhoods, in the unit of the distances; None where too few neurons have positions.
        candidates: Rows that may be removed or scored, in the order in which they are scored.
        importance: Of the candidates.
        frames: Of each window that is scored, int (W, L), and
        real: which of them are no padding.
        sampling_rate: Hz.
    """

    own: np.ndarray
    placed: np.ndarray
    distances: np.ndarray
    radius: float | None
    candidates: np.ndarray
    importance: np.ndarray
    frames: np.ndarray
    real: np.ndarray
    sampling_rate: float


def _open_field(
    recording: Recording,
    processor: NeurtProcessor,
    missing_neighbours: str,
    importance: np.ndarray,
    rng: np.random.Generator,
) -> _Field:
    recording = recording.accepted_neurons()
    if np.shape(importance) != (recording.num_neurons,):
        raise ValueError(
            f"recording {recording.recording_id!r}: expected an importance of {recording.num_neurons} accepted "
            f"neurons, got {np.shape(importance)}"
        )
    channels = processor.neighbour_channels(
        recording.traces, recording.centroids, coordinate_unit=recording.coordinate_unit, missing_neighbours="mask"
    )
    usable = ~np.isnan(channels[:, 0, 0])
    with_windows = usable if missing_neighbours == "mask" else ~np.isnan(channels[:, 0]).any(1)
    candidates = rng.permutation(np.flatnonzero(with_windows & np.isfinite(importance)))
    tested = halves(recording, processor)[1]
    if len(candidates) < 2 or not tested:
        raise ValueError(
            f"recording {recording.recording_id!r}: expected two neurons of known importance and two windows or more, "
            f"got {len(candidates)} neurons and {len(tested)} windows to test them on; leave it out"
        )
    placed = np.flatnonzero(usable & recording.positioned)
    distances = pairwise_distances(recording.centroids[placed]) if len(placed) else np.zeros((0, 0))
    chosen = np.unique(np.linspace(0, len(tested) - 1, MOST_WINDOWS).round().astype(int))
    first, end = np.array(tested)[chosen].T[..., None]
    frames = first + np.arange(processor.window_length)
    return _Field(
        own=channels[..., 0].copy(),  # or all channels of all recordings would stay in memory
        placed=placed,
        distances=distances,
        radius=processor.radius_of(distances, recording.coordinate_unit) if len(placed) >= MIN_NEURONS else None,
        candidates=candidates,
        importance=importance[candidates],
        frames=np.minimum(frames, end - 1),
        real=frames < end,
        sampling_rate=recording.sampling_rate,
    )


def _removal_curve(
    model: NeurtForSequenceClassification, field: _Field, importance: np.ndarray, target: int
) -> np.ndarray:
    """Mean log-odds at each share of the candidates removed, the most important first; (S,)."""
    ranks = importance_ranks(importance[None], np.ones((1, len(importance)), dtype=bool))[0]
    counts = np.minimum(np.rint(SHARES * len(ranks)), len(ranks) - 1)
    parts = [_windows_left(field, field.candidates[ranks >= count]) for count in counts]
    # All shares together, in as few batches as that takes.
    inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    share = np.repeat(np.arange(len(parts)), [len(part["input_values"]) for part in parts])
    return mean_in_cells(log_odds_of(model, inputs, np.full(len(share), target)), share, len(parts))


def _windows_left(field: _Field, left: np.ndarray) -> Inputs:
    """Windows of the first neurons that are left; what they lack of neighbours is hidden."""
    stays = np.ones(len(field.own), dtype=bool)
    stays[np.setdiff1d(field.candidates, left)] = False
    near, own = stays[field.placed], field.own[:, field.frames.ravel()]
    channels = np.full((*own.shape, len(CHANNELS)), np.nan, dtype=np.float32)
    channels[..., 0] = own
    rows = field.placed[near]
    if field.radius is not None and len(rows):
        channels[rows, :, 1:] = neighbour_statistics(own[rows], field.distances[near][:, near], field.radius)
    scored = channels[left[:MOST_NEURONS]]
    values = scored.reshape(-1, field.frames.shape[1], len(CHANNELS))
    real = np.tile(field.real, (len(scored), 1))
    absent = np.isnan(values)
    return {
        "input_values": torch.as_tensor(np.where(absent | ~real[..., None], np.float32(0), values)),
        "attention_mask": torch.as_tensor(real.astype(np.int64)),
        "bool_masked_pos": torch.as_tensor(absent & real[..., None]),
        "sampling_rate": torch.full((len(values),), field.sampling_rate),
    }
