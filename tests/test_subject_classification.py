"""Scores of windows, recordings and subjects, against values computed by hand."""

from pathlib import Path

import evaluate
import numpy as np
import pytest
from neurt.metrics.subject_classification import (
    mean_per_recording,
    mean_per_subject,
    scored_windows,
    subject_classification_scores,
)
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import brier_score_loss, log_loss, matthews_corrcoef, roc_auc_score

MODULE = Path(__file__).parents[1] / "metrics" / "subject_classification.py"

# Two animals of each group. Animal a has three windows in recording a1 and one in a2.
LOG_ODDS = [-1.0, -2.0, -3.0, 4.0, -5.0, 2.0, 1.0, -0.5]
LABELS = [0, 0, 0, 0, 0, 1, 1, 1]
RECORDINGS = ["a1", "a1", "a1", "a2", "b1", "c1", "c1", "d1"]
SUBJECTS = ["a", "a", "a", "a", "b", "c", "c", "d"]


def test_each_recording_counts_once_whatever_its_number_of_windows():
    recordings = mean_per_recording(scored_windows(LOG_ODDS, LABELS, RECORDINGS, SUBJECTS))
    assert recordings.recording_id == ("a1", "a2", "b1", "c1", "d1")
    assert recordings.log_odds == pytest.approx([-2, 4, -5, 1.5, -0.5])
    subjects = mean_per_subject(recordings)
    assert subjects.subject_id == ("a", "b", "c", "d")
    # a: (-2 + 4) / 2 = 1, while the mean of its four windows would be -0.5.
    assert subjects.log_odds == pytest.approx([1, -5, 1.5, -0.5])
    assert subjects.labels.tolist() == [0, 0, 1, 1]


def test_scores_of_the_three_levels_equal_hand_computed_values():
    result = subject_classification_scores(LOG_ODDS, LABELS, RECORDINGS, SUBJECTS)
    window, recording, subject = result["window"], result["recording"], result["subject"]
    assert (window["accuracy"], window["n"], window["n_per_class"]) == (6 / 8, 8, [5, 3])
    assert window["balanced_accuracy"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert window["roc_auc"] == pytest.approx((4 + 4 + 4) / 15)
    assert (recording["accuracy"], recording["n"]) == (3 / 5, 5)
    assert recording["roc_auc"] == pytest.approx((2 + 2) / 6)
    assert (subject["accuracy"], subject["balanced_accuracy"], subject["n"]) == (0.5, 0.5, 4)
    assert subject["roc_auc"] == pytest.approx((2 + 1) / 4)


def test_logits_and_their_log_odds_give_the_same_scores():
    logits = np.stack([np.full(8, 3.0), 3.0 + np.array(LOG_ODDS)], axis=1)
    result = subject_classification_scores(logits, LABELS, RECORDINGS, SUBJECTS)
    assert result == subject_classification_scores(LOG_ODDS, LABELS, RECORDINGS, SUBJECTS)


def test_the_order_of_windows_does_not_matter():
    order = np.random.default_rng(0).permutation(8)
    shuffled = [np.array(values)[order] for values in (LOG_ODDS, LABELS, RECORDINGS, SUBJECTS)]
    expected = subject_classification_scores(LOG_ODDS, LABELS, RECORDINGS, SUBJECTS)
    for level, scores in subject_classification_scores(*shuffled).items():
        assert scores.pop("n_per_class") == expected[level].pop("n_per_class")
        assert scores == pytest.approx(expected[level])


def scores_of(log_odds, labels):
    """Of animals with one window each."""
    names = [f"mouse {i}" for i in range(len(labels))]
    return subject_classification_scores(log_odds, labels, names, names)["subject"]


def test_probabilities_are_scored_as_by_hand():
    # Probabilities of class 1: 1/4, 3/4, 3/4, 1/2.
    scores = scores_of(np.log([1 / 3, 3, 3, 1]), [0, 0, 1, 1])
    assert scores["brier"] == pytest.approx((1 / 16 + 9 / 16 + 1 / 16 + 1 / 4) / 4)
    assert scores["log_loss"] == pytest.approx((np.log(4 / 3) + np.log(4) + np.log(4 / 3) + np.log(2)) / 4)
    assert scores["calibration_in_the_large"] == pytest.approx(9 / 16 - 1 / 2)
    # Even odds are decided as class 0: one of two is right in each class.
    assert scores["mcc"] == 0


def test_scores_of_two_classes_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [9, 14])
    log_odds = rng.normal(size=23) + labels
    scores = scores_of(log_odds, labels)
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(labels, log_odds > 0))
    assert scores["brier"] == pytest.approx(brier_score_loss(labels, expit(log_odds)))
    assert scores["log_loss"] == pytest.approx(log_loss(labels, expit(log_odds)))


@pytest.mark.parametrize("scale", [1e-3, 1, 50])
def test_the_calibration_slope_is_that_of_the_likeliest_logistic_curve(scale):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 12)
    log_odds = rng.normal(size=24) + labels

    def loss(curve):
        return np.logaddexp(0, -(2 * labels - 1) * (curve[0] + curve[1] * log_odds)).sum()

    slope = minimize(loss, [0, 1], tol=1e-10).x[1]
    assert scores_of(scale * log_odds, labels)["calibration_slope"] == pytest.approx(slope / scale, rel=1e-4)


def test_the_calibration_slope_is_one_where_the_probabilities_are_right_and_a_half_where_twice_too_sure():
    # Of four animals at each of two scores, one and three are of class 1: log-odds of -ln 3 and ln 3.
    labels, log_odds = [0, 0, 0, 1, 0, 1, 1, 1], np.repeat([-np.log(3), np.log(3)], 4)
    right, too_sure = scores_of(log_odds, labels), scores_of(2 * log_odds, labels)
    assert (right["calibration_slope"], right["calibration_in_the_large"]) == pytest.approx((1, 0), abs=1e-6)
    assert (too_sure["calibration_slope"], too_sure["calibration_undefined"]) == (pytest.approx(0.5), "")


@pytest.mark.parametrize(
    ("log_odds", "reason"),
    [
        ([-2, -1, 1, 2], "the scores of the classes do not overlap"),
        ([2, 1, 1, -2], "the scores of the classes do not overlap"),
        ([1, 1, 1, 1], "all scores are alike"),
    ],
)
def test_a_calibration_slope_that_nothing_limits_is_not_given(log_odds, reason):
    scores = scores_of(log_odds, [0, 0, 1, 1])
    assert np.isnan(scores["calibration_slope"]) and scores["calibration_undefined"] == reason
    assert scores["undefined"] == "" and np.isfinite(scores["calibration_in_the_large"])


def test_extreme_logits_stay_finite():
    result = subject_classification_scores([-1e4, 1e4], [0, 1], ["r", "s"], ["a", "b"])
    assert result["subject"]["roc_auc"] == 1
    assert result["subject"]["accuracy"] == result["subject"]["mcc"] == 1
    assert result["subject"]["brier"] == result["subject"]["log_loss"] == 0


def test_log_odds_of_zero_are_decided_as_class_0():
    result = subject_classification_scores([0.0, 0.0], [0, 1], ["r", "s"], ["a", "b"])
    assert result["subject"]["balanced_accuracy"] == 0.5
    assert result["subject"]["roc_auc"] == 0.5


def test_three_classes_average_log_probabilities_and_the_auc_one_against_the_rest():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 8)
    logits = generator.normal(size=(24, 3)) + np.eye(3)[labels]
    recordings, subjects = np.repeat(np.arange(12), 2), np.repeat(np.arange(6), 4)
    result = subject_classification_scores(logits, labels, recordings.astype(str), subjects.astype(str))

    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    means = log_probabilities.reshape(6, 2, 2, 3).mean(axis=2).mean(axis=1)
    probabilities = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    truth = labels[::4]
    expected = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert result["subject"]["roc_auc"] == pytest.approx(expected)
    subject = result["subject"]
    assert subject["accuracy"] == np.mean(means.argmax(axis=1) == truth)
    assert subject["mcc"] == pytest.approx(matthews_corrcoef(truth, means.argmax(axis=1)))
    assert subject["log_loss"] == pytest.approx(log_loss(truth, probabilities))
    one_by_one = [brier_score_loss(truth == k, probabilities[:, k]) for k in range(3)]
    assert subject["brier"] == pytest.approx(sum(one_by_one) / 2)
    assert np.isnan(subject["calibration_slope"]) and np.isnan(subject["calibration_in_the_large"])
    assert subject["calibration_undefined"] == "calibration is given for two classes only"


def test_one_class_leaves_what_needs_no_other_and_names_why_the_rest_is_undefined():
    result = subject_classification_scores([1.0, -1.0, 2.0], [1, 1, 1], ["r", "r", "s"], ["a", "a", "b"])
    for level, accuracy in {"window": 2 / 3, "recording": 1 / 2, "subject": 1 / 2}.items():
        assert result[level]["accuracy"] == pytest.approx(accuracy)
        for name in ("balanced_accuracy", "roc_auc", "mcc", "calibration_slope"):
            assert np.isnan(result[level][name])
        for name in ("brier", "log_loss", "calibration_in_the_large"):
            assert np.isfinite(result[level][name])
        assert result[level]["undefined"] == result[level]["calibration_undefined"] == "no unit of class 0"


@pytest.mark.parametrize(
    ("scores", "labels", "recordings", "subjects", "message"),
    [
        ([1.0, 2.0], [0, 1], ["r", "s"], ["a", "a"], "one label for subject 'a', got 0 and 1"),
        ([1.0, 2.0], [0, 0], ["r", "r"], ["a", "b"], "one subject for recording 'r', got 'a' and 'b'"),
        ([1.0, np.nan], [0, 1], ["r", "s"], ["a", "b"], "1 that are not, the first in recording 's'"),
        ([1.0, 2.0], [0, 2], ["r", "s"], ["a", "b"], "class ids from 0 to 1 as labels, got 0, 2"),
        ([1.0, 2.0], [0, -100], ["r", "s"], ["a", "b"], "got -100, 0; leave out windows"),
        ([1.0, 2.0], [0, 0.5], ["r", "s"], ["a", "b"], "class ids"),
        ([1.0, 2.0], ["WT", "AD"], ["r", "s"], ["a", "b"], "got 'AD', 'WT'"),
        ([1.0, 2.0], [0, 1], ["r"], ["a", "b"], "got 2, 2, 1, 2"),
        ([[1.0], [2.0]], [0, 1], ["r", "s"], ["a", "b"], "at least 2 classes"),
        ([], [], [], [], "expected log-odds"),
    ],
)
def test_bad_input_is_refused_in_one_line(scores, labels, recordings, subjects, message):
    with pytest.raises(ValueError, match=message) as error:
        subject_classification_scores(scores, labels, recordings, subjects)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("logits", [False, True])
def test_the_module_loads_by_path_and_gives_the_same_scores(logits, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    predictions = np.stack([np.zeros(8), LOG_ODDS], axis=1) if logits else LOG_ODDS
    metric = evaluate.load(str(MODULE), cache_dir=str(tmp_path))
    result = metric.compute(predictions=predictions, references=LABELS, recording_id=RECORDINGS, subject_id=SUBJECTS)
    assert result == subject_classification_scores(LOG_ODDS, LABELS, RECORDINGS, SUBJECTS)
