"""Learners of feature tables: scikit-learn's scores, every animal once, and nothing learnt from what is held out."""

import numpy as np
import pytest
from neurt.crossval import learners
from neurt.crossval.cohort import Cohort
from neurt.crossval.folds import Fold, leave_one_out
from neurt.crossval.learners import (
    logistic,
    out_of_fold_scores,
    pca_lda,
    ridge,
    subject_scores,
    subject_weights,
)
from neurt.metrics.subject_classification import levels, scored_windows
from scipy.special import log_softmax
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LEARNERS = pytest.mark.parametrize("learner", [logistic, ridge, pca_lda])


def table(recordings=20, features=6, classes=2, seed=0, shift=2.0):
    """Correlated features on different scales, the first of which tells the classes; unequal weights."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(features)
    few_dominate = fixed.standard_normal((features, features)) / np.arange(1, features + 1)[:, None]
    values = rng.standard_normal((recordings, features)) @ few_dominate
    targets = np.arange(recordings) % classes
    values[:, 0] += shift * targets
    return values * 10.0 ** fixed.integers(-3, 3, features) + 5, targets, rng.choice([1, 0.5, 0.2], recordings)


def unseen(features, count=7):
    return table(count, features, seed=1)[0]


def cohort(targets, recordings_each, class_names=("a", "b")):
    """Animals with some recordings each, dealt out in turns."""
    subjects = [subject for day in range(max(recordings_each)) for subject, n in enumerate(recordings_each) if day < n]
    names = tuple(f"m{subject}" for subject in range(len(targets)))
    ids = tuple(f"r{place}" for place in range(len(subjects)))
    return Cohort(ids, np.array(subjects), names, np.array(targets), class_names, ("",) * len(names))


@pytest.mark.parametrize(("recordings", "features"), [(18, 5), (18, 18), (18, 200), (60, 14)])
def test_logistic_regression_scores_as_scikit_learns_pipeline_does(recordings, features):
    values, targets, weights = table(recordings, features)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=1 / features, tol=1e-9, max_iter=10000))
    pipeline.fit(values, targets, standardscaler__sample_weight=weights, logisticregression__sample_weight=weights)
    scores = logistic(values, targets, weights)(unseen(features))
    assert scores.shape == (7, 2) and (scores[:, 0] == 0).all()
    assert scores[:, 1] == pytest.approx(pipeline.decision_function(unseen(features)), abs=1e-4)


@pytest.mark.parametrize("features", [5, 100])
def test_logistic_regression_of_three_classes_gives_scikit_learns_probabilities(features):
    values, targets, weights = table(30, features, classes=3)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=1 / features, tol=1e-9, max_iter=10000))
    pipeline.fit(values, targets, standardscaler__sample_weight=weights, logisticregression__sample_weight=weights)
    scores = logistic(values, targets, weights)(unseen(features))
    assert scores.shape == (7, 3) and (scores[:, 0] == 0).all()
    expected = pipeline.predict_log_proba(unseen(features))
    np.testing.assert_allclose(log_softmax(scores, axis=1), expected, atol=1e-3)


def test_the_smallest_loss_is_found_where_whole_newton_steps_diverge():
    # Found by trying seeds: an outlier of the wrong class, and features far from scaled.
    rng = np.random.default_rng(1134)
    values = rng.standard_normal((20, 2)) * 100
    targets = (values[:, 0] > 0).astype(int)
    targets[0], values[0] = 1 - targets[0], values[0] * 10
    coefficients, intercepts = learners._fit_log_odds(values, targets, np.ones(20), 1.0)
    model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-9, max_iter=1000).fit(values, targets)
    found = values @ coefficients + intercepts
    assert found[:, 1] == pytest.approx(model.decision_function(values), abs=1e-4)


@pytest.mark.parametrize("features", [5, 200])
def test_ridge_regression_predicts_as_scikit_learns_pipeline_does(features):
    values, _, weights = table(18, features)
    targets = values[:, 0] + 100
    pipeline = make_pipeline(StandardScaler(), Ridge(alpha=features))
    pipeline.fit(values, targets, standardscaler__sample_weight=weights, ridge__sample_weight=weights)
    found = ridge(values, targets, weights)(unseen(features))
    assert found == pytest.approx(pipeline.predict(unseen(features)))


@pytest.mark.parametrize(("features", "classes"), [(4, 2), (40, 3)])
def test_discriminant_analysis_scores_as_normal_distributions_of_principal_components_do(features, classes):
    values, targets, weights = table(24, features, classes)
    scaler = StandardScaler().fit(values, sample_weight=weights)
    scaled = scaler.transform(values)
    variances, axes = np.linalg.eigh(np.cov(scaled.T, aweights=weights))
    variances, axes = variances[::-1], axes[:, ::-1]
    fewer_than_half = np.ceil(weights.sum() / 2) - 1
    kept = int(min(np.flatnonzero(np.cumsum(variances) >= 0.95 * variances.sum())[0] + 1, fewer_than_half))
    components = scaled @ axes[:, :kept]
    members = [targets == k for k in range(classes)]
    means = np.stack([np.average(components[rows], axis=0, weights=weights[rows]) for rows in members])
    deviations = (components - means[targets]) * np.sqrt(24 * weights / weights.sum())[:, None]
    covariance, shrinkage = ledoit_wolf(deviations, assume_centered=True)
    assert 0 < shrinkage < 1 and kept > 1
    points = scaler.transform(unseen(features)) @ axes[:, :kept]
    expected = [multivariate_normal(mean, covariance).logpdf(points) for mean in means]
    expected = np.stack(expected, 1) + np.log([weights[rows].sum() for rows in members])
    scores = pca_lda(values, targets, weights)(unseen(features))
    np.testing.assert_allclose(scores, expected - expected[:, :1], rtol=1e-6, atol=1e-6)


def test_discriminant_analysis_keeps_fewer_components_than_half_the_animals_however_many_recordings():
    values = np.random.default_rng(0).standard_normal((40, 30))
    kept = [learners._principal_axes(values, np.full(40, animals / 40)).shape[1] for animals in (20, 9, 8, 2)]
    assert kept == [9, 4, 3, 1]


@pytest.mark.parametrize("learner", [logistic, ridge])
def test_a_recording_twice_at_half_the_weight_is_the_recording_once(learner):
    values, targets, weights = table(20, 6)
    rows = np.array([*range(20), 3, 3, 7])
    shared = weights[rows] / np.bincount(rows)[rows]
    once = learner(values, targets, weights)(unseen(6))
    assert learner(values[rows], targets[rows], shared)(unseen(6)) == pytest.approx(once, abs=1e-5)
    assert learner(values[rows], targets[rows], weights[rows])(unseen(6)) != pytest.approx(once, abs=1e-3)


@LEARNERS
def test_a_planted_difference_is_found_in_other_recordings(learner):
    values, targets, weights = table(40, 3, shift=8)
    fitted = learner(values[:20], targets[:20], weights[:20])
    scores = fitted(values[20:])
    score = scores if scores.ndim == 1 else scores[:, 1]
    assert roc_auc_score(targets[20:], score) > 0.95


@LEARNERS
def test_the_unit_of_a_feature_and_features_that_never_vary_change_no_score(learner):
    values, targets, weights = table(20, 4)
    expected = learner(values, targets, weights)(unseen(4))
    # 0.1 has no exact mean: what differs by rounding must not be scaled up.
    constant = [np.full((n, 1), 0.1) for n in (20, 7)]
    fitted = learner(np.hstack([values * 1000, constant[0]]), targets, weights)
    assert fitted(np.hstack([unseen(4) * 1000, constant[1] + 5])) == pytest.approx(expected)


def test_where_nothing_varies_within_classes_nothing_is_said():
    scores = pca_lda(np.array([[0.0, 1], [2, 0]]), np.array([0, 1]), np.ones(2))(np.eye(2))
    assert scores == pytest.approx(np.zeros((2, 2)))
    scores = pca_lda(np.ones((4, 2)), np.array([0, 0, 0, 1]), np.ones(4))(np.eye(2))
    assert scores[:, 1] == pytest.approx(np.log(1 / 3))


@LEARNERS
def test_inputs_are_not_changed(learner):
    inputs = table()
    copies = [array.copy() for array in inputs]
    learner(*inputs)
    for array, copy in zip(inputs, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@LEARNERS
def test_lengths_that_disagree_and_features_that_are_not_finite_are_refused(learner):
    values, targets, weights = table()
    with pytest.raises(ValueError, match=r"expected features \(R, F\), .* got \(20, 6\), \(19,\), \(20,\)"):
        learner(values, targets[1:], weights)
    values[3, 2] = np.nan
    with pytest.raises(ValueError, match="expected finite features, got 1 that are not"):
        learner(values, targets, weights)


@pytest.mark.parametrize("learner", [logistic, pca_lda])
@pytest.mark.parametrize("targets", [[0, 0, 0], [1, 1, 0.5], [0, 2, 2], [-1, 0, 1]])
def test_classes_that_are_not_counted_from_zero_are_refused(learner, targets):
    with pytest.raises(ValueError, match="expected two classes or more, counted from 0, to fit to"):
        learner(np.eye(3), np.array(targets), np.ones(3))


def test_each_animal_weighs_one():
    assert subject_weights(np.array([0, 2, 0, 2, 2, 3])) == pytest.approx([1 / 2, 1 / 3, 1 / 2, 1 / 3, 1 / 3, 1])


def test_each_fold_fits_to_its_training_animals_and_scores_the_recordings_of_the_others():
    members = cohort([0, 1, 0, 1], [2, 1, 3, 1])
    features = np.arange(7.0)[:, None]
    seen = []

    def learner(features, targets, weights):
        seen.append((features[:, 0].tolist(), targets.tolist(), weights.tolist()))
        return lambda unseen: 10 * unseen

    folds = [Fold(np.array([1, 2]), np.array([0, 3])), Fold(np.array([0, 3]), np.array([1, 2]))]
    found = out_of_fold_scores(members, folds, features, learner)
    assert members.recording_subjects.tolist() == [0, 1, 2, 3, 0, 2, 2]
    assert seen[0] == ([1, 2, 5, 6], [1, 0, 0, 0], pytest.approx([1, 1 / 3, 1 / 3, 1 / 3]))
    assert seen[1] == ([0, 3, 4], [0, 1, 0], [0.5, 1, 0.5])
    assert [scores.rows.tolist() for scores in found] == [[0, 3, 4], [1, 2, 5, 6]]
    assert found[0].fold is folds[0]
    assert found[1].scores[:, 0].tolist() == [10, 20, 50, 60]
    assert subject_scores(members, found[0])[:, 0].tolist() == [20, 30]
    assert subject_scores(members, found[1])[:, 0] == pytest.approx([10, 130 / 3])


def test_an_animal_scores_the_mean_log_odds_of_its_recordings_as_the_metric_has_it():
    members = cohort([0, 1, 2, 0, 1, 2], [3] * 6, ("a", "b", "c"))
    features = table(18, 4, seed=5)[0]
    fold = Fold(np.arange(3), np.arange(3, 6))
    (found,) = out_of_fold_scores(members, [fold], features, logistic)
    names = [members.recording_ids[row] for row in found.rows]
    subjects = members.recording_subjects[found.rows]
    units = levels(scored_windows(found.scores, members.recording_targets[found.rows], names, subjects.tolist()))
    assert units["subject"].subject_id == (3, 4, 5)
    expected = units["subject"].log_probabilities
    np.testing.assert_allclose(log_softmax(subject_scores(members, found), axis=1), expected)


@LEARNERS
def test_nothing_is_learnt_from_held_out_animals(learner):
    members = cohort([0, 1, 0, 1, 0, 1], [2] * 6)
    features = table(12, 5)[0]
    for fold in leave_one_out(members):
        (before,) = out_of_fold_scores(members, [fold], features, learner)
        changed = features.copy()
        changed[before.rows[1:]] = 1e6
        other = members.with_targets(np.where(np.isin(np.arange(6), fold.test), 1 - members.targets, members.targets))
        (after,) = out_of_fold_scores(other, [fold], changed, learner)
        np.testing.assert_array_equal(before.scores[0], after.scores[0])


def test_a_number_is_predicted_for_held_out_animals():
    members = cohort(np.linspace(0, 5, 12), [2] * 12, class_names=())
    features = members.recording_targets[:, None] + np.random.default_rng(0).normal(0, 0.1, (24, 2))
    found = out_of_fold_scores(members, leave_one_out(members), features, ridge)
    predicted = np.concatenate([subject_scores(members, scores) for scores in found])
    assert np.abs(predicted - members.targets).max() < 0.5


def test_a_table_with_a_row_missing_or_not_finite_is_refused():
    members = cohort([0, 1, 0, 1], [1] * 4)
    with pytest.raises(ValueError, match=r"expected features \(4, F\), a row for each recording, got \(3, 3\)"):
        out_of_fold_scores(members, leave_one_out(members), np.eye(3), logistic)
    features = np.eye(4)
    features[2, 1] = np.inf
    with pytest.raises(ValueError, match="got NaN or infinite ones of recording 'r2'; leave it out"):
        out_of_fold_scores(members, leave_one_out(members), features, logistic)


def test_a_fold_without_a_class_to_fit_to_is_refused_by_name():
    members = cohort([0, 1, 0, 1], [1] * 4)
    fold = Fold(np.array([0, 2]), np.array([1, 3]))
    with pytest.raises(ValueError, match="expected subjects of every class to fit to, got none of b without m1, m3"):
        out_of_fold_scores(members, [fold], np.eye(4), logistic)
