"""Recordings unlike those of a pretraining are found by how well they are reconstructed."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neurt import NeurtProcessor
from neurt.dataset_scripts.parquet_build import read_build
from neurt.dataset_scripts.recording import Recording
from neurt.distribution import (
    REFERENCE_FILE,
    Reference,
    compare_with_pretraining,
    expected_outside,
    load_reference,
    measure_reference,
    outside,
    percentiles,
    reconstruction_errors,
)
from neurt.evaluation import linear_interpolation
from neurt.loading import load_processor, shipped_model
from neurt.train import SplitOptions
from neurt.training.data import open_data
from torch import nn

PROCESSOR = NeurtProcessor(window_length=40)


class Predictor(nn.Module):
    """Reconstructs by a function of the batch, which must not look at what is hidden."""

    def __init__(self, reconstruct):
        super().__init__()
        self.reconstruct = reconstruct
        self.windows = 0

    def forward(self, input_values, bool_masked_pos, **rest):
        self.windows += len(input_values)
        hidden = bool_masked_pos if bool_masked_pos.ndim == 3 else bool_masked_pos.unsqueeze(-1)
        return SimpleNamespace(reconstruction=self.reconstruct(input_values, hidden))


def mean_of_visible(values, hidden):
    visible = ~hidden
    mean = (values * visible).sum(1, keepdim=True) / visible.sum(1, keepdim=True).clamp(min=1)
    return mean.expand_as(values)


def recording(traces, name="r", **options):
    rng = np.random.default_rng(0)
    centroids = 100 * rng.random((len(traces), 2))
    ids = tuple(map(str, range(len(traces))))
    options = {"centroids": centroids, "coordinate_unit": "um", **options}
    return Recording(traces.astype(np.float32), 5.0, name, "m", "s", ids, **options)


def white(seed, neurons=8, frames=400):
    return recording(np.random.default_rng(seed).normal(size=(neurons, frames)), f"white {seed}")


def slow(seed, neurons=8, frames=400):
    """Decaying with 10 frames, as calcium does."""
    steps, traces = np.random.default_rng(seed).normal(size=(neurons, frames)), np.zeros((neurons, frames))
    for t in range(1, frames):
        traces[:, t] = np.exp(-1 / 10) * traces[:, t - 1] + steps[:, t]
    return recording(traces, f"slow {seed}")


def errors_of(recordings, reconstruct=mean_of_visible, **options):
    return reconstruction_errors(Predictor(reconstruct), recordings, PROCESSOR, **options)


def test_the_error_is_relative_to_that_of_straight_lines():
    def lines(values, hidden):
        return torch.from_numpy(linear_interpolation(values.masked_fill(hidden.expand_as(values), torch.nan).numpy()))

    def half_way(values, hidden):
        return (values + lines(values, hidden)) / 2  # half the error, a quarter of its square

    found = reconstruction_errors(Predictor(lines), [white(0), slow(0)], PROCESSOR)
    assert found.tolist() == pytest.approx([1, 1])
    found = reconstruction_errors(Predictor(half_way), [white(0), slow(0)], PROCESSOR)
    assert found.tolist() == pytest.approx([0.25, 0.25])


def test_own_traces_alone_are_judged():
    def neighbours_wrong(values, hidden):
        return torch.cat([mean_of_visible(values, hidden)[..., :1], torch.full_like(values[..., 1:], 1e3)], dim=-1)

    assert errors_of([slow(0)], neighbours_wrong) == pytest.approx(errors_of([slow(0)]))


def test_white_noise_is_outside_of_slow_signals():
    reference = errors_of([slow(seed) for seed in range(1, 21)])
    found = errors_of([slow(0), white(0)])
    # The mean's error is the variance of white noise, a line's is that and what the two ends add, from 1.5 to 2 times
    # it; across gaps shorter than its memory a slow signal lies near the line.
    assert 0.5 < found[1] < 0.7 and found[0] > 1.2
    assert outside(percentiles(found, reference)).tolist() == [False, True]
    # And slow signals are outside of white noise.
    of_noise = errors_of([white(seed) for seed in range(1, 21)])
    assert outside(percentiles(found, of_noise)).tolist() == [True, False]


def test_percentiles_equal_hand_computed_shares():
    reference = np.array([3.0, 1, 2, 2])
    found = percentiles(np.array([0.5, 1, 2, 2.5, 9, np.nan]), reference)
    assert found[:5].tolist() == [0, 0.125, 0.5, 0.75, 1] and np.isnan(found[5])


def test_both_tails_and_what_is_not_known_are_outside():
    found = np.array([0.0, 0.004, 0.006, 0.5, 0.994, 0.996, 1.0, np.nan])
    assert outside(found).tolist() == [True, True, False, False, False, True, True, True]


def test_few_windows_are_enough_and_masks_depend_on_the_seed_alone():
    model = Predictor(mean_of_visible)
    large = slow(0, neurons=40)  # 40 × 10 windows
    first = reconstruction_errors(model, [large], PROCESSOR, seed=1)
    assert model.windows == 128
    assert errors_of([large], seed=1) == first != errors_of([large], seed=2)


def test_a_recording_without_windows_or_without_positions():
    unplaced = recording(slow(0).traces, centroids=None, coordinate_unit=None)
    constant = recording(np.ones((8, 400)))
    found = errors_of([unplaced, constant, slow(0)])
    assert np.isnan(found).tolist() == [True, True, False]
    found = errors_of([unplaced, slow(0)], missing_neighbours="mask")
    assert found[0] == found[1]


def test_a_real_model_gives_finite_errors(tiny_model):
    found = reconstruction_errors(tiny_model(), [slow(0), white(0)], PROCESSOR)
    assert np.isfinite(found).all() and (found > 0).all()


def test_the_smaller_the_reference_the_more_lie_beyond_its_ends():
    # Below all of 20 or above all: two of 21 places. Of 300, the tails of 0.5 % hold two places each.
    assert expected_outside(20) == pytest.approx(2 / 21) and expected_outside(300) == pytest.approx(4 / 301)
    rng = np.random.default_rng(0)
    draws = [outside(percentiles(rng.random(50), rng.random(20))).mean() for _ in range(400)]
    assert np.mean(draws) == pytest.approx(2 / 21, abs=0.01)


def data_of(build, test, **options):
    return open_data(build, PROCESSOR, SplitOptions(test=test, **options), seed=0)


def test_few_held_out_recordings_are_eked_out_with_those_of_the_training(build, tiny_model):
    data, model = data_of(build, ("sim005", "sim006"), validation_fraction=0.1), tiny_model()
    found = measure_reference(model, PROCESSOR, data, seed=3)
    measured_on = {"held_out_recordings": 4, "training_recordings": 6, "simulated": True, "seed": 3}
    assert found.measured_on == measured_on
    of_test, of_training = (data.split.recordings(list(read_build(build)), part) for part in ("test", "train"))
    expected = reconstruction_errors(model, [*of_test, *of_training], PROCESSOR, seed=3)
    assert found.errors.tolist() == expected.tolist()


def test_enough_held_out_recordings_are_the_reference_alone_and_at_most_so_many(build, tiny_model, monkeypatch):
    monkeypatch.setattr("neurt.distribution.FEWEST_HELD_OUT", 4)
    monkeypatch.setattr("neurt.distribution.MOST_RECORDINGS", 5)
    data = data_of(build, ("sim001", "sim005", "sim006"))
    found = measure_reference(tiny_model(), PROCESSOR, data)
    assert (found.measured_on["held_out_recordings"], found.measured_on["training_recordings"]) == (5, 0)
    of_test = data.split.recordings(list(read_build(build)), "test")
    expected = reconstruction_errors(tiny_model(), [of_test[place] for place in (0, 1, 2, 4, 5)], PROCESSOR)
    assert found.errors.tolist() == expected.tolist()


def test_there_is_no_reference_where_no_error_is_known(build, tiny_model, monkeypatch):
    monkeypatch.setattr("neurt.distribution._error", lambda *rest, **more: float("nan"))
    assert measure_reference(tiny_model(), PROCESSOR, data_of(build, ("sim006",))) is None


def test_a_reference_is_written_and_read_as_plain_numbers(tmp_path):
    Reference(np.array([1.23456, 0.5]), {"simulated": True}).save(tmp_path)
    contents = json.loads((tmp_path / REFERENCE_FILE).read_text())
    assert contents == {"errors": [0.5, 1.2346], "measured_on": {"simulated": True}}
    found = load_reference(tmp_path)
    assert found.errors.tolist() == [0.5, 1.2346] and found.measured_on == {"simulated": True}
    Reference(np.array([2.0]), {}).save(tmp_path)
    assert load_reference(tmp_path).errors.tolist() == [2]


def test_a_model_without_a_reference_has_none(tmp_path):
    assert load_reference(tmp_path) is None
    assert load_reference("nobody/has-this-model") is None


@pytest.mark.parametrize(
    "text",
    [
        '{"errors": [], "measured_on": {}}',
        '{"errors": ["a"], "measured_on": {}}',
        '{"errors": [1, NaN], "measured_on": {}}',
        '{"errors": [1]}',
        '{"errors": [1], "measured_on": 3}',
        "{}",
        "[1]",
        "no",
    ],
)
def test_a_reference_of_something_else_is_refused(tmp_path, text):
    (tmp_path / REFERENCE_FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{REFERENCE_FILE}: expected"):
        load_reference(tmp_path)


@pytest.fixture
def with_reference(pretrained, tmp_path):
    """Make a model folder whose pretraining gave certain errors."""

    def make(errors):
        folder = shutil.copytree(pretrained, tmp_path / "model", ignore=shutil.ignore_patterns("training"))
        Reference(np.array(errors), {"simulated": True}).save(folder)
        return folder

    return make


def test_recordings_are_placed_among_those_of_a_models_pretraining(with_reference):
    # A model that has hardly learnt is about as good as straight lines; constant traces give no windows.
    recordings = [slow(0), recording(np.ones((8, 400)), "constant")]
    found = compare_with_pretraining(with_reference([0.1] * 10 + [9.0] * 10), recordings, PROCESSOR)
    assert found.percentiles[0] == 0.5 and np.isnan(found.percentiles[1]) and found.outside == ["constant"]
    said = found.to_dict()
    assert said["recordings"]["slow 0"] == {"subject_id": "m", "percentile": 0.5, "outside": False}
    assert said["recordings"]["constant"]["outside"] and said["measured_on"] == {"simulated": True}
    assert said["expected_outside"] == pytest.approx(2 / 21)


def test_recordings_without_positions_are_compared_on_request(with_reference):
    folder, unplaced = with_reference([0.5, 1.0]), recording(slow(0).traces, centroids=None, coordinate_unit=None)
    assert compare_with_pretraining(folder, [unplaced], PROCESSOR).outside == ["r"]
    found = compare_with_pretraining(folder, [unplaced], PROCESSOR, missing_neighbours="mask")
    assert not np.isnan(found.percentiles[0])


def test_nothing_is_compared_without_a_reference_or_a_decoder(with_reference, classifier):
    folder = with_reference([1.0])
    (folder / REFERENCE_FILE).unlink()
    found = compare_with_pretraining(folder, [white(0)], PROCESSOR)
    assert found.outside == []
    assert found.to_dict() == {"not_measured": f"no {REFERENCE_FILE} lies beside the model's weights"}
    without = compare_with_pretraining(classifier, [white(0)], PROCESSOR)
    assert without.to_dict() == {"not_measured": "the model has no decoder to reconstruct with"}


def test_the_shipped_weights_come_with_errors_of_recordings_that_they_never_saw():
    found = load_reference(shipped_model())
    assert found.measured_on == {"held_out_recordings": 100, "training_recordings": 0, "simulated": True, "seed": 1}
    assert len(found.errors) == 100 and np.median(found.errors) < 0.9


def test_the_shipped_weights_find_square_waves_foreign_but_not_white_noise():
    rng = np.random.default_rng(0)
    noise, time = rng.normal(size=(20, 1000)), np.arange(1000) / 8
    square = np.sign(np.sin(np.pi * time + 6 * rng.random((20, 1)))) + 0.01 * noise
    made = [recording(noise, "white noise"), recording(square, "square waves")]
    found = compare_with_pretraining(shipped_model(), made, load_processor(shipped_model()))
    assert found.outside == ["square waves"]
