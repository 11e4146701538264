"""A corpus to pretrain on: simulated recordings, each of another kind, so that real ones fall among them.

Unlike the mice of a simulated study, no two recordings share their properties: frame rate, indicator, density,
activity, coupling, noise, drift, neuropil and what was done to the traces afterwards are drawn for each. The ranges
are wide on purpose and stand in `RANGES`. Every recording has its own generator, addressed by seed and number, so a
longer corpus begins with the shorter one.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .parquet_build import write_build
from .recording import SIMULATED, Recording
from .simulate_activity import (
    calcium,
    latent_loadings,
    local_average,
    modulated_rates,
    place_neurons,
    smooth_noise,
)

# Lowest and highest value of each property; all are drawn uniformly in the logarithm.
RANGES = {
    "sampling_rate": (1.5, 30.0),  # Hz
    "neurons": (8, 60),
    "field_of_view": (100.0, 900.0),  # µm, side of the square
    "decay": (0.1, 2.5),  # s, of the indicator
    "rise_share": (0.02, 0.4),  # of the decay
    "rate": (0.02, 3.0),  # Hz, median over neurons
    "rate_spread": (0.3, 1.5),  # of the logarithm, over neurons
    "latents": (1, 12),
    "latent_length": (15.0, 500.0),  # µm
    "drive_time": (0.1, 20.0),  # s
    "coupling": (0.2, 2.5),  # of the logarithm of the firing rate, over time
    "burst": (1.0, 6.0),  # spikes in an event, mean
    "amplitude_spread": (0.2, 0.8),  # of the logarithm, over neurons
    "noise": (0.01, 2.0),  # white, per frame, in units of one spike's peak
    "noise_spread": (0.1, 0.6),  # of the logarithm, over neurons
    "drift": (0.01, 3.0),  # in the same unit
    "drift_time": (3.0, 100.0),  # s
    "neuropil": (0.02, 1.0),  # share of the surroundings' signal that leaks in
    "neuropil_length": (10.0, 200.0),  # µm
    "wave": (0.01, 2.0),  # shared fluctuation without spikes, in units of one spike's peak
    "wave_time": (0.05, 5.0),  # s
    "trial": (32, 128),  # frames of each, in recordings of trials
}
COUNTS = ("neurons", "latents", "trial")
# How often a recording is one of trials, between which no window may lie, and how often positions are not known.
TRIALS, WITHOUT_POSITIONS = 0.15, 0.15
# How often traces are left raw, smoothed, denoised or deconvolved, and are event amplitudes.
TREATMENTS = {"dff": 0.5, "smoothed": 0.12, "denoised": 0.14, "rectified": 0.08, "deconvolved": 0.1, "events": 0.06}
TRACE_KINDS = {"smoothed": "dff", "rectified": "denoised"}
MIN_DISTANCE = 8.0  # µm between two somata
WARM_UP_DECAYS = 5.0
# Recordings are dealt out to as many ids, so that a split by subject has something to hold out.
SUBJECTS = 50


@dataclasses.dataclass(frozen=True)
class CorpusConfig:
    """How large a corpus is.

    Args:
        recordings: How many.
        frames: Frames of each.
        seed: Start of all random draws; the same seed gives the same corpus.

    Raises:
        ValueError: If a value is out of its range.
    """

    recordings: int = 3000
    frames: int = 512
    seed: int = 0

    def __post_init__(self):
        for name, least in (("recordings", 1), ("frames", 32), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} of at least {least}, got {getattr(self, name)}")


def write_corpus(
    config: CorpusConfig,
    output: str | os.PathLike,
    progress: Callable[[Iterable[Recording]], Iterable[Recording]] = iter,
) -> None:
    """Simulate a corpus into a new Parquet build.

    Args:
        config: What to simulate.
        output: The folder to make; it appears when it is complete.
        progress: Wrapped around the recordings as they are made, for a progress bar.

    Raises:
        ValueError: If the output exists.
    """
    parameters = {"simulated": True, "corpus": dataclasses.asdict(config), "ranges": RANGES, "treatments": TREATMENTS}
    write_build(progress(simulate_corpus(config)), output, builder="neurt simulate-corpus", parameters=parameters)


def simulate_corpus(config: CorpusConfig) -> Iterator[Recording]:
    """The recordings of a corpus, made one at a time as they are asked for."""
    return (corpus_recording(config, number) for number in range(1, config.recordings + 1))


def corpus_recording(config: CorpusConfig, number: int) -> Recording:
    """One recording of a corpus, counted from 1; `source` tells how it was drawn."""
    rng = np.random.default_rng([config.seed, number])
    drawn = draw_properties(rng)
    positions = place_neurons(drawn["neurons"], (drawn["field_of_view"],) * 2, MIN_DISTANCE, rng)
    spikes = _spikes(drawn, positions, config.frames, rng)
    traces = _TREAT[drawn["treatment"]](drawn, positions, spikes, config.frames, rng)
    has_trials, has_positions = rng.uniform() < TRIALS, rng.uniform() >= WITHOUT_POSITIONS
    return Recording(
        traces=traces.astype(np.float32),
        sampling_rate=drawn["sampling_rate"],
        recording_id=f"corpus{config.seed}-{number:05d}",
        subject_id=f"corpus{config.seed}-{number % SUBJECTS:02d}",
        session_id=f"corpus{config.seed}-{number:05d}",
        roi_ids=tuple(map(str, range(1, len(traces) + 1))),
        centroids=positions.astype(np.float32) if has_positions else None,
        coordinate_unit="um" if has_positions else None,
        segment_starts=tuple(range(0, config.frames, drawn["trial"])) if has_trials else (0,),
        trace_kind=TRACE_KINDS.get(drawn["treatment"], drawn["treatment"]),
        modality=SIMULATED,
        source={"simulated": True, "seed": config.seed, **drawn},
    )


def draw_properties(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a recording's value of everything in `RANGES`, the share of shared drive, and its treatment."""
    drawn = {name: float(np.exp(rng.uniform(*np.log(limits)))) for name, limits in RANGES.items()}
    drawn |= {name: round(drawn[name]) for name in COUNTS}
    drawn["shared_drive"] = float(rng.uniform())
    drawn["treatment"] = str(rng.choice(list(TREATMENTS), p=list(TREATMENTS.values())))
    return drawn


def _spikes(drawn, positions, frames, rng):
    """Spike counts (N, W + T) in bursts; the W first frames let the indicator fill up."""
    shape = (len(positions), frames + _warm_up(drawn))
    rate = drawn["sampling_rate"]
    loadings = latent_loadings(positions, drawn["latents"], drawn["latent_length"], rng)
    latents = smooth_noise((drawn["latents"], shape[1]), drawn["drive_time"], rate, rng)
    private = smooth_noise(shape, drawn["drive_time"], rate, rng)
    share = drawn["shared_drive"]
    drive = np.sqrt(share) * (loadings @ latents) + np.sqrt(1 - share) * private
    base = drawn["rate"] * np.exp(drawn["rate_spread"] * rng.standard_normal(shape[0])) / drawn["burst"]
    events = rng.poisson(np.minimum(modulated_rates(base, drive, drawn["coupling"]) / rate, 50))
    # The number of spikes in k geometric bursts of mean m is k plus a negative binomial number.
    more = rng.negative_binomial(np.maximum(events, 1), 1 / drawn["burst"])
    return np.where(events > 0, events + more, 0)


def _warm_up(drawn) -> int:
    return round(WARM_UP_DECAYS * drawn["decay"] * drawn["sampling_rate"])


def _calcium(drawn, spikes, frames):
    return calcium(spikes, drawn["rise_share"] * drawn["decay"], drawn["decay"], drawn["sampling_rate"])[:, -frames:]


def _per_neuron(spread, count, rng):
    return np.exp(spread * rng.standard_normal((count, 1)))


def _raw(drawn, positions, spikes, frames, rng):
    """Own signal, neuropil, waves, drift and noise, (N, T) in units of one spike's peak."""
    rate, shape = drawn["sampling_rate"], (len(positions), frames)
    signal = _per_neuron(drawn["amplitude_spread"], shape[0], rng) * _calcium(drawn, spikes, frames)
    loadings = latent_loadings(positions, 3, drawn["latent_length"], rng)
    waves = drawn["wave"] * (loadings @ smooth_noise((3, frames), drawn["wave_time"], rate, rng))
    surroundings = local_average(signal, positions, drawn["neuropil_length"]) + waves
    drift = drawn["drift"] * smooth_noise(shape, drawn["drift_time"], rate, rng)
    noise = drawn["noise"] * _per_neuron(drawn["noise_spread"], shape[0], rng) * rng.standard_normal(shape)
    return signal + drawn["neuropil"] * surroundings + drift + noise


def _smoothed(drawn, positions, spikes, frames, rng):
    """Raw traces after a Gaussian filter of 0.5 to 5 frames."""
    return gaussian_filter1d(_raw(drawn, positions, spikes, frames, rng), np.exp(rng.uniform(*np.log((0.5, 5.0)))))


def _denoised(drawn, positions, spikes, frames, rng):
    """What CNMF writes: the calcium of inferred spikes above a silent baseline, partly with ripples of noise."""
    amplitudes = _per_neuron(drawn["amplitude_spread"], len(positions), rng)
    inferred = _inferred(drawn, spikes, rng)
    return amplitudes * _calcium(drawn, inferred, frames)


def _rectified(drawn, positions, spikes, frames, rng):
    """Traces that were cut off at a baseline, below which a fifth to four fifths of the frames lie."""
    traces = _raw(drawn, positions, spikes, frames, rng)
    return np.maximum(traces - np.quantile(traces, rng.uniform(0.2, 0.8), axis=1, keepdims=True), 0)


def _deconvolved(drawn, positions, spikes, frames, rng):
    amplitudes = _per_neuron(drawn["amplitude_spread"], len(positions), rng)
    return amplitudes * _inferred(drawn, spikes, rng)[:, -frames:]


def _events(drawn, positions, spikes, frames, rng):
    """Amplitudes of single, well separated events: only the largest of neighbouring frames stays."""
    inferred = _deconvolved(drawn, positions, spikes, frames, rng)
    padded = np.pad(inferred, ((0, 0), (1, 1)))
    return np.where((inferred > padded[:, :-2]) & (inferred >= padded[:, 2:]), inferred, 0)


def _inferred(drawn, spikes, rng):
    """Spikes as an algorithm infers them: with errors of amplitude, small ones missed, false ones in noise."""
    noise = drawn["noise"] * rng.standard_normal(spikes.shape)
    threshold = np.exp(rng.uniform(*np.log((0.3, 3.0)))) * drawn["noise"]
    found = spikes * np.exp(0.3 * rng.standard_normal(spikes.shape)) + noise
    return np.where(found > threshold, found - threshold, 0)


_TREAT = {
    "dff": _raw,
    "smoothed": _smoothed,
    "denoised": _denoised,
    "rectified": _rectified,
    "deconvolved": _deconvolved,
    "events": _events,
}
