"""Effects beside hyperactivity: rates that vary more around their means, synchrony that no single trace shows."""

import dataclasses
import json

import numpy as np
import pytest
from neurt.baselines import STATISTICS, recording_statistics, trace_statistics
from neurt.dataset_scripts import simulate_activity as activity
from neurt.dataset_scripts.simulate import (
    Place,
    draw_population,
    simulate_recording,
    simulate_spikes,
    simulate_study,
    summarise,
)
from neurt.dataset_scripts.simulation_config import EFFECTS, SimulationConfig
from scipy.spatial.distance import cdist

SMALL = SimulationConfig(subjects_per_group=1, neurons=8, duration=20.0, neuropil=0.0)
VARIABLE = dataclasses.replace(SMALL, effect="variability", effect_size=1.0)
SYNCHRONOUS = dataclasses.replace(SMALL, effect="synchrony", effect_size=9.0, effect_share=1.0, shared_drive=0.0)


def both_groups(simulate, *arguments):
    """The same mouse in each group, so that nothing but the effect differs."""
    return (simulate(*arguments, group) for group in ("control", "planted"))


def relative(config, mouse, group):
    """Traces of a mouse over their baselines, and where its neurons are."""
    recording = simulate_recording(config, Place(mouse), group)
    return recording.traces / draw_population(config, Place(mouse)).baselines[:, None], recording.centroids


def standard_errors(differences):
    """How many standard errors the mean of the differences is away from 0, along the first axis."""
    differences = np.asarray(differences)
    return differences.mean(axis=0) / (differences.std(axis=0, ddof=1) / np.sqrt(len(differences)))


def test_variable_rates_follow_the_drive_and_keep_their_means():
    rates, drive = np.array([[2.0, 6.0], [1.0, 3.0]]), np.array([[5.0, 6.0], [5.0, 6.0]])
    varied = activity.variability(rates, np.array([True, False]), drive, np.log(9.0))
    np.testing.assert_allclose(varied, [[0.8, 7.2], [1.0, 3.0]])


def test_no_coupling_makes_variable_rates_overflow():
    varied = activity.variability(np.ones((1, 2)), np.array([True]), np.array([[-1.0, 1.0]]), 1e9)
    np.testing.assert_array_equal(varied, [[0.0, 2.0]])


def test_the_logarithm_of_planted_rates_varies_by_the_stated_factor_around_the_same_mean():
    config = dataclasses.replace(VARIABLE, neurons=60, rate=20000.0, rate_spread=0.0, coupling=0.2, duration=200.0)
    population = draw_population(config, Place(2))
    before, after = both_groups(simulate_spikes, config, Place(2), population)
    planted = population.planted
    spread = np.log(after).std(axis=1) / np.log(before).std(axis=1)
    np.testing.assert_allclose(spread[planted], 2.0, rtol=0.01)
    # Counts of two Poisson processes with the same mean rate differ by no more than the root of their sum.
    change = (after.sum(axis=1) - before.sum(axis=1)) / np.sqrt((after + before).sum(axis=1))
    assert np.abs(change).max() < 4
    np.testing.assert_array_equal(after[~planted], before[~planted])


def test_variable_neurons_keep_the_mean_of_their_traces_while_these_vary_more():
    config = dataclasses.replace(VARIABLE, neurons=150, duration=600.0, effect_share=0.8)
    planted = draw_population(config, Place(2)).planted
    before, after = (traces[planted] for traces, _ in both_groups(relative, config, 2))
    mean = after.mean(axis=1) - before.mean(axis=1)
    assert abs(standard_errors(mean)) < 3
    assert mean.std(ddof=1) / np.sqrt(len(mean)) < 0.1 * (before.mean() - 1)
    assert standard_errors(np.log(after.var(axis=1) / before.var(axis=1))) > 6


def test_a_synchronous_neuron_keeps_the_stated_share_of_its_own_drive():
    private, local = np.array([[2.0, 4.0], [2.0, 4.0]]), np.array([[1.0, 3.0], [1.0, 3.0]])
    mixed = activity.synchrony(private, np.array([True, False]), local, 0.36)
    np.testing.assert_allclose(mixed, [[2.0, 4.8], [2.0, 4.0]])


def test_neighbours_share_sources_by_their_distance_and_the_lonely_keep_their_own():
    sources = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    mixed = activity.local_mixture(sources, np.array([[0.0, 0.0], [0.0, 20.0], [1e4, 0.0]]), 20.0)
    length = np.hypot(1, np.exp(-1))
    expected = np.array([[1, np.exp(-1), 0], [np.exp(-1), 1, 0], [0, 0, length]]) / length
    np.testing.assert_allclose(mixed, expected, atol=1e-12)


def test_where_neurons_lie_dense_the_local_drive_correlates_as_that_of_latents():
    grid = np.stack(np.meshgrid(*2 * [np.arange(0, 300, 10.0)]), axis=-1).reshape(-1, 2)
    mixture = activity.local_mixture(np.eye(len(grid)), grid, 20.0)
    middle, away = (np.flatnonzero((grid == place).all(axis=1))[0] for place in ((150, 150), (150, 190)))
    np.testing.assert_allclose(np.linalg.norm(mixture, axis=1), 1)
    assert mixture[middle] @ mixture[away] == pytest.approx(np.exp(-2), rel=1e-3)


def near_correlation(traces, centroids):
    distances = cdist(centroids, centroids)[np.triu_indices(len(traces), 1)]
    return np.corrcoef(traces)[np.triu_indices(len(traces), 1)][distances < 40].mean()


def test_synchrony_shows_between_neighbours_and_in_no_statistic_of_single_traces():
    config = dataclasses.replace(SYNCHRONOUS, neurons=60, duration=200.0)
    statistics, correlation = [], []
    for mouse in range(1, 25):
        control, planted = both_groups(relative, config, mouse)
        statistics.append(
            np.subtract(*(trace_statistics(traces, 5.0).mean(axis=0) for traces, _ in (planted, control)))
        )
        correlation.append(near_correlation(*planted) - near_correlation(*control))
    assert len(statistics[0]) == len(STATISTICS)
    assert (np.abs(standard_errors(statistics)) < 3).all()
    assert standard_errors(correlation) > 8 and np.mean(correlation) > 0.04


@pytest.mark.parametrize(("effect_share", "moved"), [(0.5, 4), (1.0, 8)])
def test_synchrony_changes_the_traces_of_planted_neurons_only(effect_share, moved):
    config = dataclasses.replace(SYNCHRONOUS, effect_share=effect_share, rate=1.0)
    control, planted = both_groups(simulate_recording, config, Place(2))
    changed = (control.traces != planted.traces).any(axis=1)
    assert changed.sum() == moved
    np.testing.assert_array_equal(changed, draw_population(config, Place(2)).planted)


@pytest.mark.parametrize("effect", EFFECTS)
def test_without_an_effect_of_whatever_kind_the_groups_are_the_same_as_without_any(effect):
    hyperactive = dataclasses.replace(SMALL, effect_size=0.0)
    for place in (Place(1), Place(2)):
        expected = simulate_recording(hyperactive, place).traces
        for recording in both_groups(simulate_recording, dataclasses.replace(hyperactive, effect=effect), place):
            np.testing.assert_array_equal(recording.traces, expected)


def test_a_stream_that_is_added_moves_none_of_the_seeds_before_it():
    config = dataclasses.replace(SMALL, rate=1e-9, noise=0.0, drift=0.1, seed=7)
    sixth_stream = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(5, 1, 1, 1)))
    drift = activity.smooth_noise((8, config.frames), config.drift_time, config.sampling_rate, sixth_stream)
    np.testing.assert_allclose(relative(config, 1, "control")[0], 1 + 0.1 * drift, rtol=1e-6)


@pytest.mark.parametrize("effect", EFFECTS)
def test_an_effect_leaves_the_control_group_as_it_was(effect):
    config = dataclasses.replace(SMALL, effect=effect)
    expected = simulate_recording(dataclasses.replace(SMALL, effect_size=0.0), Place(1)).traces
    np.testing.assert_array_equal(simulate_recording(config, Place(1)).traces, expected)


def identified(mouse_spread):
    """Share of mice whose second field, other neurons all, is more like their first than any other mouse's is."""
    config = dataclasses.replace(SMALL, neurons=40, fields=2, subjects_per_group=6, effect_size=0.0, duration=100.0)
    recordings = list(simulate_study(dataclasses.replace(config, mouse_spread=mouse_spread))[0])
    statistics = np.array([recording_statistics(recording) for recording in recordings])
    first, second = (field / statistics.std(axis=0) for field in (statistics[::2], statistics[1::2]))
    return np.mean(cdist(first, second).argmin(axis=1) == np.arange(len(first)))


def test_mice_are_told_apart_by_what_varies_over_mice_though_their_groups_are_equal():
    assert identified(mouse_spread=1.0) > 0.5
    assert identified(mouse_spread=0.0) < 0.25


@pytest.mark.parametrize(
    ("config", "factor", "line"),
    [
        (VARIABLE, {"coupling_factor": 2.0}, "planted variability, coupling × 2 in 4 neurons of each of 1 recordings"),
        (
            SYNCHRONOUS,
            {"private_drive_variance_factor": 0.1},
            "planted synchrony, private drive variance × 0.1 in 8 neurons of each of 1 recordings",
        ),
    ],
)
def test_the_ground_truth_names_the_effect_and_by_what_it_multiplies_what(config, factor, line):
    truth = json.loads(json.dumps(simulate_study(config)[1]))
    control, planted = truth["recordings"]
    assert truth["effect"] == config.effect and summarise(truth).endswith(line)
    assert planted.items() >= factor.items() and control.items() >= dict.fromkeys(factor, 1.0).items()
    assert len(planted["planted_roi_ids"]) == round(8 * config.effect_share) and not control["planted_roi_ids"]


@pytest.mark.parametrize(
    ("config", "changes", "expected"),
    [
        (SMALL, {"effect": "silence"}, "effect of the simulation: expected one of hyperactivity, variability, synch"),
        (VARIABLE, {"effect_size": -1.0}, "above -1, for variability, got -1.0"),
        (VARIABLE, {"effect_size": float("inf")}, "expected a finite number"),
        (VARIABLE, {"coupling": 0.0}, "for without drive there is no variability"),
        (SYNCHRONOUS, {"effect_size": -0.1}, "at least 0, for synchrony, got -0.1"),
        (SYNCHRONOUS, {"coupling": 0.0}, "for without drive there is no synchrony"),
        (SYNCHRONOUS, {"shared_drive": 1.0}, "a share below 1"),
        (SYNCHRONOUS, {"neuropil": 0.2}, "neuropil of the simulation: expected 0 with synchrony"),
    ],
)
def test_what_an_effect_cannot_be_planted_with_is_refused(config, changes, expected):
    with pytest.raises(ValueError, match=expected):
        dataclasses.replace(config, **changes)


def test_where_nothing_is_planted_an_effect_asks_for_nothing():
    for effect in EFFECTS:
        SimulationConfig(effect=effect, effect_size=0.0, coupling=0.0, shared_drive=1.0, neuropil=0.2)
