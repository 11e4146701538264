"""One learner on the same folds: scores of held-out animals, their intervals and p-values, without any look ahead."""

import numpy as np
import pytest
from neurt.crossval.cohort import Cohort
from neurt.crossval.learners import logistic, ridge
from neurt.crossval.protocol import (
    Predictor,
    Scheme,
    WindowPredictor,
    cross_validate,
    default_scheme,
    score_name,
)
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

PAIRS, ONE_OUT = Scheme("leave-pair-out"), Scheme("leave-one-out")


def cohort(targets, recordings=2, class_names=("tg", "wt")):
    """Animals with some recordings each, in an order that is not theirs."""
    targets = np.asarray(targets)
    subjects = np.tile(np.arange(len(targets))[::-1], recordings)
    names = tuple(f"m{i:02d}" for i in range(len(targets)))
    ids = tuple(f"r{i:02d}" for i in range(len(subjects)))
    return Cohort(ids, subjects, names, targets, class_names, ("",) * len(names))


def table(members, effect, features=6, seed=0):
    """Features of recordings: an animal's own, noise, and an effect on the first one."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(len(members.subjects), features))[members.recording_subjects]
    values = own + 0.3 * rng.normal(size=own.shape)
    values[:, 0] += effect * members.recording_targets
    return values


def judge(members, values, scheme=PAIRS, learner=logistic, **options):
    return cross_validate(Predictor("probe", values, learner), members, scheme, **{"permutations": 0, **options})


def calibrated(values, members, learner=logistic, scheme=ONE_OUT):
    """Recordings of one window each."""
    return WindowPredictor("probe", values, learner, values, np.arange(len(values))).calibrated(members, scheme)


def test_leave_pair_out_is_the_share_of_pairs_that_a_model_of_the_others_puts_in_order():
    members = cohort([0, 1, 0, 1, 0, 1, 0])
    values, right = table(members, 1.0), []
    targets = members.recording_targets
    for low in np.flatnonzero(members.targets == 0):
        for high in np.flatnonzero(members.targets == 1):
            train = ~np.isin(members.recording_subjects, [low, high])
            scaler = StandardScaler().fit(values[train])
            model = LogisticRegression(C=1 / 6, tol=1e-8)
            model.fit(scaler.transform(values[train]), targets[train], sample_weight=np.full(train.sum(), 0.5))
            scores = [
                model.decision_function(scaler.transform(values[members.recording_subjects == s])).mean()
                for s in (low, high)
            ]
            right.append(scores[1] > scores[0])
    assert judge(members, values).score == pytest.approx(np.mean(right))


def test_a_planted_effect_is_found_and_significant_and_none_is_neither():
    members = cohort([0, 1] * 6)
    found = judge(members, table(members, 8.0), permutations=200)
    assert found.score > 0.9 and found.interval[0] > 0.7 and found.test.p_value < 0.05
    nothing = judge(members, table(members, 0.0), permutations=200)
    assert nothing.test.p_value > 0.05
    assert nothing.test.statistic == nothing.score


def test_scores_of_noise_are_not_biased_below_a_half_as_pooled_leave_one_out_is():
    members = cohort([0, 1] * 5)
    scores = [judge(members, table(members, 0.0, seed=seed)).score for seed in range(60)]
    assert abs(np.mean(scores) - 0.5) < 3 * np.std(scores) / np.sqrt(60)


@pytest.mark.parametrize(
    ("per_class", "scheme", "accuracy", "pooled"),
    [
        (6, ONE_OUT, 0.15, 0.09),
        (10, ONE_OUT, 0.30, 0.24),
        (6, Scheme("stratified", 5), 0.45, 0.42),
        (6, Scheme("stratified", 6), 0.5, 0.5),
        (6, PAIRS, 0.5, 0.5),
    ],
)
def test_what_the_report_says_of_decisions_and_pooled_scores_of_noise_is_so(per_class, scheme, accuracy, pooled):
    members = cohort([0, 1] * per_class, recordings=1)
    accuracies, areas = [], []
    for seed in range(60):
        values = np.random.default_rng(seed).normal(size=(len(members.subjects), 64))
        log_odds = judge(members, values, scheme).subjects[:, 1]
        accuracies.append(balanced_accuracy_score(members.targets, log_odds > 0))
        areas.append(roc_auc_score(members.targets, log_odds))
    assert np.mean(accuracies) == pytest.approx(accuracy, abs=0.05)
    assert np.mean(areas) == pytest.approx(pooled, abs=0.05)


def test_leave_one_out_counts_decisions():
    members = cohort([0, 1] * 5)
    found = judge(members, table(members, 5.0), ONE_OUT)
    decisions = found.subjects[:, 1] > 0
    assert found.score == pytest.approx(np.mean([np.mean(decisions[members.targets == k] == k) for k in (0, 1)]))
    assert score_name(members, ONE_OUT) == "balanced accuracy" and score_name(members, PAIRS) == "ROC-AUC"


def test_scores_of_recordings_and_subjects_are_means_over_the_folds_that_held_them_out():
    members = cohort([0, 1] * 4)
    found = judge(members, table(members, 2.0))
    for subject in range(8):
        mine = members.recording_subjects == subject
        np.testing.assert_allclose(found.subjects[subject], found.recordings[mine].mean(0))
    alone = judge(members, table(members, 2.0), ONE_OUT)
    assert not np.allclose(alone.subjects, found.subjects)


def test_more_classes_and_numbers_are_ranked_within_stratified_folds():
    three = cohort([0, 1, 2] * 4, class_names=("a", "b", "c"))
    scheme = default_scheme(three)
    assert (scheme.name, scheme.folds) == ("stratified", 4)
    values = table(three, 0.0)
    values[:, :3] += 6 * np.eye(3)[three.recording_targets]
    assert judge(three, values, scheme).score > 0.9
    numbers = cohort(np.linspace(0, 3, 12), class_names=())
    assert default_scheme(numbers).folds == 5 and score_name(numbers, default_scheme(numbers)) == "concordance index"
    assert judge(numbers, table(numbers, 5.0), default_scheme(numbers), ridge).score > 0.8
    with pytest.raises(ValueError, match="expected folds of several subjects for a number, got leave-one-out"):
        judge(numbers, table(numbers, 5.0), ONE_OUT, ridge)


def test_windows_of_held_out_animals_average_to_their_recordings():
    members = cohort([0, 1] * 4)
    rng = np.random.default_rng(1)
    recording = np.repeat(np.arange(len(members.recording_ids)), 5)
    values = table(members, 2.0)[recording] + rng.normal(size=(len(recording), 6))
    means = np.stack([values[recording == row].mean(0) for row in range(len(members.recording_ids))])
    windows = WindowPredictor("probe", means, logistic, values, recording).window_logits(members, PAIRS)
    found = judge(members, means)
    for row in range(len(means)):
        np.testing.assert_allclose(windows[recording == row].mean(0), found.recordings[row], atol=1e-9)


def test_temperatures_make_scores_of_noise_less_sure_and_change_no_decision_of_a_fold():
    members = cohort([0, 1] * 6)
    values = table(members, 0.0, features=30)

    def too_sure(*training):
        fitted = logistic(*training)
        return lambda unseen: 20 * fitted(unseen)

    plain = judge(members, values, ONE_OUT, too_sure).recordings
    cooled = calibrated(values, members, too_sure)
    assert np.abs(cooled).mean() < 0.7 * np.abs(plain).mean()
    np.testing.assert_array_equal(np.sign(cooled), np.sign(plain))


def test_no_temperature_looks_at_the_animals_it_is_applied_to():
    members = cohort([0, 1] * 6)
    values = table(members, 1.0)
    before = calibrated(values, members)
    flipped = members.targets.copy()
    flipped[0] = 1 - flipped[0]
    after = calibrated(values, members.with_targets(flipped))
    mine = members.recording_subjects == 0
    np.testing.assert_allclose(after[mine], before[mine])
    assert not np.allclose(after[~mine], before[~mine])


def test_a_class_with_one_training_animal_has_no_temperature():
    members = cohort([0, 1] * 3)
    values = table(members, 1.0)
    halves = Scheme("stratified", 2)
    train = [members.targets[fold.train] for fold in halves.make(members)]
    assert sorted(np.bincount(targets).min() for targets in train) == [1, 1]
    plain = judge(members, values, halves).recordings
    np.testing.assert_array_equal(calibrated(values, members, scheme=halves), plain)
