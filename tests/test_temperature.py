"""Temperatures, against those found by hand."""

import numpy as np
import pytest
from neurt.crossval.temperature import HIGHEST, LOWEST, fit_temperature
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression


def test_scores_become_as_sure_as_they_are_right():
    # Three of four are right: the log-odds of ±2 should be ±ln 3.
    logits, labels = np.array([2, 2, 2, 2, -2, -2, -2, -2.0]), np.array([1, 1, 1, 0, 0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(2 / np.log(3), rel=1e-4)
    assert fit_temperature(logits / 8, labels) == pytest.approx(0.25 / np.log(3), rel=1e-4)


def test_one_over_the_temperature_is_the_slope_of_a_logistic_regression_without_intercept():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 15)
    logits = 3 * rng.normal(size=30) + labels
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(logits[:, None], labels)
    assert fit_temperature(logits, labels) == pytest.approx(1 / model.coef_[0, 0], rel=1e-3)


def test_of_more_classes_no_other_temperature_gives_a_smaller_log_loss():
    rng = np.random.default_rng(1)
    labels = np.tile([0, 1, 2], 10)
    logits = 4 * rng.normal(size=(30, 3)) + 3 * np.eye(3)[labels]

    def log_loss(temperature):
        return -log_softmax(logits / temperature, axis=1)[np.arange(30), labels].mean()

    fitted = fit_temperature(logits, labels)
    assert log_loss(fitted) <= min(map(log_loss, np.geomspace(LOWEST, HIGHEST, 2000))) + 1e-9
    # What is added to all classes changes nothing.
    assert fit_temperature(logits + rng.normal(size=(30, 1)), labels) == pytest.approx(fitted, rel=1e-4)


def test_log_odds_are_logits_of_two_classes():
    log_odds, labels = np.array([3.0, -1, 2, -2]), np.array([1, 1, 0, 0])
    logits = np.stack([np.full(4, 7.0), 7 + log_odds], axis=1)
    assert fit_temperature(logits, labels) == pytest.approx(fit_temperature(log_odds, labels), rel=1e-4)


def test_what_nothing_limits_stays_within_bounds():
    labels = np.array([0, 0, 1, 1])
    assert fit_temperature(np.array([-2, -1, 1, 2.0]), labels) == pytest.approx(LOWEST, rel=1e-3)
    assert fit_temperature(np.array([2, 1, -1, -2.0]), labels) == pytest.approx(HIGHEST, rel=1e-3)


@pytest.mark.parametrize(("logits", "labels"), [([], []), ([1.0, np.inf], [0, 1])])
def test_nothing_to_fit_to_is_refused(logits, labels):
    with pytest.raises(ValueError, match="expected finite logits"):
        fit_temperature(logits, labels)
