"""Simulated studies: mice in two groups, with a planted difference that is written down as ground truth.

The mouse is the statistical unit: rates, amplitudes, noise, coupling and decay time vary from mouse to mouse, in both
groups alike. Every draw has its own generator, addressed by what is drawn, mouse, session and field. So adding mice or
sessions changes none of the others, and planting an effect changes the spikes of planted neurons only.

Three effects can be planted (`EFFECTS`). Synchrony is invisible to any statistic of single traces: each trace of the
planted group follows the law it follows in the control group, and only what neighbours have in common differs.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..writing_aside import folder_aside
from .parquet_build import write_build
from .recording import SIMULATED, Recording
from .simulate_activity import (
    INDICATORS,
    calcium,
    hyperactivity,
    latent_loadings,
    local_average,
    local_mixture,
    modulated_rates,
    place_neurons,
    smooth_noise,
    synchrony,
    variability,
)
from .simulation_config import EFFECTS, SimulationConfig
from .write_arrays import write_arrays
from .write_nwb import write_scan

GROUPS = ("control", "planted")
# The indicator starts empty; several decay times are simulated before the first frame and cut off.
WARM_UP = 5.0
# Raw fluorescence at rest in arbitrary units, and its spread over neurons. No other unit depends on them.
BASELINE, BASELINE_SPREAD = 1000.0, 0.4


@dataclasses.dataclass(frozen=True)
class Place:
    """Which recording: mouse, session and field, each counted from 1."""

    mouse: int
    session: int = 1
    field: int = 1

    @property
    def group(self) -> str:
        """Mice alternate between the groups, so that the first ones stay the same when more are added."""
        return GROUPS[(self.mouse - 1) % 2]

    @property
    def subject_id(self) -> str:
        return f"sim{self.mouse:03d}"

    @property
    def recording_id(self) -> str:
        return f"{self.subject_id}_ses-{self.session}_field-{self.field}"

    @property
    def first_unit_id(self) -> int:
        """Neurons of a mouse keep their ids over sessions; no two mice or fields share one."""
        return 100_000 * (1_000 * self.mouse + self.field)


@dataclasses.dataclass(frozen=True)
class Population:
    """What stays with a mouse's field over sessions; arrays have one entry for each of N regions of interest."""

    positions: np.ndarray
    is_neuron: np.ndarray
    planted: np.ndarray
    rates: np.ndarray
    amplitudes: np.ndarray
    noise: np.ndarray
    baselines: np.ndarray
    loadings: np.ndarray
    coupling: float
    decay_factor: float


def simulate_study(config: SimulationConfig) -> tuple[Iterator[Recording], dict[str, Any]]:
    """Return the recordings of a study, made one at a time as they are asked for, and everything that was planted.

    Returns:
        Recordings with raw fluorescence in arbitrary units, positions in µm and the label "group", which is "control"
        or "planted"; and the ground truth, a dict that can be written as JSON: the configuration, the effect, and for
        each recording the planted roi_ids with the factor on what `EFFECTS` names ("rate_factor", "coupling_factor" or
        "private_drive_variance_factor").
    """
    places = _places(config)
    truth = {
        "simulated": "Simulated data: no animal was recorded.",
        "config": dataclasses.asdict(config),
        "effect": config.effect,
        "recordings": [_ground_truth(config, place) for place in places],
    }
    return (simulate_recording(config, place) for place in places), truth


def write_study(
    config: SimulationConfig,
    output: str | os.PathLike,
    file_format: str = "parquet",
    progress: Callable[[Iterable[Recording]], Iterable[Recording]] = iter,
) -> dict[str, Any]:
    """Simulate a study into a new folder, with ground_truth.json beside the recordings.

    Args:
        config: What to simulate.
        output: The folder to make; it appears when it is complete.
        file_format: "parquet" for a Parquet build, "nwb" for one MICrONS-shaped NWB file per session, "npz" for one
            archive per recording and a recordings.csv, to be imported.
        progress: Wrapped around the recordings as they are made, for a progress bar.

    Returns:
        The ground truth.

    Raises:
        ValueError: If the output exists, the format is unknown, or pynwb is needed and not installed.
    """
    if file_format not in _WRITERS:
        raise ValueError(f"expected a format among {', '.join(_WRITERS)}, got {file_format!r}")
    recordings, truth = simulate_study(config)
    with folder_aside(output) as aside:
        _WRITERS[file_format](config, progress(recordings), truth, aside)
        (aside / "ground_truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return truth


def summarise(truth: Mapping[str, Any]) -> str:
    """Say in one line what was simulated and planted, from the ground truth."""
    config, recordings = truth["config"], truth["recordings"]
    planted = [entry for entry in recordings if entry["planted_roi_ids"]]
    line = (
        f"simulated {len(recordings)} recordings of {len({entry['subject_id'] for entry in recordings})} mice: "
        f"{config['neurons']} neurons for {config['duration']:g} s at {config['sampling_rate']:g} Hz; "
    )
    if not planted:
        return line + "nothing planted"
    quantity = EFFECTS[truth["effect"]]
    line += f"planted {truth['effect']}, {quantity.replace('_', ' ')} × {planted[0][f'{quantity}_factor']:g}"
    return line + f" in {len(planted[0]['planted_roi_ids'])} neurons of each of {len(planted)} recordings"


def simulate_recording(config: SimulationConfig, place: Place, group: str | None = None) -> Recording:
    """Simulate one field of one session; `group` replaces the mouse's own ("control" or "planted")."""
    group = group or place.group
    population = draw_population(config, place)
    spikes = simulate_spikes(config, place, population, group)
    return Recording(
        traces=_fluorescence(config, place, population, spikes).astype(np.float32),
        sampling_rate=float(config.sampling_rate),
        recording_id=place.recording_id,
        subject_id=place.subject_id,
        session_id=f"{place.subject_id}_ses-{place.session}",
        roi_ids=_roi_ids(config),
        unit_ids=np.where(population.is_neuron, place.first_unit_id + np.arange(_num_rois(config)), -1),
        centroids=population.positions.astype(np.float32),
        coordinate_unit="um",
        trace_kind="fluorescence",
        accepted=population.is_neuron,
        field=place.field,
        modality=SIMULATED,
        indicator=config.indicator,
        labels={"group": group},
        source={"simulated": True, "seed": config.seed},
    )


def simulate_spikes(config: SimulationConfig, place: Place, population: Population, group: str) -> np.ndarray:
    """Return spike counts (N, W + T): Poisson, their rates driven by the session's latents and the planted effect.

    The first W frames, which last `WARM_UP` s, precede the recording.
    """
    planted = _planted(config, population, group)
    drive = _drive(config, place, population, planted)
    rates = modulated_rates(population.rates, drive, population.coupling)
    if config.effect == "hyperactivity":
        rates = hyperactivity(rates, planted, config.effect_factor)
    if config.effect == "variability":
        rates = variability(rates, planted, drive, population.coupling * config.effect_factor)
    # A generator for each neuron: more spikes of one shift the draws of no other.
    generators = _generator(config, "spikes", place.mouse, place.session, place.field).spawn(len(rates))
    return np.stack([rng.poisson(row / config.sampling_rate) for rng, row in zip(generators, rates, strict=True)])


def _planted(config, population, group):
    """Which regions (N,) the effect changes in a mouse of this group: none where there is no effect."""
    return population.planted & (group == "planted" and config.effect_size != 0)


def _drive(config, place, population, planted):
    """What modulates the neurons, (N, W + T) of unit variance: the session's latents and each neuron's own."""
    frames = round(WARM_UP * config.sampling_rate) + config.frames

    def course(stream, count, *address):
        generator = _generator(config, stream, *address)
        return smooth_noise((count, frames), config.drive_time, config.sampling_rate, generator)

    address = dataclasses.astuple(place)
    shared = population.loadings @ course("latents", config.latents, place.mouse, place.session)
    private = course("private drive", len(planted), *address)
    if config.effect == "synchrony":
        sources = course("local drive", len(planted), *address)
        local = local_mixture(sources, population.positions, config.latent_length)
        private = synchrony(private, planted, local, config.effect_factor)
    return np.sqrt(config.shared_drive) * shared + np.sqrt(1 - config.shared_drive) * private


def draw_population(config: SimulationConfig, place: Place) -> Population:
    """Draw the regions of interest of a mouse's field, the same in all its sessions."""
    mouse = _generator(config, "mouse", place.mouse)
    rate, amplitude, noise, coupling, decay = np.exp(config.mouse_spread * mouse.standard_normal(5))
    rng = _generator(config, "neurons", place.mouse, field=place.field)
    total = _num_rois(config)
    positions = place_neurons(total, config.field_of_view, config.min_distance, rng)
    is_neuron = rng.permutation(total) < config.neurons
    spread = np.exp(
        np.array([config.rate_spread, config.amplitude_spread, config.noise_spread, BASELINE_SPREAD])[:, None]
        * rng.standard_normal((4, total))
    )
    order = rng.permutation(np.flatnonzero(is_neuron))
    return Population(
        positions=positions,
        is_neuron=is_neuron,
        planted=np.isin(np.arange(total), order[: round(config.effect_share * config.neurons)]),
        rates=config.rate * rate * spread[0] * is_neuron,
        amplitudes=config.amplitude * amplitude * spread[1],
        noise=config.noise * noise * spread[2],
        baselines=BASELINE * spread[3],
        loadings=latent_loadings(positions, config.latents, config.latent_length, rng),
        coupling=config.coupling * coupling,
        decay_factor=decay,
    )


def _fluorescence(config, place, population, spikes):
    """Baseline × (1 + own signal + neuropil + drift + noise), (N, T) in arbitrary units."""
    rng = _generator(config, "noise", place.mouse, place.session, place.field)
    rise, decay = INDICATORS[config.indicator]
    response = calcium(spikes, rise, decay * population.decay_factor, config.sampling_rate)
    signal = population.amplitudes[:, None] * response[:, -config.frames :]
    neuropil = local_average(signal, population.positions, config.neuropil_length)
    drift = smooth_noise(signal.shape, config.drift_time, config.sampling_rate, rng)
    noise = population.noise[:, None] * np.sqrt(config.sampling_rate) * rng.standard_normal(signal.shape)
    relative = 1 + signal + config.neuropil * neuropil + config.drift * drift + noise
    return population.baselines[:, None] * relative


def _places(config):
    mice = range(1, 2 * config.subjects_per_group + 1)
    sessions, fields = range(1, config.sessions + 1), range(1, config.fields + 1)
    return [Place(mouse, session, field) for mouse in mice for session in sessions for field in fields]


def _ground_truth(config, place):
    planted = _planted(config, draw_population(config, place), place.group)
    return {
        "recording_id": place.recording_id,
        "subject_id": place.subject_id,
        "field": place.field,
        "group": place.group,
        "planted_roi_ids": [roi for roi, is_planted in zip(_roi_ids(config), planted, strict=True) if is_planted],
        f"{EFFECTS[config.effect]}_factor": config.effect_factor if planted.any() else 1.0,
    }


def _num_rois(config):
    return config.neurons + config.artifacts


def _roi_ids(config):
    return tuple(str(number) for number in range(1, _num_rois(config) + 1))


# The place of a stream is part of its seed: new ones go to the end.
_STREAMS = ("mouse", "neurons", "latents", "private drive", "spikes", "noise", "local drive")


def _generator(config, stream: str, mouse: int, session: int = 0, field: int = 0) -> np.random.Generator:
    key = (_STREAMS.index(stream), mouse, session, field)
    return np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))


def _write_parquet(config, recordings, truth, folder):
    write_build(recordings, folder, builder="neurt simulate", parameters={"simulated": True, **truth["config"]})


def _write_nwb(config, recordings, truth, folder):
    """Write one file per session, and into the ground truth which recording is in which file."""
    entries = zip(_places(config), recordings, truth["recordings"], strict=True)
    for (mouse, session), fields in itertools.groupby(entries, key=lambda entry: (entry[0].mouse, entry[0].session)):
        subject = f"sub-{Place(mouse).subject_id}"
        path = Path(subject) / f"{subject}_ses-{session}-scan-1_behavior+image+ophys.nwb"
        _, scan, written = zip(*fields, strict=True)
        (folder / subject).mkdir(parents=True, exist_ok=True)
        write_scan(scan, folder / path, f"{session}-scan-1", config.field_of_view)
        for entry in written:
            entry["file"] = path.as_posix()


def _write_npz(config, recordings, truth, folder):
    write_arrays(recordings, folder)


_WRITERS = {"parquet": _write_parquet, "nwb": _write_nwb, "npz": _write_npz}
