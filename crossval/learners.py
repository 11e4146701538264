"""What is fitted to feature tables: linear models of recordings, fitted to some animals and asked about others.

    fitted = logistic(features, classes, subject_weights(subjects))
    scores = fitted(unseen)

    found = out_of_fold_scores(cohort, leave_one_out(cohort), features, logistic)
    by_subject = [subject_scores(cohort, scores) for scores in found]

Whatever is learnt, the mean and spread that features are scaled by included, is learnt from what a learner is given:
the recordings of a training fold. Weights make each animal count once, in the scaling as in the fit; otherwise the
animal with the most recordings would set the scale, and classes would lean to it.

How strong the penalties are is fixed. With a dozen animals a choice by cross-validation within the training fold
would mostly be noise, and a permutation test would have to make it anew for each labelling.

Symbols: R recordings, F features, S subjects, K classes, n of something.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from .cohort import Cohort
from .folds import Fold

# Features (n, F) to logits (n, K) relative to class 0, whose column is 0, or to predicted numbers (n,).
Fitted = Callable[[np.ndarray], np.ndarray]
# Features (R, F), targets (R,) and weights (R,) to what was fitted.
Learner = Callable[[np.ndarray, np.ndarray, np.ndarray], Fitted]

# Of each feature: the penalty grows with their number, so that more features make no surer predictions. Read as a
# prior, log-odds of a recording whose scaled features are independent have a standard deviation of 1.
PENALTY = 1.0
VARIANCE_KEPT = 0.95
# The largest entry of the gradient at which a fit has ended. Penalised, coefficients are then off by no more.
GRADIENT_TOLERANCE = 1e-7
MOST_STEPS = 100
# What varies by less, relative to its size, is constant but for rounding.
ROUNDING = 1e-9


def subject_weights(subjects: np.ndarray) -> np.ndarray:
    """Weights (R,) of recordings, those of each animal summing to 1.

    Args:
        subjects: (R,), the animal of each recording; int, not negative.
    """
    return 1 / np.bincount(subjects)[subjects]


def logistic(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Fitted:
    """Scale, and fit an L2-regularised logistic regression, multinomial for more than two classes.

    It minimises Σ weight · log loss + ½ F ‖coefficients‖², the intercept free. That is scikit-learn's
    `LogisticRegression(C=1 / F)` after a weighted `StandardScaler`, but fast enough for permutation tests: two classes
    are fitted by Newton's method, and more features than recordings are rotated into as many dimensions as there are
    recordings, which an L2 penalty does not notice.

    Args:
        features: (R, F), finite.
        targets: Class ids (R,), each from 0 to the largest at least once.
        weights: (R,).

    Returns:
        Features (n, F) to logits (n, K) relative to class 0.

    Raises:
        ValueError: If lengths disagree, a feature is not finite, or there are not two classes or more.
    """
    scale = _fit_scale(features, targets, weights)
    num_classes = _num_classes(targets)
    rotated, axes = _rotate(scale(features))
    fit = _fit_log_odds if num_classes == 2 else _fit_multinomial
    coefficients, intercepts = fit(rotated, targets, weights, _strength(scale(features)))
    coefficients = axes @ coefficients
    return lambda unseen: _relative_to_first(scale(unseen) @ coefficients + intercepts)


def ridge(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Fitted:
    """Scale, and fit a ridge regression: Σ weight · error² + F ‖coefficients‖², the intercept free.

    Args:
        features: (R, F), finite.
        targets: Numbers (R,).
        weights: (R,).

    Returns:
        Features (n, F) to predictions (n,).

    Raises:
        ValueError: If lengths disagree or a feature is not finite.
    """
    scale = _fit_scale(features, targets, weights)
    rotated, axes = _rotate(scale(features))
    # Scaled features have a weighted mean of 0, so the intercept is that of the targets whatever the coefficients.
    mean = np.average(targets, weights=weights)
    weighted = rotated.T * weights
    curvature = weighted @ rotated + _strength(scale(features)) * np.eye(rotated.shape[1])
    coefficients = axes @ np.linalg.solve(curvature, weighted @ (targets - mean))
    return lambda unseen: scale(unseen) @ coefficients + mean


def pca_lda(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Fitted:
    """Scale, keep the first principal components, and fit a linear discriminant analysis.

    As many components as hold 95 % of the variance, but fewer than half as many as animals: recordings of one animal
    are alike, and in further directions their likeness would pass for certainty. The covariance within classes is
    shrunk (Ledoit & Wolf 2004, 10.1016/S0047-259X(03)00096-4); prior probabilities are the shares of animals.

    Args:
        features: (R, F), finite.
        targets: Class ids (R,), each from 0 to the largest at least once.
        weights: (R,), summing to the number of animals.

    Returns:
        Features (n, F) to logits (n, K) relative to class 0; equal logits where no class varies within.

    Raises:
        ValueError: If lengths disagree, a feature is not finite, or there are not two classes or more.
    """
    scale = _fit_scale(features, targets, weights)
    members = (targets == np.arange(_num_classes(targets))[:, None]) * weights  # (K, R)
    axes = _principal_axes(scale(features), weights)
    components = scale(features) @ axes
    shares = members.sum(axis=1)
    means = members @ components / shares[:, None]
    # Rows whose plain covariance is the weighted one.
    deviations = (components - means[targets]) * np.sqrt(weights / weights.mean())[:, None]
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    # Least squares: with one recording of each class nothing varies, and nothing is said.
    slopes = np.linalg.lstsq(covariance, means.T)[0]
    intercepts = np.log(shares) - 0.5 * np.sum(means.T * slopes, axis=0)
    coefficients = axes @ slopes
    return lambda unseen: _relative_to_first(scale(unseen) @ coefficients + intercepts)


@dataclass(frozen=True, eq=False)
class FoldScores:
    """What the recordings of held-out animals score.

    Args:
        fold: The animals.
        rows: int (n,), the places of the held-out recordings in `Cohort.recording_ids`.
        scores: Logits (n, K) relative to class 0, or predictions (n,).
    """

    fold: Fold
    rows: np.ndarray
    scores: np.ndarray


def out_of_fold_scores(
    cohort: Cohort, folds: Sequence[Fold], features: np.ndarray, learner: Learner
) -> list[FoldScores]:
    """Fit to the recordings of each fold's training animals, each animal weighing 1, and score those of the others.

    Args:
        cohort: The animals and their targets.
        folds: Which animals are held out together.
        features: (R, F), a row for each recording of the cohort.
        learner: What to fit.

    Raises:
        ValueError: If there is not a row of finite features for each recording, or a fold has a class to fit to no
            animal of.
    """
    features = np.asarray(features, dtype=np.float64)
    _check_table(cohort, features)
    found = []
    for fold in folds:
        unseen = cohort.rows_of(fold.test)
        fitted = fit_recordings(cohort, fold, features, learner)
        found.append(FoldScores(fold, unseen, fitted(features[unseen])))
    return found


def fit_recordings(cohort: Cohort, fold: Fold, features: np.ndarray, learner: Learner) -> Fitted:
    """Fit to the recordings of a fold's training animals; arguments and errors as `out_of_fold_scores`."""
    _check_classes(cohort, fold)
    rows = cohort.rows_of(fold.train)
    weights = subject_weights(cohort.recording_subjects[rows])
    return learner(features[rows], cohort.recording_targets[rows], weights)


def subject_scores(cohort: Cohort, found: FoldScores) -> np.ndarray:
    """The mean over each held-out animal's recordings: (n, K) or (n,), in the order of `Fold.test`.

    Differences of mean logits are mean log-odds, as in `metrics/subject_classification.py`.
    """
    subjects = cohort.recording_subjects[found.rows]
    return np.stack([found.scores[subjects == subject].mean(axis=0) for subject in found.fold.test])


def _fit_scale(features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Fitted:
    """Features to those with weighted mean 0 and SD 1 where it was fitted; to 0 where they did not vary there."""
    if features.ndim != 2 or not len(features) == len(targets) == len(weights):
        shapes = ", ".join(str(np.shape(array)) for array in (features, targets, weights))
        raise ValueError(f"expected features (R, F), targets (R,) and weights (R,), got {shapes}")
    if not np.isfinite(features).all():
        raise ValueError(f"expected finite features, got {np.sum(~np.isfinite(features))} that are not")
    mean = np.average(features, axis=0, weights=weights)
    spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
    spread[spread <= ROUNDING * np.abs(features).max(axis=0)] = np.inf
    return lambda unseen: (unseen - mean) / spread


def _strength(scaled: np.ndarray) -> float:
    """Of a penalty, for the features that vary; scaled, the others are 0."""
    return PENALTY * max(1, np.count_nonzero(scaled.any(axis=0)))


def _rotate(scaled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (R, F) in at most R dimensions, in which they lie, and the axes (F, at most R) of those."""
    num_rows, num_features = scaled.shape
    if num_features <= num_rows:
        return scaled, np.eye(num_features)
    axes, rotated = np.linalg.qr(scaled.T)
    return rotated.T, axes


def _fit_log_odds(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method for two classes: coefficients (F, 2) and intercepts (2,), 0 for class 0."""
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.full(design.shape[1], strength)
    penalty[-1] = 0
    signs = np.where(targets == 1, 1.0, -1.0)

    def objective(solution: np.ndarray) -> float:
        return weights @ np.logaddexp(0, -signs * (design @ solution)) + 0.5 * penalty @ solution**2

    solution = np.zeros(design.shape[1])
    loss = objective(solution)
    for _ in range(MOST_STEPS):
        probabilities = expit(design @ solution)
        gradient = (weights * (probabilities - targets)) @ design + penalty * solution
        if np.abs(gradient).max() <= GRADIENT_TOLERANCE:
            break
        curvature = (design.T * (weights * probabilities * (1 - probabilities))) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        # A whole step can overshoot where probabilities are close to 0 or 1. At the end steps gain less than rounding.
        while (next_loss := objective(solution - step)) > loss * (1 + ROUNDING):
            step /= 2
        solution, loss = solution - step, next_loss
    solutions = np.column_stack([np.zeros_like(solution), solution])
    return solutions[:-1], solutions[-1]


def _fit_multinomial(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (F, K) and intercepts (K,)."""
    model = LogisticRegression(C=1 / strength, tol=1e-6, max_iter=1000).fit(features, targets, sample_weight=weights)
    return model.coef_.T, model.intercept_


def _principal_axes(scaled: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The directions (F, n) of most weighted variance that `pca_lda` keeps."""
    _, lengths, directions = np.linalg.svd(scaled * np.sqrt(weights)[:, None], full_matrices=False)
    shares = np.cumsum(lengths**2)
    enough = int(np.searchsorted(shares, VARIANCE_KEPT * shares[-1])) + 1
    fewer_than_half = int(np.ceil(weights.sum() / 2)) - 1
    return directions[: max(1, min(enough, fewer_than_half))].T


def _num_classes(targets: np.ndarray) -> int:
    present = np.unique(targets)
    if len(present) < 2 or not np.array_equal(present, np.arange(len(present))):
        raise ValueError(f"expected two classes or more, counted from 0, to fit to, got {present.tolist()}")
    return len(present)


def _relative_to_first(logits: np.ndarray) -> np.ndarray:
    return logits - logits[:, :1]


def _check_table(cohort: Cohort, features: np.ndarray):
    recordings = len(cohort.recording_ids)
    if features.ndim != 2 or len(features) != recordings:
        raise ValueError(f"expected features ({recordings}, F), a row for each recording, got {features.shape}")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        name = cohort.recording_ids[int(finite.argmin())]
        raise ValueError(f"expected finite features, got NaN or infinite ones of recording {name!r}; leave it out")


def _check_classes(cohort: Cohort, fold: Fold):
    missing = [name for k, name in enumerate(cohort.class_names) if k not in cohort.targets[fold.train]]
    if missing:
        held_out = ", ".join(cohort.subjects[subject] for subject in fold.test)
        raise ValueError(f"expected subjects of every class to fit to, got none of {missing[0]} without {held_out}")
