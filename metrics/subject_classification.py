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
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

_DESCRIPTION = """
Accuracy, balanced accuracy and ROC-AUC at three levels: single windows, recordings, subjects. A recording's score is
the mean log-odds of its windows, a subject's the mean of its recordings' (each recording counts once, however many
windows it has). The class with the larger mean log-probability is the decision; at log-odds of exactly 0, class 0.
With more than two classes the log-probabilities are averaged and the AUC is the macro one-versus-rest AUC. Windows of
one animal are not independent: conclusions belong to the subject level.
"""

_INPUTS = """
Args:
    predictions: Log-odds of class 1 (windows,), or logits (windows, classes).
    references: Class ids (windows,), from 0.
    recording_id: Recording of each window, as strings.
    subject_id: Animal of each window, as strings.

Returns:
    A dict with "window", "recording" and "subject", each a dict of accuracy, balanced_accuracy, roc_auc, n,
    n_per_class and undefined: why balanced accuracy and AUC are NaN (a class is missing at this level), else "".
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


def unit_scores(units: ScoredUnits) -> dict:
    """Accuracy, balanced accuracy and ROC-AUC of windows, recordings or subjects.

    Returns:
        accuracy, balanced_accuracy, roc_auc, n, n_per_class, and undefined: why the second and third are NaN, or "".
    """
    n_per_class = np.bincount(units.labels, minlength=units.log_probabilities.shape[1])
    missing = np.flatnonzero(n_per_class == 0)
    nan = float("nan")
    return {
        "accuracy": float(accuracy_score(units.labels, units.decisions)),
        # With one class, scikit-learn's balanced accuracy is that class's recall, which always saying the same thing
        # brings to 1.
        "balanced_accuracy": nan if len(missing) else float(balanced_accuracy_score(units.labels, units.decisions)),
        "roc_auc": nan if len(missing) else _roc_auc(units),
        "n": len(units.labels),
        "n_per_class": n_per_class.tolist(),
        "undefined": f"no unit of class {', '.join(map(str, missing))}" if len(missing) else "",
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
