"""A model's scores beside its baselines: what is measured, on what, and that nothing hidden is looked at."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neurt.evaluation import (
    BASELINES,
    FORECAST_BASELINES,
    evaluate_classification,
    evaluate_reconstruction,
    linear_interpolation,
    reconstruction_examples,
    shown_values,
    visible_mean,
)
from scipy.stats import pearsonr
from sklearn.metrics import r2_score
from torch import nn


class FixedModel(nn.Module):
    """Reconstructs a constant; its logits are the first frame's first channel and that number's opposite."""

    config = SimpleNamespace(id2label={0: "wild type", 1: "5xFAD"}, default_sampling_rate=10.0)

    def __init__(self, constant=0.5):
        super().__init__()
        self.constant = constant
        self.dropout = nn.Dropout(0.5)
        self.inputs = []

    def forward(self, **inputs):
        assert not self.training and not torch.is_grad_enabled()
        self.inputs.append(set(inputs))
        values = inputs["input_values"]
        evidence = values[:, 0, 0]
        return SimpleNamespace(
            reconstruction=torch.full_like(values, self.constant), logits=torch.stack([-evidence, evidence], dim=1)
        )


def masked_batch(num_windows=6, num_frames=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(num_windows, num_frames, 5, generator=generator)
    hidden = torch.rand(num_windows, num_frames, generator=generator) < 0.3
    return {
        "input_values": values,
        "attention_mask": torch.ones(num_windows, num_frames, dtype=torch.long),
        "bool_masked_pos": hidden,
        "labels": values.clone(),
        "sampling_rate": torch.full((num_windows,), 6.0),
        "neuron_index": torch.arange(num_windows) // 2,
        "recording_id": [f"{seed}-{i % 2}" for i in range(num_windows)],
        "subject_id": [f"mouse {i % 2}" for i in range(num_windows)],
    }


def interpolate_one_by_one(values, visible):
    """The same interpolation by `numpy.interp`, one channel of one window at a time."""
    filled = values.copy()
    for b, c in np.ndindex(values.shape[0], values.shape[2]):
        seen = np.flatnonzero(visible[b, :, c])
        line = np.interp(np.arange(values.shape[1]), seen, values[b, seen, c]) if len(seen) else 0
        filled[b, :, c] = line
    return filled


def test_interpolation_of_one_trace_equals_hand_computed_values():
    shown = np.array([np.nan, 1, np.nan, np.nan, 4, 2, np.nan, np.nan])[None, :, None]
    filled = linear_interpolation(shown)
    assert filled[0, :, 0] == pytest.approx([1, 1, 2, 3, 4, 2, 2, 2])
    assert np.isnan(shown[0, 0, 0])


@pytest.mark.parametrize("share", [0.15, 0.9, 1.0])
def test_interpolation_equals_numpy_interp_channel_by_channel(share):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(40, 30, 5)).astype(np.float32)
    hidden = generator.random(values.shape) < share
    filled = linear_interpolation(np.where(hidden, np.float32(np.nan), values))
    assert filled.dtype == np.float32
    np.testing.assert_allclose(filled, interpolate_one_by_one(values, ~hidden), atol=1e-6)


@pytest.mark.parametrize("baseline", [*BASELINES.values(), *FORECAST_BASELINES.values()])
def test_baselines_never_look_at_hidden_or_padded_values(baseline):
    batch = masked_batch(num_windows=10, num_frames=30)
    real = torch.arange(30) < torch.randint(10, 31, (10, 1), generator=torch.Generator().manual_seed(1))
    batch["attention_mask"] = real.long()
    expected = baseline(batch)
    unseen = batch["bool_masked_pos"] | ~real
    for value in (1e6, np.nan, np.inf):
        changed = baseline({**batch, "input_values": batch["input_values"].masked_fill(unseen.unsqueeze(-1), value)})
        np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("baseline", [linear_interpolation, visible_mean])
def test_baselines_are_zero_where_a_channel_is_hidden_throughout(baseline):
    shown = np.full((2, 8, 5), 7.0)
    shown[0, :, 3] = np.nan
    filled = baseline(shown)
    assert (filled[0, :, 3] == 0).all()
    assert (np.delete(filled[0], 3, axis=1) == 7).all() and (filled[1] == 7).all()


def test_a_baseline_is_shown_visible_real_values_alone():
    values = torch.tensor([1.0, 100, 3, 100])[None, :, None]
    batch = {"input_values": values, "bool_masked_pos": torch.tensor([[False, True, False, False]])}
    np.testing.assert_array_equal(shown_values(batch).ravel(), [1, np.nan, 3, 100])
    batch["attention_mask"] = torch.tensor([[1, 1, 1, 0]])
    np.testing.assert_array_equal(shown_values(batch).ravel(), [1, np.nan, 3, np.nan])
    assert visible_mean(shown_values(batch)).ravel().tolist() == [2, 2, 2, 2]
    assert linear_interpolation(shown_values(batch)).ravel().tolist() == [1, 2, 3, 3]


def test_the_model_stands_beside_its_baselines_on_the_same_values():
    batches = [masked_batch(seed=seed) for seed in range(3)]
    result = evaluate_reconstruction(FixedModel(), batches, simulated=True, seed=4)
    assert len(result.rows) == 3 * 5
    values = np.concatenate([batch["input_values"].numpy() for batch in batches])
    hidden = np.concatenate([batch["bool_masked_pos"].numpy() for batch in batches])
    truth = values[hidden]
    line = interpolate_one_by_one(values, ~np.broadcast_to(hidden[..., None], values.shape))[hidden]
    for c, channel in enumerate(("own", "near mean", "near SD", "far mean", "far SD")):
        model, interpolation = result.row("model", channel), result.row("linear interpolation", channel)
        assert model["n"] == interpolation["n"] == result.row("window mean", channel)["n"] == hidden.sum()
        assert model["r2"] == pytest.approx(r2_score(truth[:, c], np.full(hidden.sum(), 0.5)))
        assert model["mae"] == pytest.approx(np.abs(truth[:, c] - 0.5).mean())
        assert interpolation["r2"] == pytest.approx(r2_score(truth[:, c], line[:, c]), rel=1e-5)


def test_padded_frames_and_nan_labels_are_not_scored():
    batch = masked_batch()
    batch["attention_mask"][:, 20:] = 0
    batch["labels"][0] = torch.nan
    absent = torch.zeros(6, 24, 5, dtype=torch.bool)
    absent[..., 4] = True
    batch["bool_masked_pos"] = batch["bool_masked_pos"].unsqueeze(-1) | absent
    batch["labels"][..., 4] = torch.nan
    result = evaluate_reconstruction(FixedModel(), [batch], simulated=False)
    assert result.row("model", "own")["n"] == batch["bool_masked_pos"][1:, :20, 0].sum()
    assert result.row("model", "far SD")["n"] == 0
    assert np.isnan(result.row("model", "far SD")["r2"])
    assert "| own | model |" in result.to_markdown() and "far SD" not in result.to_markdown()


def test_the_targets_are_the_labels_where_there_are_any():
    batch = masked_batch()
    batch["labels"] = torch.full_like(batch["labels"], 0.5)
    assert evaluate_reconstruction(FixedModel(), [batch], simulated=False).row("model")["mae"] == 0
    del batch["labels"]
    assert evaluate_reconstruction(FixedModel(), [batch], simulated=False).row("model")["mae"] > 0.1


def test_a_result_says_what_it_was_measured_on():
    result = evaluate_reconstruction(FixedModel(), [masked_batch(seed=s) for s in (0, 1)], simulated=True, seed=4)
    measured = result.measured_on
    assert (measured.num_windows, measured.num_recordings, measured.subjects) == (12, 4, ("mouse 0", "mouse 1"))
    assert measured.num_neurons == 2 * 6  # each batch has one window of each of three neurons in two recordings
    expected = "Simulated data: 12 windows, 12 neurons, 4 recordings, 2 subjects, seed 4."
    assert result.to_markdown().splitlines()[-1] == expected


def test_batches_without_identities_are_scored_and_not_counted():
    batch = {name: masked_batch()[name] for name in ("input_values", "bool_masked_pos")}
    result = evaluate_reconstruction(FixedModel(), [batch], simulated=False)
    assert str(result.measured_on) == "Measured on: 6 windows"
    assert result.to_dict()["measured_on"]["num_neurons"] is None


def test_results_are_strict_json():
    batch = masked_batch()
    batch["labels"][..., 1] = torch.nan
    result = evaluate_reconstruction(FixedModel(), [batch], simulated=False).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["rows"][1]["r2"] is None


def test_only_model_inputs_reach_the_model_and_labels_are_not_among_them():
    model = FixedModel()
    evaluate_reconstruction(model, [masked_batch()], simulated=False)
    assert model.inputs == [{"input_values", "attention_mask", "bool_masked_pos", "sampling_rate"}]


def test_modules_return_to_the_mode_they_were_in():
    model = nn.Sequential(FixedModel())
    model.forward = lambda **inputs: model[0](**inputs)
    model.train()
    model[0].dropout.eval()
    evaluate_reconstruction(model, [masked_batch()], simulated=False)
    assert model.training and model[0].training and not model[0].dropout.training
    with pytest.raises(ValueError):
        evaluate_reconstruction(model, [{"input_values": torch.zeros(1, 8, 5)}], simulated=False)
    assert model.training and not model[0].dropout.training


def test_no_windows_and_no_mask_are_refused():
    with pytest.raises(ValueError, match="at least one window"):
        evaluate_reconstruction(FixedModel(), [], simulated=False)
    with pytest.raises(ValueError, match="at least one window"):
        evaluate_classification(FixedModel(), [], simulated=False)
    with pytest.raises(ValueError, match="batches with bool_masked_pos"):
        evaluate_reconstruction(FixedModel(), [{"input_values": torch.zeros(1, 8, 5)}], simulated=False)
    with pytest.raises(ValueError, match="batches with labels, recording_id, subject_id"):
        evaluate_classification(FixedModel(), [{"input_values": torch.zeros(1, 8, 5)}], simulated=False)


def test_a_bfloat16_model_is_scored():
    batch = masked_batch()
    batch["input_values"] = batch["input_values"].bfloat16()
    batch["labels"] = batch["labels"].bfloat16()
    assert evaluate_reconstruction(FixedModel(), [batch], simulated=False).row("model")["n"] > 0


def test_examples_are_evenly_spaced_windows_without_padding():
    batch = masked_batch(num_windows=7)
    batch["attention_mask"][3, 10:] = 0
    batch["sampling_rate"][6] = torch.nan
    first, middle, last = reconstruction_examples(FixedModel(), batch, count=3)
    assert first.truth == pytest.approx(batch["input_values"][0, :, 0].numpy())
    assert middle.truth == pytest.approx(batch["input_values"][3, :10, 0].numpy())
    assert (middle.hidden == batch["bool_masked_pos"][3, :10].numpy()).all()
    assert (last.reconstruction == 0.5).all()
    assert pearsonr(last.interpolation[~last.hidden], last.truth[~last.hidden]).statistic == pytest.approx(1)
    assert (first.sampling_rate, last.sampling_rate) == (6, 10)
    assert len(reconstruction_examples(FixedModel(), masked_batch(num_windows=2), count=4)) == 2


def classification_batch(evidence, labels, recordings, subjects):
    values = torch.zeros(len(evidence), 8, 5)
    values[:, 0, 0] = torch.tensor(evidence)
    return {
        "input_values": values,
        "labels": torch.tensor(labels),
        "recording_id": recordings,
        "subject_id": subjects,
    }


def test_subjects_are_scored_from_windows_spread_over_batches():
    batches = [
        classification_batch([-1.0, -2.0], [0, 0], ["a1", "a1"], ["a", "a"]),
        classification_batch([-3.0, 4.0, 1.0], [0, 0, 1], ["a1", "a2", "c1"], ["a", "a", "c"]),
    ]
    result = evaluate_classification(FixedModel(), batches, simulated=True, seed=1)
    # The log-odds are twice the evidence: a1 -4, a2 8, so subject a 2, wrongly; c 2.
    assert [row["level"] for row in result.rows] == 2 * ["window", "recording", "subject"]
    assert (result.row("window")["accuracy"], result.row("window")["n"]) == (4 / 5, 5)
    assert result.row("subject")["accuracy"] == 0.5
    assert [s["subject_id"] for s in result.subjects] == ["a", "c"]
    assert [s["log_odds"] for s in result.subjects] == pytest.approx([2, 2])
    assert [s["margin"] for s in result.subjects] == pytest.approx([-2, 2])
    assert [s["num_recordings"] for s in result.subjects] == [2, 1]
    assert result.class_names == ("wild type", "5xFAD")
    assert "Simulated data: 5 windows, 3 recordings, 2 subjects, seed 1." in result.to_markdown()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


def test_always_saying_the_larger_class_stands_beside_the_model():
    evidence, labels, subjects = [-1.0, 2.0, 3.0, 4.0], [0, 0, 1, 0], ["a", "a", "b", "c"]
    batch = classification_batch(evidence, labels, ["a1", "a2", "b1", "c1"], subjects)
    result = evaluate_classification(FixedModel(), [batch], simulated=False)
    windows, animals = (result.row(level, "always the larger class") for level in ("window", "subject"))
    assert (windows["accuracy"], animals["accuracy"]) == (3 / 4, 2 / 3)
    assert (windows["roc_auc"], windows["balanced_accuracy"], windows["n_per_class"]) == (0.5, 0.5, [3, 1])
    # Brier score of the shares: 3/4 x (1/4)² + 1/4 x (3/4)².
    assert windows["brier"] == pytest.approx(3 / 16)
    alone = evaluate_classification(FixedModel(), [classification_batch([1.0], [1], ["r"], ["a"])], simulated=False)
    assert alone.row("subject", "always the larger class")["accuracy"] == 1
    assert np.isnan(alone.row("subject", "always the larger class")["roc_auc"])


def test_one_class_is_reported_as_undefined_and_not_as_a_score():
    batch = classification_batch([1.0, 2.0], [1, 1], ["r", "s"], ["a", "b"])
    result = evaluate_classification(FixedModel(), [batch], simulated=False)
    assert result.row()["accuracy"] == 1
    assert "subject: no unit of class 0" in result.to_markdown()
    assert result.to_dict()["rows"][2]["roc_auc"] is None


def test_a_subject_in_two_groups_is_refused():
    batch = classification_batch([1.0, 2.0], [0, 1], ["r", "s"], ["a", "a"])
    with pytest.raises(ValueError, match="one label for subject 'a'"):
        evaluate_classification(FixedModel(), [batch], simulated=False)
