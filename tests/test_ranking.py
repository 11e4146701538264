"""The order of subjects within folds, against hand-counted pairs, scikit-learn and scipy."""

import itertools

import numpy as np
import pytest
from neurt.crossval.ranking import auc_within_folds, pairs_within_folds
from scipy.special import log_softmax
from scipy.stats import kendalltau
from sklearn.metrics import roc_auc_score

TARGETS = np.array([0, 1, 0, 1, 1, 0])


def test_only_pairs_within_a_fold_are_counted_and_ties_half():
    tests = [np.array([0, 1, 2]), np.array([3, 4, 5])]
    # First fold: 1 beats 0 and ties with 2. Second: 3 beats 5, 4 does not.
    scores = [np.array([-1.0, 2, 2]), np.array([100.0, 50, 70])]
    assert auc_within_folds(tests, scores, TARGETS) == (1 + 0.5 + 1 + 0) / 4
    # What the folds' scores have in common does not matter.
    assert auc_within_folds(tests, [scores[0] + 1e3, scores[1] - 1e3], TARGETS) == (1 + 0.5 + 1 + 0) / 4


def test_one_fold_gives_the_auc_of_scikit_learn():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], [7, 12])
    scores = np.round(rng.normal(size=19) + targets, 1)
    expected = pytest.approx(roc_auc_score(targets, scores))
    order = rng.permutation(19)
    assert auc_within_folds([order], [scores[order]], targets) == expected
    log_probabilities = log_softmax(np.stack([0 * scores, scores], axis=1), axis=1)
    assert auc_within_folds([order], [log_probabilities[order]], targets) == expected


def test_leave_pair_out_is_the_share_of_pairs_in_the_right_order():
    pairs = [[0, 1], [1, 2], [4, 5]]
    assert auc_within_folds(pairs, [np.array(s) for s in ([0, 1.0], [2.0, 0], [0, 0])], TARGETS) == 2.5 / 3


def test_a_pair_counts_each_time_that_it_is_compared():
    # 1 beats 0 twice of three times, 3 never beats 2.
    scores = [np.array(score) for score in ([0, 1.0], [1.0, 0], [0, 1.0], [1.0, 0])]
    assert auc_within_folds([[0, 1], [0, 1], [0, 1], [2, 3]], scores, TARGETS) == 2 / 4


def test_folds_with_one_class_say_nothing():
    tests = [[0, 1], [2, 5], [3]]
    assert auc_within_folds(tests, [np.array([0, 1.0]), np.array([5, 1.0]), np.array([9.0])], TARGETS) == 1
    with pytest.raises(ValueError, match="expected for any two classes a fold that holds subjects of both, got none"):
        auc_within_folds(tests[1:], [np.array([5, 1.0]), np.array([9.0])], TARGETS)


def test_more_than_two_classes_give_the_mean_over_pairs_of_classes_of_scikit_learn():
    rng = np.random.default_rng(1)
    targets = np.repeat([0, 1, 2], [4, 5, 6])
    log_probabilities = log_softmax(rng.normal(size=(15, 3)) + np.eye(3)[targets], axis=1)
    expected = roc_auc_score(targets, np.exp(log_probabilities), multi_class="ovo", average="macro")
    assert auc_within_folds([np.arange(15)], [log_probabilities], targets) == pytest.approx(expected)
    # Logits say the same, relative to whichever class.
    relative = log_probabilities - log_probabilities[:, :1]
    assert auc_within_folds([np.arange(15)], [relative], targets) == pytest.approx(expected)


def test_of_more_than_two_classes_each_two_must_meet():
    targets = np.array([0, 1, 2, 0])
    log_probabilities = np.log(np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match="any two classes"):
        auc_within_folds([[0, 1], [1, 2]], [log_probabilities] * 2, targets)
    assert auc_within_folds([[0, 1], [1, 2], [2, 3]], [log_probabilities] * 3, targets) == 0.5


def test_a_continuous_target_gives_the_share_of_concordant_pairs():
    rng = np.random.default_rng(2)
    ages = rng.normal(size=12)
    predicted = ages + rng.normal(size=12)
    # Without ties Kendall's tau is concordant minus discordant pairs.
    expected = pytest.approx((1 + kendalltau(ages, predicted).statistic) / 2)
    assert auc_within_folds([np.arange(12)], [predicted], ages) == expected
    assert auc_within_folds([np.arange(12)], [predicted[:, None]], ages) == expected
    # Subjects with the same target are no pair.
    assert auc_within_folds([[0, 1, 2]], [np.array([5.0, 1, 2])], np.array([1.5, 1.5, 2.5])) == 0.5


@pytest.mark.parametrize("num_classes", [2, 3])
def test_counts_weigh_subjects_as_if_they_were_there_so_often(num_classes):
    rng = np.random.default_rng(3)
    targets = np.tile(np.arange(num_classes), 4)
    tests = np.array_split(np.arange(len(targets)), 2)
    scores = [rng.normal(size=(len(test), num_classes)) for test in tests]
    counts = rng.integers(1, 4, (5, len(targets)))
    found = pairs_within_folds(tests, scores, targets).share(counts)
    for share, count in zip(found, counts, strict=True):
        repeated = np.repeat(np.arange(len(targets)), count)
        # Each copy stands as a subject of its own.
        places = [np.flatnonzero(np.isin(repeated, test)) for test in tests]
        copies = [score[repeated[place] - test[0]] for score, place, test in zip(scores, places, tests, strict=True)]
        assert share == pytest.approx(auc_within_folds(places, copies, targets[repeated]))


def test_a_sample_without_a_pair_has_no_share():
    pairs = pairs_within_folds([[0, 1], [2, 3]], [np.array([0, 1.0])] * 2, TARGETS)
    shares = pairs.share(np.array([[1, 0, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0]]))
    assert np.isnan(shares[0]) and shares[1] == 1


def test_without_an_effect_the_mean_over_folds_is_even_where_scores_pooled_over_folds_are_far_below():
    within, pooled = [], []
    targets = np.tile([0, 1], 5)
    pairs = [np.array(pair) for pair in itertools.product(range(0, 10, 2), range(1, 10, 2))]
    for seed in range(80):
        values = np.random.default_rng(seed).normal(size=10)
        within.append(auc_within_folds(pairs, [log_odds_of(test, values, targets) for test in pairs], targets))
        pooled.append(roc_auc_score(targets, [log_odds_of([one], values, targets)[0] for one in range(10)]))
    assert abs(np.mean(within) - 0.5) < 2.5 * np.std(within) / 80**0.5
    assert np.mean(pooled) < 0.4


def log_odds_of(test, values, targets):
    """Linear discriminant of unit variance, fitted to the others."""
    values, targets, unseen = np.delete(values, test), np.delete(targets, test), values[test]
    low, high = (values[targets == k].mean() for k in (0, 1))
    return (high - low) * (unseen - (low + high) / 2) + np.log(targets.mean() / (1 - targets.mean()))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([np.array([0, np.nan])], "expected finite scores, got 1 that are not"),
        ([np.array([0, 1, 2.0])], "expected a score for each test subject of a fold, got 3 for 2"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        auc_within_folds([[0, 1]], scores, TARGETS)
