"""The benchmark's baselines equal closed forms, scikit-learn, or the same thing worked out another way."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from reconstruction_autoregression import (
    LARGEST_ROOT,
    fill_autoregression,
    fit_autoregression,
    lag_products,
    precision_matrix,
    pull_in,
    separated,
)
from reconstruction_smoothers import (
    copy_last,
    cubic_spline,
    gaussian_process,
    kernels,
    matern,
    most_likely_kernels,
    smooth_by_gaussian_process,
)

AR3 = np.array([0.9, -0.3, 0.2])


def simulate(coefficients, frames, seed=0):
    noise = np.random.default_rng(seed).normal(size=frames + 500)
    return lfilter([1], [1, *-np.asarray(coefficients)], noise)[500:]


def covariance(coefficients, frames):
    """Of a stationary autoregression, from its response to one innovation."""
    response = lfilter([1], [1, *-np.asarray(coefficients)], np.eye(1, 3000)[0])
    lags = [response[: 3000 - k] @ response[k:] for k in range(frames)]
    return np.array([[lags[abs(i - j)] for j in range(frames)] for i in range(frames)])


def generalised_mean(shown, covariance):
    """The mean by generalised least squares."""
    seen = ~np.isnan(shown)
    inverse = np.linalg.inv(covariance[np.ix_(seen, seen)])
    return (inverse @ shown[seen]).sum() / inverse.sum()


def kriged(shown, covariance):
    """Ordinary kriging: the conditional mean about the generalised mean."""
    seen, mean = ~np.isnan(shown), generalised_mean(shown, covariance)
    return mean + covariance[:, seen] @ np.linalg.solve(covariance[np.ix_(seen, seen)], shown[seen] - mean)


# Autoregression.


@pytest.mark.parametrize("coefficients", [[0.7], AR3, [1.2, -0.5, 0, 0.1]])
def test_the_precision_matrix_is_the_inverse_of_the_covariance(coefficients):
    expected = np.linalg.inv(covariance(coefficients, 20))
    np.testing.assert_allclose(precision_matrix(np.array([coefficients]), 20)[0], expected, atol=1e-8)


def test_gaps_in_a_first_order_process_follow_the_closed_form():
    shown = np.array([3.0, 1.0, np.nan, np.nan, np.nan, 5.0, 2.0, 4.0])
    phi, n = 0.8, 3
    filled = fill_autoregression(shown[None], np.array([[phi]]))[0]
    mean = generalised_mean(shown, covariance([phi], 8))
    # Such a process is a Markov chain, so a gap knows only its two ends; frame k of n weighs the one before it with
    # (phi^k - phi^(2(n + 1) - k)) / (1 - phi^(2(n + 1))), and the one after it as if counted from there.
    weights = np.array([(phi**k - phi ** (2 * (n + 1) - k)) / (1 - phi ** (2 * (n + 1))) for k in (1, 2, 3)])
    np.testing.assert_allclose(filled[2:5], mean + weights * (1 - mean) + weights[::-1] * (5 - mean))
    assert filled[[0, 1, 5, 6, 7]].tolist() == [3, 1, 5, 2, 4]


@pytest.mark.parametrize("coefficients", [[0.8, 0, 0], AR3])
@pytest.mark.parametrize(
    "hidden", [[4, 5, 6], [0, 1], [10, 11], [0, 3, 4, 9, 11]], ids=["inside", "start", "end", "several"]
)
def test_gaps_are_filled_with_the_conditional_mean_given_all_visible_frames(coefficients, hidden):
    shown = np.random.default_rng(0).normal(size=12) + 7
    shown[hidden] = np.nan
    filled = fill_autoregression(shown[None], np.array([coefficients]))[0]
    expected = kriged(shown, covariance(coefficients, 12))
    np.testing.assert_allclose(filled[hidden], expected[hidden], atol=1e-7)
    np.testing.assert_array_equal(np.delete(filled, hidden), np.delete(shown, hidden))


def test_series_with_fewer_hidden_frames_are_filled_as_if_alone():
    rng = np.random.default_rng(1)
    shown = rng.normal(size=(3, 30))
    shown[0, 5:8] = shown[1, 3] = shown[2, 10:] = np.nan
    coefficients = np.array([[0.5, 0.1], [0.9, 0], [0.3, 0.3]])
    together = fill_autoregression(shown, coefficients)
    for i in range(3):
        np.testing.assert_allclose(together[i], fill_autoregression(shown[i : i + 1], coefficients[i : i + 1])[0])


def test_coefficients_are_those_of_least_squares_on_lagged_frames():
    series = simulate(AR3, 400)
    products, count = lag_products(series[:, None], order=3)
    centred = series - series.mean()
    lagged = np.stack([centred[3 - k : 400 - k] for k in (1, 2, 3)], axis=1)
    expected = np.linalg.lstsq(lagged, centred[3:], rcond=None)[0]
    assert count == 397
    np.testing.assert_allclose(fit_autoregression(products[0], count, orders=(3,)), expected, atol=1e-6)


def test_the_order_is_as_large_as_the_series_needs():
    fits = {}
    for name, coefficients in {"noise": [0], "third": AR3}.items():
        products, count = lag_products(simulate(coefficients, 3000)[:, None], order=12)
        fits[name] = fit_autoregression(products[0], count)
    assert np.count_nonzero(fits["noise"]) == 1 and abs(fits["noise"][0]) < 0.05
    assert np.count_nonzero(fits["third"]) == 4
    np.testing.assert_allclose(fits["third"][:3], AR3, atol=0.06)


def test_products_reach_across_neither_hidden_frames_nor_segments():
    series = np.arange(20, dtype=float)[:, None] ** 2
    series[13] = np.nan
    products, count = lag_products(separated(series, [0, 6]), order=2)
    centred = series[:, 0] - np.nanmean(series)
    triples = [t for t in range(2, 20) if not {t, t - 1, t - 2} & {13} and not t - 2 < 6 <= t]
    assert count == len(triples) == 13
    expected = sum(np.outer(*[[centred[t], centred[t - 1], centred[t - 2]]] * 2) for t in triples)
    np.testing.assert_allclose(products[0], expected)


def test_explosive_processes_are_pulled_in_and_others_left_alone():
    assert pull_in(np.array([[1.05, 0.0], [0.5, 0.2]])).tolist() == [[pytest.approx(LARGEST_ROOT), 0], [0.5, 0.2]]
    roots = np.array([1.1 * np.exp(0.4j), 1.1 * np.exp(-0.4j), 0.5])
    pulled = np.roots([1, *-pull_in(-np.poly(roots).real[1:])])
    np.testing.assert_allclose(np.sort_complex(pulled), np.sort_complex(roots * LARGEST_ROOT / 1.1))


def test_a_constant_series_is_filled_with_its_constant():
    products, count = lag_products(np.full((100, 1), 3.0), order=12)
    shown = np.full((1, 40), 3.0)
    shown[0, 5:9] = np.nan
    np.testing.assert_allclose(fill_autoregression(shown, fit_autoregression(products, count)), 3)


# What knows nothing but the window.


def test_copy_last_equals_hand_computed_values():
    shown = np.array([np.nan, 1, np.nan, np.nan, 4, np.nan])[None, :, None]
    assert copy_last(shown).ravel().tolist() == [1, 1, 1, 1, 4, 4]
    assert copy_last(np.full((1, 3, 1), np.nan)).ravel().tolist() == [0, 0, 0]


def test_a_cubic_is_restored_exactly_and_the_ends_are_held():
    frames = np.arange(12.0)
    window = np.stack([frames**3 - 4 * frames**2, frames], axis=1)
    shown = window.copy()
    shown[[0, 4, 5, 8, 11]] = np.nan
    filled = cubic_spline(shown[None])[0]
    np.testing.assert_allclose(filled[[4, 5, 8]], window[[4, 5, 8]])
    np.testing.assert_allclose(filled[[0, 11]], window[[1, 10]])


@pytest.mark.parametrize("smoothness", [0.5, 1.5])
def test_gaussian_processes_equal_scikit_learns(smoothness):
    rng = np.random.default_rng(0)
    window = np.cumsum(rng.normal(size=(30, 2)), axis=0)
    hidden = [0, 6, 7, 8, 20, 29]
    shown = window.copy()
    shown[hidden] = np.nan
    smooth = gaussian_process(shown[None], matern(5.0, smoothness, 30), 0.3)[0]
    kernel = ConstantKernel(2.0) * Matern(5.0, nu=smoothness) + WhiteKernel(0.6)
    seen = np.setdiff1d(np.arange(30), hidden)
    mean = window[seen].mean(0)
    expected = GaussianProcessRegressor(kernel, alpha=0, optimizer=None).fit(seen[:, None], window[seen] - mean)
    np.testing.assert_allclose(smooth, mean + expected.predict(np.arange(30)[:, None]), atol=1e-8)


def test_the_kernel_is_the_one_that_scikit_learn_finds_likeliest():
    rng = np.random.default_rng(3)
    correlation = matern(8.0, 1.5, 60)
    window = np.linalg.cholesky(correlation + 0.3 * np.eye(60)) @ rng.normal(size=60)
    shown = window.copy()
    shown[[10, 11, 40]] = np.nan
    seen = ~np.isnan(shown)
    values = shown[seen] - shown[seen].mean()
    likelihoods = []
    for kernel, noise in kernels(60):
        matrix = (kernel + noise * np.eye(60))[np.ix_(seen, seen)]
        amplitude = values @ np.linalg.solve(matrix, values) / seen.sum()
        likelihoods.append(-0.5 * (seen.sum() * np.log(amplitude) + np.linalg.slogdet(matrix)[1]))
    assert most_likely_kernels(shown[None, :, None]) == [int(np.argmax(likelihoods))]
    # Windows without any activity say nothing about the kernel.
    silent = np.zeros_like(shown)[None, :, None]
    assert most_likely_kernels(np.concatenate([silent, shown[None, :, None]])) == [int(np.argmax(likelihoods))]


def test_each_channel_has_the_kernel_that_is_likeliest_there():
    rng = np.random.default_rng(4)
    smooth = np.linalg.cholesky(matern(32.0, 1.5, 60) + 1e-6 * np.eye(60)) @ rng.normal(size=(60, 3))
    shown = np.stack([smooth.T, rng.normal(size=(3, 60))], axis=2)
    shown[:, 20:25] = np.nan
    chosen = most_likely_kernels(shown)
    assert chosen[0] != chosen[1]
    both = smooth_by_gaussian_process(shown)
    for c in (0, 1):
        np.testing.assert_allclose(both[..., c], smooth_by_gaussian_process(shown[..., c : c + 1])[..., 0])
    assert np.abs(both[:, 20:25, 0] - smooth.T[:, 20:25]).max() < 0.1
