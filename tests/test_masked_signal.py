"""Scores at hidden positions, against values computed by hand and by scikit-learn."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from neurt.metrics.masked_signal import masked_signal_scores, masked_sums, merge_sums, scores
from scipy.spatial.distance import cosine
from sklearn.metrics import mean_absolute_error, r2_score

MODULE = Path(__file__).parents[1] / "metrics" / "masked_signal.py"


def windows(*traces):
    """One-channel windows (B, T, 1)."""
    return np.array(traces, dtype=float)[..., None]


def random_windows(num_windows=7, seed=0):
    generator = np.random.default_rng(seed)
    references = generator.normal(size=(num_windows, 20, 3)) + 5 * generator.normal(size=(num_windows, 1, 3))
    predictions = references + generator.normal(size=references.shape)
    return predictions, references, generator.random(references.shape) < 0.4


def test_scores_equal_hand_computed_values():
    references = windows([1, 3, 100], [5, 7, 100])
    predictions = windows([2, 3, 0], [5, 5, 0])
    mask = windows([1, 1, 0], [1, 1, 0]).astype(bool)
    # Errors 1, 0, 0, -2. Mean 4: deviations -3, -1, 1, 3. Window means 2 and 6: deviations -1, 1, -1, 1.
    result = masked_signal_scores(predictions, references, mask)
    assert result["n"] == [4]
    assert result["r2"] == pytest.approx([1 - 5 / 20])
    assert result["r2_within"] == pytest.approx([1 - 5 / 4])
    assert result["mae"] == pytest.approx([3 / 4])
    assert result["squared_error"] == pytest.approx([5 / 4])
    # Product 2 + 9 + 25 + 35; squares 4 + 9 + 25 + 25 and 1 + 9 + 25 + 49.
    assert result["cosine"] == pytest.approx([71 / np.sqrt(63 * 84)])


def test_pooled_scores_equal_those_of_scikit_learn_and_scipy():
    predictions, references, mask = random_windows()
    result = masked_signal_scores(predictions, references, mask)
    for c in range(3):
        truth, predicted = references[..., c][mask[..., c]], predictions[..., c][mask[..., c]]
        assert result["r2"][c] == pytest.approx(r2_score(truth, predicted))
        assert result["mae"][c] == pytest.approx(mean_absolute_error(truth, predicted))
        assert result["cosine"][c] == pytest.approx(1 - cosine(truth, predicted))


def test_r2_within_window_equals_r2_of_targets_centred_window_by_window():
    predictions, references, mask = random_windows()
    centres = np.where(mask, references, np.nan)
    centres = np.nanmean(centres, axis=1, keepdims=True)
    result = masked_signal_scores(predictions, references, mask)
    for c in range(3):
        truth = (references - centres)[..., c][mask[..., c]]
        predicted = (predictions - centres)[..., c][mask[..., c]]
        assert result["r2_within"][c] == pytest.approx(r2_score(truth, predicted))
        assert result["r2_within"][c] < result["r2"][c]


def test_batches_of_any_size_add_up_to_the_scores_of_the_whole():
    predictions, references, mask = random_windows(num_windows=9)
    mask[:2, :, 1] = False  # a channel that the first batch does not have
    sums = masked_sums(predictions[:2], references[:2], mask[:2])
    for batch in (slice(2, 3), slice(3, 3), slice(3, 9)):
        sums = merge_sums(sums, masked_sums(predictions[batch], references[batch], mask[batch]))
    whole = scores(masked_sums(predictions, references, mask))
    for name, values in scores(sums).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-12)


def test_a_large_offset_costs_no_digits():
    predictions, references, mask = random_windows()
    plain = masked_signal_scores(predictions, references, mask)
    offset = 1e8  # its square leaves no digit of a double for deviations of 1
    shifted = [
        masked_sums(predictions[i : i + 1] + offset, references[i : i + 1] + offset, mask[i : i + 1]) for i in range(7)
    ]
    merged = shifted[0]
    for sums in shifted[1:]:
        merged = merge_sums(merged, sums)
    for name in ("r2", "r2_within"):
        np.testing.assert_allclose(scores(merged)[name], plain[name], rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e6 + 0.1, 0.0])
def test_a_constant_reference_has_no_r2(value):
    references = np.full((3, 7, 1), value)
    result = masked_signal_scores(references + 1, references, np.ones(references.shape, bool))
    assert np.isnan(result["r2"]).all() and np.isnan(result["r2_within"]).all()
    assert result["mae"] == pytest.approx([1])


def test_nan_references_are_never_scored():
    predictions, references, mask = random_windows()
    expected = masked_signal_scores(predictions, references, mask & (np.arange(20) != 4)[:, None])
    references[:, 4] = np.nan
    assert masked_signal_scores(predictions, references, mask) == expected


def test_values_outside_the_mask_change_nothing():
    predictions, references, mask = random_windows()
    expected = masked_signal_scores(predictions, references, mask)
    for value in (np.nan, 1e6, np.inf):
        changed = masked_signal_scores(np.where(mask, predictions, value), np.where(mask, references, value), mask)
        assert changed == expected


def test_a_channel_with_nothing_scored_is_nan_and_leaves_the_others_alone():
    predictions, references, mask = random_windows()
    expected = masked_signal_scores(predictions, references, mask)
    mask[..., 1] = False
    result = masked_signal_scores(predictions, references, mask)
    assert result["n"][1] == 0
    for name in ("r2", "r2_within", "mae", "squared_error", "cosine"):
        assert np.isnan(result[name][1])
        assert result[name][::2] == expected[name][::2]


def test_a_nan_prediction_is_not_hidden():
    predictions, references, mask = random_windows()
    predictions[0, mask[0, :, 0].argmax(), 0] = np.nan
    result = masked_signal_scores(predictions, references, mask)
    assert np.isnan([result[name][0] for name in ("r2", "r2_within", "mae", "squared_error", "cosine")]).all()
    assert np.isfinite(result["r2"][1:]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, r, m: (p[:1], r, m), "one shape"),
        (lambda p, r, m: (p, r, m[..., 0]), "mask of shape"),
        (lambda p, r, m: ([[[1.0]], [[1.0], [2.0]]], r, m), "different lengths"),
        (lambda p, r, m: (p, np.where(m, np.inf, r), m), "infinite"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        masked_signal_scores(*change(*random_windows()))
    assert "\n" not in str(error.value)


def test_the_module_loads_by_path_and_gives_the_same_scores(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    predictions, references, mask = random_windows()
    references[0, 0] = np.nan
    metric = evaluate.load(str(MODULE), cache_dir=str(tmp_path))
    result = metric.compute(predictions=predictions, references=references, mask=mask)
    assert result == masked_signal_scores(predictions, references, mask)
