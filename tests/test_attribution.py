"""Attribution and ablation, against hand-computed numbers, a sum over points of the path, and planted channels."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neurt.dataset_scripts.recording import Recording
from neurt.explain import attribution
from neurt.explain.attribution import (
    STEPS_FOR_ORDER,
    attribute,
    channel_ablation,
    correlation,
    frame_ablation,
    integrated_gradients,
    mean_levels,
    neuron_importance,
)
from neurt.explain.explained import ExplainedWindows, log_odds_of
from neurt.explain.methods import METHODS, methods_for
from planted_windows import BUMP, FRAMES, new_classifier, planted_windows, trained_classifier

WEIGHTS = torch.tensor([1.0, -2.0, 0.5])


class WeightedSum(torch.nn.Module):
    """Logits of two classes: nothing, and a weighted sum of what is real and not hidden."""

    device = torch.device("cpu")

    def forward(self, input_values, attention_mask, bool_masked_pos=None, sampling_rate=None):
        seen = attention_mask.unsqueeze(-1).bool().expand_as(input_values)
        seen = seen if bool_masked_pos is None else seen & ~bool_masked_pos
        total = (torch.where(seen, input_values, 0.0) * WEIGHTS).sum((1, 2))
        return SimpleNamespace(logits=torch.stack([torch.zeros_like(total), total], dim=1))


@pytest.fixture
def windows():
    """Three windows of six frames and three channels, of two animals; of the second one frame is padding.

    The third channel is absent from the last window.
    """
    values = torch.arange(54.0).reshape(3, 6, 3) % 7
    real = torch.ones(3, 6, dtype=torch.long)
    real[1, 5] = 0
    absent = torch.zeros(3, 6, 3, dtype=torch.bool)
    absent[2, :, 2] = True
    values[1, 5], values[2, :, 2] = 0, 0
    return ExplainedWindows(
        inputs={"input_values": values, "attention_mask": real, "bool_masked_pos": absent},
        recording=np.array([0, 0, 1]),
        recording_ids=("r0", "r1"),
        subject_ids=("m0", "m1"),
        class_ids=np.array([0, 1]),
        roi_ids=("a", "c", "a"),
        neuron_index=np.array([0, 2, 0]),
        start_frame=np.array([0, 0, 0]),
    )


def channel_mean(windows, window, channel, frames=6):
    return windows.inputs["input_values"][window, :frames, channel].mean().item()


# Integrated gradients.


def test_values_of_a_linear_model_are_weights_times_distance_from_the_baseline(windows):
    level = np.array([1.0, 2.0, 3.0])
    found = attribute(WeightedSum(), windows, np.array([1, 1, 1]), baseline=level)
    expected = (windows.inputs["input_values"].numpy() - level) * WEIGHTS.numpy()
    expected[1, 5] = 0  # padding
    expected[2, :, 2] = 0  # absent
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found.of_channels, expected.sum(1), atol=1e-4)
    np.testing.assert_allclose(found.difference, expected.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found.completeness_error, 0, atol=1e-4)
    assert found.baseline == "a flat window, each channel at channel 0 1, channel 1 2, channel 2 3"


def test_the_baseline_is_the_mean_of_animals_over_what_is_visible(windows):
    # Of m0 the mean of its two windows, whatever their lengths; its two and m1's one window weigh the same.
    own = [(channel_mean(windows, 0, c) + channel_mean(windows, 1, c, frames=5)) / 2 for c in range(3)]
    expected = [(own[c] + channel_mean(windows, 2, c)) / 2 for c in range(2)]
    np.testing.assert_allclose(mean_levels(windows), [*expected, own[2]], rtol=1e-6)


def test_a_channel_that_is_absent_everywhere_has_a_level(windows):
    assert mean_levels(windows[np.array([2])])[2] == 0


def test_values_for_one_of_two_classes_are_minus_those_for_the_other(windows):
    for_one, for_other = (attribute(WeightedSum(), windows, np.full(3, target)) for target in (1, 0))
    np.testing.assert_allclose(for_one.values, -for_other.values, atol=1e-5)


def test_values_are_the_integral_of_the_gradient_along_the_path():
    model, windows = new_classifier(seed=3), planted_windows(animals=1, neurons=2).windows
    level, points, steps = torch.as_tensor(mean_levels(windows)), *np.polynomial.legendre.leggauss(40)
    values, expected = windows.inputs["input_values"], 0
    for point, step in zip((points + 1) / 2, steps / 2, strict=True):
        between = (level + point**3 * (values - level)).requires_grad_()
        logits = model(between, windows.inputs["attention_mask"]).logits
        (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), between)
        expected = expected + step * 3 * point**2 * gradient * (values - level)
    targets = np.ones(len(windows), dtype=int)
    np.testing.assert_allclose(attribute(model, windows, targets, steps=40).values, expected, atol=1e-5)
    of_frames = attribute(model, windows, targets, steps=STEPS_FOR_ORDER).values.sum(2)
    np.testing.assert_allclose(integrated_gradients(model, windows, targets), of_frames, atol=1e-6)


def test_values_sum_to_the_difference_in_log_odds_but_for_a_few_percent():
    windows = planted_windows(animals=2, neurons=4).windows
    found = attribute(trained_classifier(), windows, windows.classes)
    flat = torch.as_tensor(mean_levels(windows)).expand_as(windows.inputs["input_values"])
    visible, without = (
        log_odds_of(trained_classifier(), {**windows.inputs, "input_values": values}, windows.classes)
        for values in (windows.inputs["input_values"], flat)
    )
    errors = np.abs(found.values.sum((1, 2)) - (visible - without)) / np.median(np.abs(visible - without))
    assert found.relative_error == pytest.approx((np.median(errors), np.quantile(errors, 0.95)), rel=1e-3)
    assert found.relative_error[0] < 0.05
    assert f"median {found.relative_error[0]:.1%}" in found.summary and "its mean over 4 animals" in found.summary


@pytest.mark.filterwarnings("error")
def test_a_model_that_says_the_same_of_everything_has_nothing_to_attribute(windows):
    same = {**windows.inputs, "input_values": torch.ones(3, 6, 3)}
    found = attribute(WeightedSum(), dataclasses.replace(windows, inputs=same), np.ones(3, dtype=int))
    assert np.isnan(found.relative_error).all() and "nothing to attribute" in found.summary


def test_values_do_not_depend_on_the_size_of_batches(monkeypatch):
    model, windows = new_classifier(), planted_windows(animals=1, neurons=3).windows
    targets = windows.classes
    found = attribute(model, windows, targets)
    monkeypatch.setattr(attribution, "MOST_VALUES", 2 * 32 * FRAMES)
    batches = []
    again = attribute(model, windows, targets, progress=lambda parts: batches.extend(parts) or batches)
    assert len(batches) == len(windows) / 2
    np.testing.assert_allclose(found.values, again.values, atol=1e-5)


# Ablation.


def test_frames_of_a_span_share_what_its_hiding_takes(windows):
    found = frame_ablation(WeightedSum(), windows, np.array([1, 1, 0]), span=4)
    weighted = windows.inputs["input_values"].numpy() * WEIGHTS.numpy()
    expected = np.zeros((3, 6))
    for window, sign in enumerate((1, 1, -1)):
        for start, end in ((0, 4), (4, 5 if window == 1 else 6)):
            expected[window, start:end] = sign * weighted[window, start:end].sum() / (end - start)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ablation_of_a_channel_takes_what_it_gave(windows):
    found = channel_ablation(WeightedSum(), windows, np.array([1, 1, 1]))
    np.testing.assert_allclose(found, (windows.inputs["input_values"].numpy() * WEIGHTS.numpy()).sum(1), atol=1e-5)


def test_spans_of_padding_alone_are_passed_over(windows):
    short = windows[np.array([1])]
    found = frame_ablation(WeightedSum(), short, np.array([1]), span=5)
    assert found[0, 5] == 0 and found[0, :5].sum() == pytest.approx(log_odds_of(WeightedSum(), short.inputs, [1])[0])


def test_hiding_spans_finds_the_frames_that_tell():
    planted = planted_windows(animals=2, neurons=4)
    importance = frame_ablation(trained_classifier(), planted.windows, planted.windows.classes, span=BUMP)
    elsewhere = planted.windows.real & planted.neurons[:, None] & ~planted.frames
    assert importance[planted.frames].mean() > 3 * importance[elsewhere].mean()


@pytest.mark.parametrize("channel", [0, 3])
def test_the_channel_that_tells_is_named(channel):
    planted = planted_windows(animals=2, neurons=4, channel=channel)
    windows, model = planted.windows, trained_classifier(channel)
    of_channels = attribute(model, windows, windows.classes).of_channels
    for found in (of_channels, channel_ablation(model, windows, windows.classes)):
        assert found[planted.neurons].mean(0).argmax() == channel


# Without the model, and neuron by neuron.


def test_the_map_of_correlations_by_hand(windows):
    windows = windows[np.array([0, 1])]
    targets = np.array([1, 0])
    values = windows.inputs["input_values"].numpy().astype(float)
    lengths, signs = (6, 5), (1, -1)
    expected = np.zeros((2, 6))
    log_odds = log_odds_of(WeightedSum(), windows.inputs, np.array([1, 1]))
    for channel in range(3):
        seen = np.concatenate([values[window, :length, channel] for window, length in enumerate(lengths)])
        means = [values[window, :length, channel].mean() for window, length in enumerate(lengths)]
        r = np.corrcoef(means, log_odds)[0, 1]
        for window, length in enumerate(lengths):
            standard = (values[window, :length, channel] - seen.mean()) / seen.std()
            expected[window, :length] += signs[window] * r * standard
    np.testing.assert_allclose(correlation(WeightedSum(), windows, targets), expected, rtol=1e-4, atol=1e-5)


def test_some_windows_are_compared_with_all(windows):
    targets, methods = np.array([1, 0, 1]), methods_for(windows)
    for name in ("correlation alone", "integrated gradients"):
        one = np.array([1])
        whole = METHODS[name](WeightedSum(), windows, targets)
        np.testing.assert_allclose(methods[name](WeightedSum(), windows, targets), whole, atol=1e-5)
        np.testing.assert_allclose(methods[name](WeightedSum(), windows[one], targets[one]), whole[one], atol=1e-5)
        alone = METHODS[name](WeightedSum(), windows[one], targets[one])
        assert np.abs(alone - whole[one]).max() > 0.1


def test_channels_that_say_nothing_have_no_part_in_the_map_of_correlations(windows):
    inputs = {**windows.inputs, "input_values": windows.inputs["input_values"].clone()}
    inputs["input_values"][..., 1] = 4.0  # constant
    inputs["bool_masked_pos"] = torch.zeros(3, 6, 3, dtype=torch.bool)
    inputs["bool_masked_pos"][..., 2] = True  # absent
    both = ExplainedWindows(**{**vars(windows), "inputs": inputs})
    found = correlation(WeightedSum(), both, np.ones(3, dtype=int))
    own = inputs["input_values"][..., 0].numpy()
    assert np.isfinite(found).all() and found[0].std() > 0
    assert abs(np.corrcoef(found[0], own[0])[0, 1]) == pytest.approx(1)


def test_importance_of_neurons_is_the_mean_over_their_windows(windows):
    recording = Recording(
        traces=np.ones((4, 50), dtype=np.float32),
        sampling_rate=5.0,
        recording_id="r0",
        subject_id="m0",
        session_id="s",
        roi_ids=("a", "b", "c", "d"),
        accepted=np.array([True, True, True, False]),
    )
    twice = windows[np.array([0, 1, 2, 0])]
    found = neuron_importance(np.array([1.0, 5.0, 100.0, 4.0]), twice, recording)
    np.testing.assert_array_equal(found, [2.5, np.nan, 5.0])
