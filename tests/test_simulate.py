"""The simulator: what it plants is there, what it does not plant is not, and the stages obey their formulas."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from neurt import cli
from neurt.dataset_scripts import simulate_activity as activity
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.simulate import (
    Place,
    draw_population,
    simulate_recording,
    simulate_spikes,
    simulate_study,
    summarise,
    write_study,
)
from neurt.dataset_scripts.simulation_config import SimulationConfig

SMALL = SimulationConfig(subjects_per_group=1, neurons=8, duration=20.0)
QUIET = dataclasses.replace(SMALL, rate=1e-9, drift=0.0, noise=0.0)


@pytest.mark.parametrize(("indicator", "peak", "half_decay"), [("GCaMP6s", 0.179, 0.550), ("GCaMP6f", 0.045, 0.142)])
def test_one_spike_peaks_at_one_and_halves_at_the_published_times(indicator, peak, half_decay):
    spikes = np.zeros((1, 5000))
    spikes[0, 0] = 1
    response = activity.calcium(spikes, *activity.INDICATORS[indicator], sampling_rate=2000.0)[0]
    half = np.flatnonzero(response > 0.5)[-1]
    assert response.max() == pytest.approx(1, abs=0.002)
    assert response.argmax() / 2000 == pytest.approx(peak, abs=0.002)
    assert (half - response.argmax()) / 2000 == pytest.approx(half_decay, abs=0.002)


def test_the_decay_time_of_the_kernel_is_recovered_at_a_low_frame_rate():
    spikes = np.zeros((1, 50))
    spikes[0, 0] = 1
    response = activity.calcium(spikes, rise=0.05, decay=0.8, sampling_rate=5.0)[0]
    slope = np.polyfit(np.arange(10, 40) / 5, np.log(response[10:40]), 1)[0]
    assert -1 / slope == pytest.approx(0.8, rel=1e-3)


@pytest.mark.parametrize("sampling_rate", [1.5, 5.0, 100.0])
def test_a_spike_brings_as_much_fluorescence_at_any_frame_rate(sampling_rate):
    rise, decay = 0.05, 0.8
    spikes = np.zeros((1, int(20 * sampling_rate)))
    spikes[0, 0] = 1
    area = activity.calcium(spikes, rise, decay, sampling_rate).sum() / sampling_rate
    time = rise * decay / (decay - rise) * np.log(decay / rise)
    assert area == pytest.approx((decay - rise) / (np.exp(-time / decay) - np.exp(-time / rise)), rel=1e-6)


def test_smooth_noise_has_unit_variance_from_the_first_frame_and_its_time_constant():
    noise = activity.smooth_noise((4000, 60), 2.0, 10.0, np.random.default_rng(0))
    assert noise[:, 0].var() == pytest.approx(1, abs=0.1)
    assert noise[:, -1].var() == pytest.approx(1, abs=0.1)
    assert np.mean(noise[:, 10] * noise[:, 30]) == pytest.approx(np.exp(-1), abs=0.06)


def test_rates_keep_their_mean_whatever_the_coupling():
    drive = np.random.default_rng(0).standard_normal((2, 200_000))
    rates = activity.modulated_rates(np.array([0.1, 3.0]), drive, 1.0)
    np.testing.assert_allclose(rates.mean(axis=1), [0.1, 3.0], rtol=0.02)


def test_neurons_keep_their_distance_and_stay_inside_the_field():
    positions = activity.place_neurons(140, (200.0, 120.0), 9.0, np.random.default_rng(0))
    distances = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    assert distances[np.triu_indices(140, 1)].min() >= 9
    assert (positions >= 4.5).all() and (positions <= [195.5, 115.5]).all()
    assert (positions.max(axis=0) > [180, 100]).all()


def test_latents_drive_neurons_alike_as_a_gaussian_of_their_distance():
    positions = np.array([[0.0, 0.0], [30.0, 0.0], [0.0, 60.0]])
    loadings = activity.latent_loadings(positions, 4000, 30.0, np.random.default_rng(0))
    likeness = loadings @ loadings.T
    np.testing.assert_allclose(np.diag(likeness), 1)
    np.testing.assert_allclose(likeness[0, 1:], np.exp([-0.5, -2]), atol=0.05)


def test_neuropil_is_the_weighted_mean_of_the_others():
    signals = np.array([[7.0], [1.0], [3.0]])
    positions = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0]])
    near, far = np.exp(-0.5), np.exp(-4.5)
    average = activity.local_average(signals, positions, 10.0)
    assert average[0, 0] == pytest.approx((near * 1 + far * 3) / (near + far))


def test_neuropil_of_distant_or_single_neurons_is_finite():
    signals = np.ones((3, 4))
    positions = np.array([[0.0, 0.0], [1e5, 0.0], [0.0, 3e5]])
    np.testing.assert_allclose(activity.local_average(signals, positions, 10.0), 1)
    np.testing.assert_array_equal(activity.local_average(signals[:1], positions[:1], 10.0), 0)


def test_planted_neurons_fire_at_the_stated_ratio_and_the_others_as_before():
    config = dataclasses.replace(SMALL, neurons=60, rate=1.0, duration=400.0, effect_size=1.5, effect_share=0.4)
    population = draw_population(config, Place(2))
    before, after = (simulate_spikes(config, Place(2), population, group) for group in ("control", "planted"))
    planted = population.planted
    ratio = after[planted].sum() / before[planted].sum()
    standard_error = ratio * np.sqrt(1 / after[planted].sum() + 1 / before[planted].sum())
    assert planted.sum() == 24
    assert abs(ratio - 2.5) < 3 * standard_error < 0.07
    np.testing.assert_array_equal(after[~planted], before[~planted])


def test_without_an_effect_the_groups_are_equal_bit_for_bit():
    for effect_size, are_equal in ((0.0, True), (0.5, False)):
        config = dataclasses.replace(SMALL, effect_size=effect_size)
        control, planted = (simulate_recording(config, Place(2), group) for group in ("control", "planted"))
        assert (control.traces.tobytes() == planted.traces.tobytes()) is are_equal
        assert (control.labels["group"], planted.labels["group"]) == ("control", "planted")


def test_without_an_effect_nothing_is_written_down_as_planted():
    _, truth = simulate_study(dataclasses.replace(SMALL, effect_size=0.0))
    assert [(entry["planted_roi_ids"], entry["rate_factor"]) for entry in truth["recordings"]] == [([], 1.0)] * 2
    assert summarise(truth).endswith("nothing planted")


def test_more_mice_sessions_and_fields_change_none_of_the_others():
    few = {recording.recording_id: recording.traces for recording in simulate_study(SMALL)[0]}
    larger = dataclasses.replace(SMALL, subjects_per_group=2, sessions=2, fields=2)
    many = {recording.recording_id: recording.traces for recording in simulate_study(larger)[0]}
    assert len(few) == 2 and len(many) == 16
    for recording_id, traces in few.items():
        np.testing.assert_array_equal(many[recording_id], traces)
    assert len({traces.tobytes() for traces in many.values()}) == 16


def test_a_mouse_shows_the_same_neurons_in_each_session_and_shares_none_with_others():
    config = dataclasses.replace(SMALL, sessions=2, fields=2, artifacts=2)
    recordings = {recording.recording_id: recording for recording in simulate_study(config)[0]}
    first, second = (recordings[f"sim001_ses-{session}_field-1"] for session in (1, 2))
    np.testing.assert_array_equal(first.centroids, second.centroids)
    np.testing.assert_array_equal(first.unit_ids, second.unit_ids)
    assert (first.traces != second.traces).any()
    neurons = [set(r.unit_ids[r.accepted]) for r in recordings.values() if r.session_id.endswith("ses-1")]
    assert len(set.union(*neurons)) == sum(map(len, neurons)) == 4 * 8
    assert (first.unit_ids[~first.accepted] == -1).all() and (~first.accepted).sum() == 2


def near_and_far_correlation(**changes):
    config = dataclasses.replace(SMALL, neurons=60, duration=300.0, noise=0.01, drift=0.0, **changes)
    near, far = [], []
    for mouse in range(1, 7):
        recording = simulate_recording(config, Place(mouse), "control")
        pairs = np.triu_indices(60, 1)
        offsets = recording.centroids[pairs[0]] - recording.centroids[pairs[1]]
        correlation, distance = np.corrcoef(recording.traces)[pairs], np.hypot(*offsets.T)
        near.append(correlation[distance < 25].mean())
        far.append(correlation[distance > 120].mean())
    return np.mean(near), np.mean(far)


def test_nearer_neurons_correlate_more_by_latents_or_neuropil_alone_and_not_without():
    for changes in ({"neuropil": 0.0, "shared_drive": 1.0}, {"neuropil": 1.0, "shared_drive": 0.0}):
        near, far = near_and_far_correlation(**changes)
        assert near > far + 0.1, changes
    near, far = near_and_far_correlation(neuropil=0.0, shared_drive=0.0)
    assert abs(near - far) < 0.02


def test_noise_has_the_stated_level_per_root_hz():
    for sampling_rate in (4.0, 25.0):
        config = dataclasses.replace(
            QUIET, noise=0.02, noise_spread=0.0, mouse_spread=0.0, sampling_rate=sampling_rate
        )
        traces = simulate_recording(dataclasses.replace(config, duration=400.0), Place(1)).traces
        relative = traces / traces.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(relative.std(axis=1), 0.02 * np.sqrt(sampling_rate), rtol=0.1)


def test_drift_has_the_stated_size_and_is_slow():
    config = dataclasses.replace(QUIET, drift=0.1, drift_time=20.0, neurons=50, duration=600.0)
    traces = simulate_recording(config, Place(1)).traces
    relative = traces / draw_population(config, Place(1)).baselines[:, None]
    assert relative.std() == pytest.approx(0.1, rel=0.1)
    assert np.diff(relative).std() == pytest.approx(0.1 * np.sqrt(2 * (1 - np.exp(-0.01))), rel=0.05)


def test_a_recording_does_not_begin_with_an_empty_indicator():
    config = dataclasses.replace(SMALL, neurons=200, rate=20.0, rate_spread=0.0, coupling=0.0, noise=0.0, drift=0.0)
    mean = simulate_recording(config, Place(1)).traces.mean(axis=0)
    assert mean[0] == pytest.approx(mean.mean(), rel=0.05)


def test_mice_differ_in_everything_by_the_stated_spread_and_not_at_all_at_zero():
    alike = dict(rate_spread=0.0, amplitude_spread=0.0, noise_spread=0.0, neurons=1)
    for spread, least, most in ((0.0, 0.0, 0.0), (0.5, 0.4, 0.6)):
        config = dataclasses.replace(SMALL, mouse_spread=spread, **alike)
        mice = [draw_population(config, Place(mouse)) for mouse in range(1, 201)]
        traits = np.log([[p.rates[0], p.amplitudes[0], p.noise[0], p.coupling, p.decay_factor] for p in mice])
        assert (least <= traits.std(axis=0).round(12)).all() and (traits.std(axis=0).round(12) <= most).all()
        assert spread == 0 or np.abs(np.corrcoef(traits.T) - np.eye(5)).max() < 0.25


@pytest.mark.parametrize("mouse", [1, 2, 3])
def test_the_decay_time_of_each_mouse_is_recovered_from_its_traces(mouse):
    config = dataclasses.replace(SMALL, sampling_rate=25.0, duration=200.0, noise=0.0, drift=0.0, neuropil=0.0)
    config = dataclasses.replace(config, mouse_spread=0.3)
    population = draw_population(config, Place(mouse))
    signal = simulate_recording(config, Place(mouse), "control").traces / population.baselines[:, None] - 1
    spikes = simulate_spikes(config, Place(mouse), population, "control")[:, -config.frames :]
    # A second after the last spike the rise (0.07 s) is over and only the decay is left.
    recent = np.array([np.convolve(row, np.ones(26))[: config.frames] for row in spikes])
    falling = (recent[:, 26:] == 0) & (signal[:, 26:] > 0.05)
    ratio = np.median((signal[:, 26:] / signal[:, 25:-1])[falling])
    assert -1 / (25 * np.log(ratio)) == pytest.approx(0.686 * population.decay_factor, rel=0.01)


def test_noise_and_drift_are_drawn_anew_in_each_session_and_field():
    config = dataclasses.replace(QUIET, noise=0.02, duration=200.0)
    for place in (Place(1, 2, 1), Place(1, 1, 2)):
        traces = simulate_recording(config, Place(1)).traces, simulate_recording(config, place).traces
        assert np.abs(np.corrcoef(*traces)[:8, 8:]).max() < 0.2


@pytest.mark.parametrize(
    "changes", [{"coupling": 0.0}, {"shared_drive": 0.0}, {"shared_drive": 1.0}], ids=["spikes", "own", "shared"]
)
def test_activity_is_drawn_anew_in_each_session(changes):
    config = dataclasses.replace(SMALL, rate=100.0, rate_spread=0.0, drive_time=0.5, duration=200.0, **changes)
    population = draw_population(config, Place(1))
    places = [Place(1), Place(1, session=2)] + [Place(1, field=2)] * (config.shared_drive < 1)
    first, *others = (simulate_spikes(config, place, population, "control") for place in places)
    for other in others:
        same_neuron = np.diag(np.corrcoef(np.log1p(first), np.log1p(other))[:8, 8:])
        assert np.abs(same_neuron).max() < 0.3


@pytest.mark.parametrize("mouse", [1, 2, 3])
def test_firing_rates_vary_over_time_as_much_as_the_mouse_is_coupled(mouse):
    config = dataclasses.replace(SMALL, rate=2000.0, rate_spread=0.0, coupling=0.4, mouse_spread=0.3, drive_time=0.3)
    config = dataclasses.replace(config, duration=200.0)
    population = draw_population(config, Place(mouse))
    spikes = simulate_spikes(config, Place(mouse), population, "control")
    assert np.log(spikes).std() == pytest.approx(population.coupling, rel=0.05)


def test_artifacts_show_neuropil_but_no_cell():
    config = dataclasses.replace(SMALL, artifacts=4, rate=1.0, noise=0.0, drift=0.0, neuropil=0.0)
    recording = simulate_recording(config, Place(1))
    assert (recording.traces[recording.accepted].std(axis=1) > 1).all()
    assert (recording.traces[~recording.accepted].std(axis=1) < 1e-3).all()
    with_neuropil = simulate_recording(dataclasses.replace(config, neuropil=0.5), Place(1))
    assert (with_neuropil.traces[~recording.accepted].std(axis=1) > 1).all()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_study(dataclasses.replace(SMALL, seed=seed), tmp_path / name)
    first, again, other = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("first", "again", "other")
    )
    assert first == again
    assert len(first) == 6 and first.keys() == other.keys()
    assert all(first[path] != other[path] for path in first)


def test_a_parquet_study_holds_the_recordings_and_beside_them_what_was_planted(tmp_path):
    truth = write_study(SMALL, tmp_path / "study")
    stored = json.loads((tmp_path / "study" / "ground_truth.json").read_text())
    recordings = {recording.recording_id: recording for recording in read_build(tmp_path / "study")}
    assert stored == json.loads(json.dumps(truth)) and "simulated" in stored["simulated"].lower()
    assert stored["config"]["effect_size"] == 2.0 and stored["effect"] == "hyperactivity"
    assert {entry["recording_id"]: entry["group"] for entry in stored["recordings"]} == {
        recording_id: recording.labels["group"] for recording_id, recording in recordings.items()
    }
    assert [len(entry["planted_roi_ids"]) for entry in stored["recordings"]] == [0, 4]
    planted = recordings["sim002_ses-1_field-1"]
    assert set(stored["recordings"][1]["planted_roi_ids"]) <= set(planted.roi_ids)
    assert planted.modality == "simulated" and planted.trace_kind == "fluorescence"
    np.testing.assert_array_equal(planted.traces, simulate_recording(SMALL, Place(2)).traces)
    assert "simulated" in (tmp_path / "study" / "README.md").read_text()


def test_an_existing_output_is_refused_and_left_alone(tmp_path):
    (tmp_path / "study").mkdir()
    with pytest.raises(ValueError, match="study: expected a folder that does not exist yet"):
        write_study(SMALL, tmp_path / "study")
    assert list((tmp_path / "study").iterdir()) == []


def test_an_interrupted_study_leaves_nothing(tmp_path):
    def interrupted(recordings):
        yield next(iter(recordings))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_study(SMALL, tmp_path / "study", progress=interrupted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("subjects_per_group", 0, "at least 1"),
        ("neurons", 2.5, "a whole number"),
        ("seed", -1, "at least 0"),
        ("sampling_rate", 0.0, "above 0"),
        ("sampling_rate", float("nan"), "above 0"),
        ("duration", float("inf"), "above 0"),
        ("duration", 6.0, "at least 32 frames"),
        ("noise", -0.1, "at least 0"),
        ("indicator", "GCaMP9", "GCaMP6s, GCaMP6f"),
        ("field_of_view", (100.0, -1.0), "a width and a height"),
        ("effect_size", -1.0, "above -1"),
        ("effect_share", 1.1, "from 0 to 1"),
        ("neurons", 5000, "room for 5000 neurons"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_expected(name, value, expected):
    with pytest.raises(ValueError, match=expected) as caught:
        dataclasses.replace(SMALL, **{name: value})
    assert "\n" not in str(caught.value)


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["neurt", "simulate", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return exit.value.code


def test_the_command_says_simulated_and_has_the_defaults_of_the_configuration(tmp_path, monkeypatch, capsys):
    written = []
    monkeypatch.setattr(
        "neurt.dataset_scripts.simulate.write_study",
        lambda config, *args, **kwargs: written.append((config, args)) or simulate_study(config)[1],
    )
    assert run(monkeypatch, "--output", tmp_path / "study") == 0
    assert run(monkeypatch, "--output", tmp_path / "scans", "--format", "nwb", "--fields", 3) == 0
    assert written[0] == (SimulationConfig(), (tmp_path / "study", "parquet"))
    assert written[1] == (SimulationConfig(fields=3, artifacts=6), (tmp_path / "scans", "nwb"))
    assert capsys.readouterr().out.startswith(
        "simulated 16 recordings of 16 mice: 60 neurons for 300 s at 5 Hz; planted"
    )


def test_every_option_of_the_command_reaches_the_configuration(tmp_path, monkeypatch):
    options = dict(seed=5, subjects_per_group=1, sessions=2, fields=2, neurons=9, artifacts=1, mouse_spread=0.3)
    options |= dict(duration=20.0, sampling_rate=4.0, indicator="GCaMP6f", noise=0.01, drift=0.02, neuropil=0.03)
    options |= dict(effect="variability", effect_size=0.7, effect_share=0.25)
    flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert run(monkeypatch, "--output", tmp_path / "study", "--field-of-view", 200, 150, *flags) == 0
    stored = json.loads((tmp_path / "study" / "ground_truth.json").read_text())["config"]
    assert stored == dataclasses.asdict(SimulationConfig(**options)) | {"field_of_view": [200.0, 150.0]}


@pytest.mark.parametrize("arguments", [("--format", "hdf5"), ("--neurons", 0), ("--effect", "synchrony")])
def test_bad_options_end_with_one_line_code_2_and_nothing_written(arguments, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "--output", tmp_path / "study", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("neurt: ") and "expected" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
