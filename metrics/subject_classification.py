"""Classification of animals: scores of windows, of recordings, and of subjects, the statistical unit.

    metric = evaluate.load("metrics/subject_classification.py")
    metric.compute(predictions=logits, references=labels, recording_id=recordings, subject_id=subjects)

Symbols: n windows, K classes.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import datasets
import evaluate
import numpy as np
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, matthews_corrcoef, roc_auc_score

_DESCRIPTION = """
How well classes are told apart, and how far probabilities can be believed, at three levels: single windows,
recordings, subjects. A recording's score is the mean log-odds of its windows, a subject's the mean of its recordings'
(each recording counts once, however many windows it has). The class with the larger mean log-probability is the
decision; at log-odds of exactly 0, class 0. With more than two classes the log-probabilities are averaged. Windows of
one animal are not independent: conclusions belong to the subject level.

- accuracy, and balanced_accuracy: mean recall of the classes.
- roc_auc: with more than two classes the macro one-versus-rest AUC.
- mcc: Matthews' correlation of decisions and labels (Gorodkin's with more than two classes); 0 if one class is always
  decided.
- brier: mean over units of half the squared distance between the probabilities and the truth; with two classes that is
  the mean of (probability of class 1 - label)^2. 0.25 is what even odds give with two classes.
- log_loss: mean of -log(probability of the true class), in nats.
- calibration_in_the_large: mean probability of class 1 minus its share; above 0, class 1 is expected too often.
- calibration_slope: slope of a logistic regression of the labels on the log-odds. 1 is right; below 1 the
  probabilities are too sure, above 1 not sure enough.

Of calibration, mean and slope are all that a few dozen animals can tell; curves, and errors that are binned like them,
need hundreds in each class (Van Calster et al. 2019, 10.1186/s12916-019-1466-7). Both are for two classes.
"""

_INPUTS = """
Args:
    predictions: Log-odds of class 1 (windows,), or logits (windows, classes).
    references: Class ids (windows,), from 0.
    recording_id: Recording of each window, as strings.
    subject_id: Animal of each window, as strings.

Returns:
    A dict with "window", "recording" and "subject", each a dict of the scores above, n, n_per_class, undefined: why
    balanced accuracy, AUC and MCC are NaN (a class is missing at this level), else "", and calibration_undefined: why
    the slope is (or, with more than two classes, calibration in the large too), else "".
"""


@dataclass(frozen=True)
class ScoredUnits:
    """Windows, recordings or subjects with their log-probabilities.

    Args:
        log_probabilities: (n, K), float64.
        labels: (n,), int64.
        recording_id: One per unit; empty for subjects.
        subject_id: One per unit.
    """

    log_probabilities: np.ndarray
    labels: np.ndarray
    recording_id: tuple[Hashable, ...]
    subject_id: tuple[Hashable, ...]

    @property
    def log_odds(self) -> np.ndarray:
        """Log-odds of class 1, (n,).

        Raises:
            ValueError: If there are more than two classes.
        """
        if self.log_probabilities.shape[1] != 2:
            raise ValueError(f"expected two classes for log-odds, got {self.log_probabilities.shape[1]}")
        return self.log_probabilities[:, 1] - self.log_probabilities[:, 0]

    @property
    def decisions(self) -> np.ndarray:
        """The likeliest class of each unit, (n,)."""
        return self.log_probabilities.argmax(axis=1)


def scored_windows(
    predictions: np.ndarray,
    references: Sequence[int],
    recording_id: Sequence[Hashable],
    subject_id: Sequence[Hashable],
) -> ScoredUnits:
    """Check the windows' scores and labels and bring them to log-probabilities.

    Args:
        predictions: Log-odds of class 1 (n,), or logits (n, K).
        references: (n,), class ids from 0 to K - 1.
        recording_id: (n,).
        subject_id: (n,).

    Raises:
        ValueError: If there is nothing to score, lengths differ, a score is not finite, a label is not a class id, a
            subject has two labels or a recording two subjects.
    """
    scores = np.asarray(predictions, dtype=np.float64)
    if scores.ndim == 1:
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    if scores.ndim != 2 or scores.shape[1] < 2 or not len(scores):
        raise ValueError(
            f"expected log-odds (windows,) or logits (windows, at least 2 classes), got {np.shape(predictions)}"
        )
    lengths = [len(scores), len(references), len(recording_id), len(subject_id)]
    if len(set(lengths)) > 1:
        raise ValueError(
            f"expected one score, label, recording_id and subject_id per window, got {', '.join(map(str, lengths))}"
        )
    finite = np.isfinite(scores).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"expected finite scores, got {np.sum(~finite)} that are not, the first in recording "
            f"{recording_id[finite.argmin()]!r}"
        )
    labels = _class_ids(references, scores.shape[1])
    _check_one_each(subject_id, labels.tolist(), "label", "subject")
    _check_one_each(recording_id, subject_id, "subject", "recording")
    return ScoredUnits(log_softmax(scores, axis=1), labels, tuple(recording_id), tuple(subject_id))


def mean_per_recording(windows: ScoredUnits) -> ScoredUnits:
    """Average the log-probabilities of each recording's windows; recordings keep the order of first appearance."""
    return _mean_per(windows, windows.recording_id)


def mean_per_subject(recordings: ScoredUnits) -> ScoredUnits:
    """Average the log-probabilities of each subject's recordings; each recording counts once."""
    return replace(_mean_per(recordings, recordings.subject_id), recording_id=())


def levels(windows: ScoredUnits) -> dict[str, ScoredUnits]:
    """The windows, their recordings and their subjects, under "window", "recording" and "subject"."""
    recordings = mean_per_recording(windows)
    return {"window": windows, "recording": recordings, "subject": mean_per_subject(recordings)}


def always_the_larger_class(units: ScoredUnits) -> ScoredUnits:
    """The same units, each with the shares of the classes among them as its probabilities: nobody looked at it."""
    shares = np.bincount(units.labels, minlength=units.log_probabilities.shape[1]) / len(units.labels)
    with np.errstate(divide="ignore"):  # log 0 of a class that is not there
        constant = np.tile(np.log(shares), (len(units.labels), 1))
    return replace(units, log_probabilities=constant)


def unit_scores(units: ScoredUnits) -> dict:
    """Scores of windows, recordings or subjects, as the module's description defines them.

    Returns:
        accuracy, balanced_accuracy, roc_auc, mcc, brier, log_loss, calibration_in_the_large, calibration_slope, n,
        n_per_class, undefined: why the second to fourth are NaN, or "", and calibration_undefined alike.
    """
    num_classes = units.log_probabilities.shape[1]
    n_per_class = np.bincount(units.labels, minlength=num_classes)
    missing = np.flatnonzero(n_per_class == 0)
    reason = f"no unit of class {', '.join(map(str, missing))}" if len(missing) else ""
    nan = float("nan")
    truth = np.eye(num_classes)[units.labels]
    return {
        "accuracy": float(accuracy_score(units.labels, units.decisions)),
        # With one class, scikit-learn's balanced accuracy is that class's recall, which always saying the same thing
        # brings to 1.
        "balanced_accuracy": nan if reason else float(balanced_accuracy_score(units.labels, units.decisions)),
        "roc_auc": nan if reason else _roc_auc(units),
        "mcc": nan if reason else float(matthews_corrcoef(units.labels, units.decisions)),
        "brier": float(np.square(np.exp(units.log_probabilities) - truth).sum(axis=1).mean() / 2),
        "log_loss": float(-units.log_probabilities[truth == 1].mean()),
        **_calibration(units, reason),
        "n": len(units.labels),
        "n_per_class": n_per_class.tolist(),
        "undefined": reason,
    }


def subject_classification_scores(
    predictions: np.ndarray,
    references: Sequence[int],
    recording_id: Sequence[Hashable],
    subject_id: Sequence[Hashable],
) -> dict[str, dict]:
    """Scores of windows, recordings and subjects; arguments and errors as `scored_windows`."""
    windows = scored_windows(predictions, references, recording_id, subject_id)
    return {level: unit_scores(units) for level, units in levels(windows).items()}


def _class_ids(references, num_classes):
    labels = np.asarray(references)
    valid = labels.dtype.kind in "iub" and labels.ndim == 1
    if not valid or labels.min() < 0 or labels.max() >= num_classes:
        got = sorted(set(np.ravel(labels).tolist()), key=str)[:5]
        raise ValueError(
            f"expected class ids from 0 to {num_classes - 1} as labels, got {', '.join(map(repr, got))}; leave out "
            "windows of animals without a label"
        )
    return labels.astype(np.int64)


def _check_one_each(keys, values, value_name, key_name):
    seen = {}
    for key, value in zip(keys, values, strict=True):
        if seen.setdefault(key, value) != value:
            raise ValueError(f"expected one {value_name} for {key_name} {key!r}, got {seen[key]!r} and {value!r}")


def _mean_per(units, keys):
    group = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    index = np.array([group[key] for key in keys])
    sums = np.zeros((len(group), units.log_probabilities.shape[1]))
    np.add.at(sums, index, units.log_probabilities)
    rows = np.unique(index, return_index=True)[1]
    return ScoredUnits(
        # Mean log-probabilities do not sum to one as probabilities; what is added is the same for every class.
        log_probabilities=log_softmax(sums / np.bincount(index)[:, None], axis=1),
        labels=units.labels[rows],
        recording_id=tuple(units.recording_id[i] for i in rows),
        subject_id=tuple(units.subject_id[i] for i in rows),
    )


def _roc_auc(units):
    if units.log_probabilities.shape[1] == 2:
        return float(roc_auc_score(units.labels, units.log_odds))
    one_against_rest = [roc_auc_score(units.labels == k, column) for k, column in enumerate(units.log_probabilities.T)]
    return float(np.mean(one_against_rest))


def _calibration(units, missing):
    """`missing` says which class is, or is empty."""
    if units.log_probabilities.shape[1] != 2:
        nan = float("nan")
        reason = "calibration is given for two classes only"
        return {"calibration_in_the_large": nan, "calibration_slope": nan, "calibration_undefined": reason}
    slope, reason = (float("nan"), missing) if missing else _calibration_slope(units)
    in_the_large = np.mean(np.exp(units.log_probabilities[:, 1]) - units.labels)
    return {
        "calibration_in_the_large": float(in_the_large),
        "calibration_slope": slope,
        "calibration_undefined": reason,
    }


def _calibration_slope(units):
    """The slope, and why it is NaN, or an empty string."""
    low, high = (units.log_odds[units.labels == k] for k in (0, 1))
    if np.ptp(units.log_odds) == 0:
        return float("nan"), "all scores are alike"
    if low.max() <= high.min() or high.max() <= low.min():
        return float("nan"), "the scores of the classes do not overlap"
    # The solver's tolerance is absolute, so it is given scores of unit size; infinite C is no regularisation.
    scale = units.log_odds.std()
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(units.log_odds[:, None] / scale, units.labels)
    return float(fitted.coef_[0, 0] / scale), ""


class SubjectClassification(evaluate.Metric):
    """The scores above as an `evaluate` module."""

    def _info(self):
        columns = {
            "references": datasets.Value("int64"),
            "recording_id": datasets.Value("string"),
            "subject_id": datasets.Value("string"),
        }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=[
                datasets.Features({"predictions": datasets.Value("float64"), **columns}),
                datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64")), **columns}),
            ],
        )

    def _compute(self, predictions, references, recording_id, subject_id):
        return subject_classification_scores(predictions, references, recording_id, subject_id)
