"""Who is told apart: recordings, their animals, and what is to be told of each animal.

Symbols: R recordings, S subjects (animals).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..dataset_scripts.recording import Recording
from ..splits import label_of

CLASSIFICATION, REGRESSION = "single_label_classification", "regression"


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """Animals with a label each, and their recordings.

    Args:
        recording_ids: (R,).
        recording_subjects: (R,), the animal of each recording, as a place in `subjects`; int.
        subjects: (S,), sorted.
        targets: (S,), class ids from 0 (int64), or a continuous target (float64).
        class_names: The classes, sorted; empty for a continuous target.
        strata: (S,), within which labels could have been dealt out otherwise (cage, litter, date); all alike without.
    """

    recording_ids: tuple[str, ...]
    recording_subjects: np.ndarray
    subjects: tuple[str, ...]
    targets: np.ndarray
    class_names: tuple[str, ...]
    strata: tuple[str, ...]

    @property
    def problem_type(self) -> str:
        return CLASSIFICATION if self.class_names else REGRESSION

    @property
    def recording_targets(self) -> np.ndarray:
        """(R,)."""
        return self.targets[self.recording_subjects]

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """The animals of each class, bool (S,), in the order of the classes; all under "all" with a number."""
        if not self.class_names:
            return {"all": np.ones(len(self.subjects), dtype=bool)}
        return {name: self.targets == place for place, name in enumerate(self.class_names)}

    def with_targets(self, targets: np.ndarray) -> "Cohort":
        """The same animals with other labels (S,), as a permutation test deals them out."""
        return dataclasses.replace(self, targets=targets)

    def only(self, subjects: np.ndarray) -> "Cohort":
        """Some of the animals, given as places in `subjects`, sorted, with their recordings."""
        rows = self.rows_of(subjects)
        return dataclasses.replace(
            self,
            recording_ids=tuple(self.recording_ids[row] for row in rows),
            recording_subjects=np.searchsorted(subjects, self.recording_subjects[rows]),
            subjects=tuple(self.subjects[subject] for subject in subjects),
            targets=self.targets[subjects],
            strata=tuple(self.strata[subject] for subject in subjects),
        )

    def rows_of(self, subjects: np.ndarray) -> np.ndarray:
        """The recordings of some animals, given as places in `subjects`; int, in order."""
        return np.flatnonzero(np.isin(self.recording_subjects, subjects))


def make_cohort(
    recordings: Sequence[Recording],
    label: str,
    *,
    problem_type: str = CLASSIFICATION,
    stratum: str | None = None,
) -> Cohort:
    """Read the animals and their labels off recordings.

    Args:
        recordings: Each must have the label; all recordings of an animal the same.
        label: Name of the label.
        problem_type: "single_label_classification" or "regression", as in `transformers`.
        stratum: Name of a label (cage, litter, date) within which labels are permuted.

    Raises:
        ValueError: If a recording has no label, an animal two, a continuous target is not a number or the same of all
            animals, or there are fewer than two classes or two animals of one.
    """
    subjects = tuple(sorted({recording.subject_id for recording in recordings}))
    values = _one_each(recordings, label)
    if problem_type == REGRESSION:
        class_names, targets = (), np.array([_number(values[subject], label) for subject in subjects])
        if not np.ptp(targets):
            raise ValueError(f"expected different numbers as {label}, got {targets[0]:g} of every subject")
    else:
        class_names = tuple(sorted(set(values.values())))
        targets = np.array([class_names.index(values[subject]) for subject in subjects], dtype=np.int64)
        _check_classes(class_names, targets, label)
    strata = _one_each(recordings, stratum) if stratum else dict.fromkeys(subjects, "")
    return Cohort(
        recording_ids=tuple(recording.recording_id for recording in recordings),
        recording_subjects=np.array([subjects.index(recording.subject_id) for recording in recordings]),
        subjects=subjects,
        targets=targets,
        class_names=class_names,
        strata=tuple(strata[subject] for subject in subjects),
    )


def _one_each(recordings: Sequence[Recording], label: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for recording in recordings:
        value = label_of(recording, label)
        if values.setdefault(recording.subject_id, value) != value:
            raise ValueError(
                f"expected one {label} for each subject, got {values[recording.subject_id]!r} and {value!r} for "
                f"{recording.subject_id!r}"
            )
    return values


def _number(value: str, label: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(f"expected numbers as {label}, got {value!r}; without --regression it is read as a class")
    return number


def _check_classes(class_names: tuple[str, ...], targets: np.ndarray, label: str):
    counts = dict(zip(class_names, np.bincount(targets).tolist(), strict=True))
    if len(counts) < 2 or min(counts.values()) < 2:
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ValueError(f"expected at least two subjects of each {label}, and two classes, got {said}")
