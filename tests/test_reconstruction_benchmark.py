"""The reconstruction benchmark: what is hidden, that nothing hidden is looked at, scores, intervals and verdicts."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import small_builds
from neurt import NeurtProcessor
from neurt.evaluation import json_ready
from scipy.signal import lfilter
from sklearn.metrics import mean_absolute_error, r2_score

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import reconstruction
import reconstruction_statistics as statistics
from real_sets import real_data_folder, real_sets
from reconstruction import load_published, measure_set, published_folder
from reconstruction_figures import draw_forecasts, draw_ratios
from reconstruction_predictors import (
    AR_OTHERS,
    AR_OWN,
    INTERPOLATION,
    MEAN_OF_OTHERS,
    MODEL,
    PUBLISHED,
    RIDGE_OTHERS,
    RIDGE_OWN,
    WINDOW_MEAN,
    calibrated,
    predictors,
)
from reconstruction_report import criteria, judged, report, seconds_cell
from reconstruction_windows import (
    NEURON_NOT_CLOSE,
    TASKS,
    make_fields,
    sample_windows,
    spread,
    without_close_neighbours,
)

CHANNELS = ("own", "near mean", "near SD", "far mean", "far SD")
PROCESSOR = NeurtProcessor(window_length=40)


def slow_traces(neurons, frames, seed):
    """Slow signals of several neurons under white noise of standard deviation 0.3."""
    rng = np.random.default_rng(seed)
    slow = lfilter([1], [1, -0.95], rng.normal(size=(neurons, frames)), axis=1)
    return (slow / slow.std(1, keepdims=True) + 0.3 * rng.normal(size=(neurons, frames))).astype(np.float32)


def recording(number, animal, neurons=24, frames=400, **options):
    """Neurons on a grid, 12 µm apart."""
    grid = 12.0 * np.stack(np.meshgrid(np.arange(4), np.arange(neurons // 4)), axis=-1).reshape(-1, 2)
    options = {"subject_id": animal, "centroids": grid.astype(np.float32), "trace_kind": "dff", **options}
    made = small_builds.recording(number, neurons, frames, **options)
    return dataclasses.replace(made, traces=slow_traces(neurons, frames, number))


def several(animals="aabbc", **options):
    return [recording(number, animal, **options) for number, animal in enumerate(animals)]


def windows_of(recordings, task, most=10):
    fields, skipped = make_fields(recordings, PROCESSOR, task)
    assert not skipped
    return sample_windows(fields, task, PROCESSOR.window_length, most, seed=0)


# Windows.


def test_a_sample_takes_one_window_of_each_equal_part():
    rows = spread(100, 10, np.random.default_rng(0))
    assert (rows // 10).tolist() == list(range(10)) and len(set(rows % 10)) > 3
    assert spread(7, 10, np.random.default_rng(0)).tolist() == list(range(7))


@pytest.mark.parametrize(
    ("task", "hidden"),
    [("neuron", [0]), (NEURON_NOT_CLOSE, [0]), ("near", [1, 2]), ("far", [3, 4]), ("population", [1, 2, 3, 4])],
)
def test_whole_channels_are_hidden_in_every_real_frame(task, hidden):
    windows = windows_of(several(frames=195), task, most=200)  # the last window has five frames too few
    assert windows.hidden.any((0, 1)).nonzero()[0].tolist() == hidden
    assert (windows.hidden[..., hidden] == windows.real[..., None]).all()
    assert not windows.visible[..., hidden].any() and not windows.real.all()


def test_gaps_and_forecasts_hide_all_channels_at_once():
    for task in ("span", "forecast"):
        windows = windows_of(several(), task)
        assert (windows.hidden == windows.hidden[..., :1]).all()
    # Two seconds at 5 Hz, all of them behind the first 80 % of 400 frames.
    assert (windows.hidden[:, -10:].all()) and not windows.hidden[:, :-10].any()
    assert (windows.first + 30 >= 320).all()


def test_fields_of_forecasts_are_scaled_without_their_future():
    quiet, loud = recording(0, "a"), recording(0, "a")
    loud.traces[:, 320:] *= 100
    (before,), (after,) = (make_fields([field], PROCESSOR, "forecast")[0] for field in (quiet, loud))
    np.testing.assert_array_equal(before.channels[:, :320], after.channels[:, :320])
    assert before.past == 320 and (before.channels[:, 320:] != after.channels[:, 320:]).any()


def test_values_are_the_channels_and_a_seed_gives_the_same_windows_again():
    first, second = (windows_of(several(), "span") for _ in range(2))
    np.testing.assert_array_equal(first.values, second.values)
    np.testing.assert_array_equal(first.hidden, second.hidden)
    row = 13
    field = first.fields[first.field[row]]
    np.testing.assert_array_equal(
        first.values[row], field.channels[first.neuron[row], first.first[row] : first.first[row] + 40]
    )


def test_sets_without_positions_have_the_own_trace_alone():
    windows = windows_of(several(centroids=None, coordinate_unit=None), "span")
    assert windows.values.shape[2] == 1


def test_near_channels_without_close_neighbours_leave_out_what_is_nearer_than_15_um():
    field = recording(0, "a", neurons=40)
    processor = NeurtProcessor(neighbour_radius=30, radius_unit="um")
    channels = processor.neighbour_channels(field.traces, field.centroids, coordinate_unit="um")
    changed = without_close_neighbours(channels, field, processor)
    distances = np.linalg.norm(field.centroids - field.centroids[9], axis=1)
    near = channels[(distances >= 15) & (distances < 30), :, 0]
    np.testing.assert_allclose(changed[9, :, 1], near.mean(0), atol=1e-6)
    np.testing.assert_allclose(changed[9, :, 2], near.std(0, ddof=1), atol=1e-5)
    assert (channels[9, :, 1] != changed[9, :, 1]).any()
    np.testing.assert_allclose(changed[9, :, [0, 3, 4]], channels[9, :, [0, 3, 4]], atol=1e-6)


def test_positions_in_pixels_say_nothing_about_15_um():
    fields, skipped = make_fields([recording(0, "a", coordinate_unit="px")], PROCESSOR, NEURON_NOT_CLOSE)
    assert not fields and skipped == {"r0": "positions are in px, so no distance in µm is known"}


# Predictors.


@pytest.mark.parametrize("task", TASKS)
def test_no_predictor_looks_at_what_is_hidden_or_comes_after_the_window(task, tiny_model):
    windows = windows_of(several(), task, most=30)
    rows = np.flatnonzero((windows.field == 0) & (windows.first == windows.first[windows.field == 0].max()))
    models = {MODEL: tiny_model().eval()}
    before = {name: predict(windows)[rows] for name, predict in predictors(task, models).items()}
    channels = windows.hidden[rows[0]].any(0)
    for row in rows:
        values = windows.values[row]
        values[windows.hidden[row]] = 1e3
    for index, first in ((0, windows.first[rows[0]]), (1, 0)):  # both recordings of the animal
        frames = windows.fields[index].channels[:, first + (30 if task == "forecast" else 0) :]
        frames[..., channels] = np.random.default_rng(0).normal(size=frames[..., channels].shape) * 1e3
    for name, predict in predictors(task, models).items():
        changed = windows.hidden[rows]
        np.testing.assert_allclose(predict(windows)[rows][changed], before[name][changed], rtol=1e-5, err_msg=name)


def test_others_are_other_animals_at_a_similar_rate():
    rates = {"a": 5.0, "b": 5.5, "c": 20.0}
    recordings = [recording(i, animal, sampling_rate=rates[animal]) for i, animal in enumerate("abc")]
    windows = windows_of(recordings, "neuron")
    means = predictors("neuron", {})[MEAN_OF_OTHERS](windows)[:, 0, 0]
    own = [field.channels[..., 0].mean() for field in windows.fields]
    # Nobody was recorded like c, so that c gets everybody else.
    for index, expected in enumerate([own[1], own[0], (own[0] + own[1]) / 2]):
        np.testing.assert_allclose(means[windows.field == index], expected, rtol=1e-5)


def test_in_a_set_of_one_animal_others_are_other_neurons():
    windows = windows_of([recording(0, "a", neurons=20)], "neuron", most=40)
    (field,) = windows.fields
    means = predictors("neuron", {})[MEAN_OF_OTHERS](windows)[:, 0, 0]
    for neuron in np.unique(windows.neuron):
        others = field.channels[field.groups != field.groups[neuron], :, 0]
        np.testing.assert_allclose(means[windows.neuron == neuron], others.mean(), rtol=1e-5)
    assert len(set(field.groups)) == 5


@pytest.mark.parametrize(
    ("task", "others", "own"),
    [("span", AR_OTHERS, AR_OWN), ("neuron", RIDGE_OTHERS, RIDGE_OWN), ("forecast", RIDGE_OTHERS, RIDGE_OWN)],
)
def test_one_fit_is_to_others_alone_and_the_other_to_the_own_past_alone(task, others, own):
    windows = windows_of(several("ab"), task)
    rows = (windows.field == 0) & (windows.first >= 100)

    def predictions():
        return {name: predictors(task, {})[name](windows)[rows] for name in (others, own)}

    before = predictions()
    for animal, kept, moved in ((0, others, own), (1, own, others)):
        channels = windows.fields[animal].channels  # the windows hold copies
        recorded = channels.copy()
        channels[:] = np.random.default_rng(0).normal(size=channels.shape)
        after = predictions()
        channels[:] = recorded
        np.testing.assert_array_equal(after[kept], before[kept])
        assert (after[moved] != before[moved]).any()


def test_calibration_finds_the_level_and_size_of_each_hidden_channel():
    windows = windows_of(several("abc"), "population", most=40)
    prediction = (windows.values - np.float32([0, 0.5, 1, 2, 3])) / np.float32([1, 2, 4, -1, 0.5])
    result = calibrated(prediction, windows, "population")
    np.testing.assert_allclose(result[windows.hidden], windows.values[windows.hidden], atol=0.01)
    np.testing.assert_array_equal(result[~windows.hidden], prediction[~windows.hidden])


def test_the_fitted_baselines_beat_what_knows_less_on_slow_noisy_signals():
    windows = windows_of(several(), "span", most=60)
    errors = statistics.errors_of(windows, "span")
    for name, predict in predictors("span", {}).items():
        statistics.add_predictor(errors, name, predict(windows), windows, "span")
    own = {name: squared.sum((0, 1))[0] for name, squared in errors.squared.items()}
    best = min(own, key=own.get)
    assert best in (AR_OTHERS, AR_OWN, "Gaussian process")
    assert max(own[AR_OTHERS], own[AR_OWN]) < own[INTERPOLATION]


# Scores.


def scored(task="span", recordings=None):
    windows = windows_of(recordings or several(animals="abcde"), task)
    errors = statistics.errors_of(windows, task)
    for name in (MODEL, WINDOW_MEAN):
        statistics.add_predictor(errors, name, predictions(windows)[name], windows, task)
    return windows, errors


def predictions(windows):
    noise = np.random.default_rng(0).normal(size=windows.values.shape)
    return {MODEL: windows.values + 0.1 * noise, WINDOW_MEAN: predictors("span", {})[WINDOW_MEAN](windows)}


def test_scores_equal_scikit_learns_over_all_hidden_values():
    windows, errors = scored()
    rows = statistics.score_rows(errors, CHANNELS, MODEL)
    assert len(rows) == 10
    for row in rows:
        c = CHANNELS.index(row["channel"])
        hidden = windows.hidden[..., c]
        truth, predicted = windows.values[..., c][hidden], predictions(windows)[row["predictor"]][..., c][hidden]
        assert row["r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-5)
        assert row["mae"] == pytest.approx(mean_absolute_error(truth, predicted))
        within = sum(np.square(v[h] - v[h].mean()).sum() for v, h in zip(windows.values[..., c], hidden, strict=True))
        assert row["r2_within"] == pytest.approx(1 - np.square(truth - predicted).sum() / within, rel=1e-4)
        assert row["n"] == hidden.sum()


def test_deviations_are_from_the_mean_of_what_was_drawn():
    # 1, 2 and 6: mean 3, deviations -2, -1 and 3.
    assert statistics.sum_of_squares(np.array([[3, 9, 41], [0, 0, 0]])).tolist() == [14, 0]


def test_a_ratio_is_of_squared_errors_and_its_interval_is_over_paired_units():
    windows, errors = scored()
    row = next(r for r in statistics.score_rows(errors, CHANNELS, MODEL) if r["predictor"] == WINDOW_MEAN)
    by_animal = np.array(
        [[errors.squared[name][errors.owner == a, 0, 0].sum() for name in (MODEL, WINDOW_MEAN)] for a in range(5)]
    )
    assert errors.unit == "animal"
    assert row["ratio"] == pytest.approx(by_animal[:, 0].sum() / by_animal[:, 1].sum())
    rng = np.random.default_rng(1)
    sums = np.array([by_animal[rng.integers(0, 5, 5)].sum(0) for _ in range(4000)])
    assert row["ratio_interval"] == pytest.approx(np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975]), rel=0.03)


@pytest.mark.parametrize(
    ("animals", "unit", "count"), [("abcde", "animal", 5), ("aabbb", "recording", 5), ("ab", "neuron", 48)]
)
def test_intervals_are_over_animals_or_else_recordings_or_else_neurons(animals, unit, count):
    windows = windows_of(several(animals), "span", most=300)
    name, owner = statistics.units(windows)
    assert (name, len(set(owner))) == (unit, count)


def test_frames_belong_to_the_horizon_they_end_in():
    windows = windows_of([recording(0, "a")], "forecast")
    ahead = np.zeros(windows.values.shape)
    ahead[:, 30:] = np.arange(1, 11)[:, None]
    sums = statistics.horizon_sums(windows, np.where(windows.hidden, ahead, 0), "forecast")
    # Frames at 0.2, 0.4, ..., 2 s; horizons end at 0.25, 0.5, ..., 2 s.
    assert sums[0, :, 0].tolist() == [1, 2, 3, 4 + 5, 6, 7, 8, 9 + 10]


def test_a_horizon_is_reached_only_while_the_interval_stays_below_one():
    rows = [
        {"predictor": "p", "channel": "own", "seconds": s, "ratio_interval": [0.5, high]}
        for s, high in ((0.25, 0.9), (0.5, 0.99), (0.75, 1.01), (1.0, 0.9))
    ]
    assert statistics.better_until(rows, "p", "own") == 0.5
    assert statistics.better_until(rows[2:], "p", "own") == 0
    assert [seconds_cell(s) for s in (0.0, 0.5, 2.0)] == ["–", "0.5", "2 or more"]


def test_predictions_that_are_not_finite_are_refused():
    windows, errors = scored()
    with pytest.raises(ValueError, match="expected finite predictions, got broken with NaN"):
        statistics.add_predictor(errors, "broken", np.full(windows.values.shape, np.nan), windows, "span")


@pytest.mark.parametrize("frames", [400, 4000])
def test_the_noise_estimate_finds_white_noise_under_slow_signals(frames):
    fields, _ = make_fields([recording(0, "a", frames=frames)], PROCESSOR, "span")
    scale = np.ptp(slow_traces(24, frames, 0), axis=1)
    found = np.sqrt(statistics.noise_variances(fields[0])) * scale
    # What the slow signal has left in the upper half of the spectrum is taken for noise too.
    frequencies = np.linspace(0.25, 0.5, 1000)
    left = (1 - 0.95**2) / np.abs(1 - 0.95 * np.exp(2j * np.pi * frequencies)) ** 2
    assert found.mean() == pytest.approx(np.sqrt(0.3**2 + left.mean()), rel=0.05)


def test_the_noise_estimate_is_of_white_noise_exactly_its_variance():
    rng = np.random.default_rng(0)
    noise = recording(0, "a", neurons=8, frames=20000, centroids=None, coordinate_unit=None)
    noise.traces[:] = rng.normal(size=noise.traces.shape) * 3
    fields, _ = make_fields([noise], NeurtProcessor(normalization="none"), "span")
    assert statistics.noise_variances(fields[0]).mean() == pytest.approx(9, rel=0.02)


def test_noise_is_not_estimated_where_it_was_removed():
    fields, _ = make_fields([recording(0, "a", trace_kind="denoised")], PROCESSOR, "span")
    assert np.isnan(statistics.noise_variances(fields[0])).all()
    _, errors = scored(recordings=several("abcde", trace_kind="deconvolved"))
    assert statistics.ceiling_rows(errors) == []


def test_what_leaves_only_white_noise_explains_all_that_can_be_explained():
    windows, errors = scored()
    noise = np.sqrt(errors.noise / errors.n[:, 0, 0])[:, None, None]
    exact = windows.values + noise * np.where(np.arange(40) % 2, 1, -1)[:, None]
    statistics.add_predictor(errors, "exact", exact, windows, "span")
    rows = {row["predictor"]: row for row in statistics.ceiling_rows(errors)}
    assert rows["exact"]["share"] == pytest.approx(1) and rows["exact"]["share_within"] == pytest.approx(1)
    hidden = windows.hidden[..., 0]
    total = np.square(windows.values[..., 0][hidden] - windows.values[..., 0][hidden].mean()).sum()
    assert rows[WINDOW_MEAN]["ceiling"] == pytest.approx(1 - errors.noise.sum() / total, rel=1e-4)
    assert rows[WINDOW_MEAN]["share"] < 1


# The report.


def test_a_verdict_names_what_fails_and_what_is_uncertain():
    def row(channel, ratio, high):
        return {"channel": channel, "ratio": ratio, "ratio_interval": [0.5, high]}

    assert judged("x", [row("own", 0.8, 0.9)])[1:] == ["own 0.80 [0.50, 0.90]", "PASS"]
    assert judged("x", [])[1:] == ["", "not measured"]
    assert judged("x", [row("own", 0.8, 0.9), row("far SD", 0.9, 1.2)])[2] == (
        "PASS (interval reaches beyond 1: far SD)"
    )
    assert judged("x", [row("own", 0.8, 0.9), row("far SD", 1.1, 1.2)])[2] == "FAIL: far SD"
    assert judged("x", [row("own", 0.8, 0.9)], goal=0.7)[2] == "FAIL: own"
    assert judged("x", [row("own", float("nan"), 0.9)])[2] == "FAIL: own"


def test_the_whole_benchmark_says_everything_of_every_set(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "SAMPLES", 100)
    monkeypatch.setattr(reconstruction, "FEWEST_WINDOWS", 0)
    models = {MODEL: tiny_model().eval(), PUBLISHED: tiny_model(seed=1).eval()}
    sets = {
        "algamal_two_photon": [*several("abcde"), recording(9, "f", neurons=4)],
        "without positions": several("abcde", centroids=None, coordinate_unit=None, trace_kind="events"),
        "in pixels": [recording(0, "a", coordinate_unit="px", trace_kind="denoised")],
    }
    results = {name: measure_set(found, PROCESSOR, models, TASKS, 6, seed=0) for name, found in sets.items()}
    assert list(results["algamal_two_photon"]["tasks"]) == list(TASKS)
    assert list(results["without positions"]["tasks"]) == ["span", "forecast"]
    assert list(results["in pixels"]["left_out"]) == [NEURON_NOT_CLOSE]
    assert "ceiling" in results["algamal_two_photon"]["tasks"]["neuron"]
    rows = list(criteria(results))
    assert sum(row[1] == "gaps, own trace: at most 0.7 of interpolation" for row in rows) == 1
    assert sum("level and size from others: below ridge" in row[1] for row in rows) == 2 * (3 + 2)
    assert all(row[3].startswith(("PASS", "FAIL")) for row in rows)
    text = report(results, {"windows": 6, "seed": 0, "window_length": 40}, 60)
    assert "Recordings skipped: 1 (r9: expected at least 5 neurons" in text
    assert "positions are in px" in text and "No estimate of the noise ceiling" in text and "nan" not in text
    json.dumps(json_ready(results), allow_nan=False)
    draw_ratios(results, tmp_path / "ratios.png")
    draw_forecasts(results, tmp_path / "forecasts.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 10_000 for name in ("ratios", "forecasts"))


def test_a_folder_without_one_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one .pth file in .*, got 0; pass its folder as --published"):
        load_published(tmp_path)


@pytest.mark.skipif(not published_folder().is_dir(), reason="no published checkpoint")
@pytest.mark.skipif(not real_data_folder().is_dir(), reason="no real recordings")
def test_the_published_checkpoint_loses_to_interpolation_on_a_real_recording():
    models = {PUBLISHED: load_published(published_folder())}
    windows = sample_windows(
        make_fields(real_sets()["suite2p_plane0"](), NeurtProcessor(), "span")[0], "span", 128, 60, seed=0
    )
    errors = statistics.errors_of(windows, "span")
    for name in (PUBLISHED, INTERPOLATION):
        statistics.add_predictor(errors, name, predictors("span", models)[name](windows), windows, "span")
    rows = {row["predictor"]: row for row in statistics.score_rows(errors, CHANNELS, INTERPOLATION)[:2]}
    assert rows[PUBLISHED]["ratio_interval"][1] < 1
