"""Ridge regression from sums of products equals scikit-learn's, and nobody is predicted from its own windows."""

import numpy as np
import pytest
import torch
from neurt.channel_baselines import (
    PENALTIES,
    early_and_late_sums,
    fit_ridge,
    lagged_features,
    ridge_sums,
    solve_ridge,
    squared_errors,
    total,
    whole_channel_baselines,
)
from neurt.masking import collate_windows
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def random_rows(n=200, features=6, targets=3, seed=0, noise=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, features)) * rng.uniform(0.1, 20, features) + rng.normal(size=features)
    y = x @ rng.normal(size=(features, targets)) + noise * rng.normal(size=(n, targets)) + 5
    return x, y


def apply(coefficients, x):
    return x @ coefficients[:-1] + coefficients[-1]


@pytest.mark.parametrize("penalty", [1e-4, 0.1, 10.0])
def test_ridge_equals_scikit_learns_on_standardised_features(penalty):
    x, y = random_rows()
    (coefficients,) = solve_ridge(ridge_sums(x, y), [penalty])
    expected = make_pipeline(StandardScaler(), Ridge(alpha=penalty * len(x))).fit(x, y)
    np.testing.assert_allclose(apply(coefficients, x), expected.predict(x), rtol=0, atol=1e-8)


def test_sums_of_parts_are_the_sums_of_all_and_can_be_taken_away_again():
    x, y = random_rows()
    whole, first, second = (ridge_sums(x[s], y[s]) for s in (slice(None), slice(60), slice(60, None)))
    for name, value in vars(whole).items():
        np.testing.assert_allclose(getattr(first + second, name), value)
        np.testing.assert_allclose(getattr(whole - first, name), getattr(second, name), atol=1e-8)


def test_squared_errors_from_sums_are_those_of_the_predictions():
    (x, y), (unseen, truth) = random_rows(), random_rows(seed=1)
    (coefficients,) = solve_ridge(ridge_sums(x, y), [0.1])
    expected = np.square(apply(coefficients, unseen) - truth).sum(0)
    np.testing.assert_allclose(squared_errors(ridge_sums(unseen, truth), coefficients), expected)


def test_the_penalty_of_each_target_is_the_one_that_predicts_later_rows_best():
    x, y = random_rows(n=80, features=30, targets=4, noise=3.0)
    y[:, 0] = np.random.default_rng(2).normal(size=80)  # nothing to be learnt
    early, late = early_and_late_sums(x, y)
    coefficients = fit_ridge(early, late)
    best = []
    for k in range(4):
        errors = []
        for penalty in PENALTIES:
            model = make_pipeline(StandardScaler(), Ridge(alpha=penalty * 60)).fit(x[:60], y[:60, k])
            errors.append(np.square(model.predict(x[60:]) - y[60:, k]).sum())
        best.append(PENALTIES[int(np.argmin(errors))])
        expected = make_pipeline(StandardScaler(), Ridge(alpha=best[-1] * 80)).fit(x, y[:, k])
        np.testing.assert_allclose(apply(coefficients, x)[:, k], expected.predict(x), atol=1e-7)
    assert best[0] == max(best) and len(set(best)) > 1


def test_a_feature_that_never_varies_has_no_say():
    x, y = random_rows(n=50)
    constant = np.full((50, 1), 0.1)
    (coefficients,) = solve_ridge(ridge_sums(np.concatenate([constant, x], axis=1), y), [1e-9])
    assert (coefficients[0] == 0).all()
    np.testing.assert_allclose(apply(coefficients[1:], x), LinearRegression().fit(x, y).predict(x), atol=1e-4)


def test_lags_are_channel_by_channel_and_repeat_the_ends():
    channels = np.array([[1, 10], [2, 20], [3, 30]], dtype=float)
    assert lagged_features(channels, lags=1).tolist() == [
        [1, 1, 2, 10, 10, 20],
        [1, 2, 3, 10, 20, 30],
        [2, 3, 3, 20, 30, 30],
    ]


class Windows(torch.utils.data.Dataset):
    """Windows whose own trace is the near mean two frames ago times a gain, and an offset, of each animal."""

    def __init__(self, gains, one_animal=False, frames=80):
        rng = np.random.default_rng(0)
        self.windows = []
        for animal, gain in enumerate(gains):
            for neuron in range(3):
                values = rng.normal(size=(frames, 5)).astype(np.float32)
                values[2:, 0] = gain * values[:-2, 1] + gain
                values[60:] = 0
                self.windows.append(
                    {
                        "input_values": values,
                        "attention_mask": (np.arange(frames) < 60).astype(np.int64),
                        "subject_id": "a" if one_animal else f"m{animal}",
                        "recording_id": f"r{animal}",
                        "roi_id": str(neuron),
                    }
                )

    def __len__(self):
        return len(self.windows)

    def __getitem__(self, index):
        return self.windows[index]


@pytest.mark.parametrize(("one_animal", "whose"), [(False, "animals"), (True, "recordings")])
def test_baselines_of_whole_channels_are_fitted_to_others(one_animal, whose):
    dataset = Windows([2, 2, 5], one_animal)
    baselines = whole_channel_baselines(dataset, "neuron")
    assert list(baselines) == [f"ridge, other {whose}", f"mean, other {whose}"]
    batch = collate_windows([dataset[8]])  # of the animal whose gain is 5; the others' is 2
    predicted = baselines[f"ridge, other {whose}"](batch)
    near = batch["input_values"][0, :, 1].numpy()
    # The first two frames of each window do not follow the rule, so the fit is not exact.
    assert np.polyfit(near[8:48], predicted[0, 10:50, 0], 1) == pytest.approx([2, 2], abs=0.15)
    assert np.corrcoef(near[8:48], predicted[0, 10:50, 0])[0, 1] > 0.99
    assert (predicted[..., 1:] == 0).all() and (predicted[0, 60:] == 0).all()
    others = np.concatenate([window["input_values"][:60, 0] for window in dataset.windows[:6]])
    np.testing.assert_allclose(baselines[f"mean, other {whose}"](batch)[0, :, 0], others.mean(), rtol=1e-5)


def test_windows_of_one_neuron_leave_nobody_to_fit_to():
    dataset = Windows([2])
    dataset.windows = dataset.windows[:1]
    with pytest.raises(ValueError, match="windows of several neurons, to fit the baselines of 'neuron'"):
        whole_channel_baselines(dataset, "neuron")


def test_totals_add_early_to_early_and_late_to_late():
    pairs = [early_and_late_sums(*random_rows(n=40, seed=seed)) for seed in (0, 1, 2)]
    early, late = total(pairs)
    assert (early.n, late.n) == (90, 30)
    np.testing.assert_allclose(early.xy, sum(first.xy for first, _ in pairs))
