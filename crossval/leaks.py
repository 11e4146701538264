"""Leaks: animals on two sides of a fold, animals that pretraining has seen, and what windows give away of an animal.

Windows of one animal are alike in ways that have nothing to do with its group. Whoever splits windows at random lets a
model recognise the animal, and reads off an accuracy that no new animal will confirm. Here that is measured.

Symbols: n windows, F features, R recordings, S subjects, K classes.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import KFold, StratifiedKFold

from ..configuration_neurt import NeurtConfig
from ..dataset_scripts.readers.source import digest
from ..dataset_scripts.recording import Recording
from ..dataset_scripts.wording import some
from .cohort import REGRESSION, Cohort
from .embeddings import WindowFeatures
from .folds import Fold, stratified_folds, usual_folds
from .learners import Learner, subject_weights
from .ranking import auc_within_folds

# Both checks are about large differences, and animals, not windows, limit how well they are known.
MOST_WINDOWS = 4000
RECORDINGS, HALVES = "recordings", "halves of recordings"


@dataclass(frozen=True)
class SplitOptimism:
    """Scores of single windows, by how they were split; the learner and the windows are the same.

    Args:
        random_windows: ROC-AUC (more classes: Hand & Till's M; a number: concordance) within folds of windows dealt
            out at random, so that each animal stands on both sides.
        whole_animals: The same within folds of whole animals.
        num_windows: How many were dealt out.
        num_folds: Of both kinds.
    """

    random_windows: float
    whole_animals: float
    num_windows: int
    num_folds: int


@dataclass(frozen=True)
class Identified:
    """How well windows tell which animal of a group they are of.

    Args:
        group: The class; "all" with a continuous target.
        subjects: Animals told apart, those with windows on both sides.
        balanced_accuracy: Of single windows, NaN with fewer than two animals.
        chance: 1 / `subjects`.
        split_by: "recordings" where every animal has several, "halves of recordings" where some have one.
    """

    group: str
    subjects: int
    balanced_accuracy: float
    chance: float
    split_by: str


def check_folds(recordings: Sequence[Recording], cohort: Cohort, folds: Sequence[Fold]) -> None:
    """Refuse an animal, a recording, or the same data under two names, that stands on both sides of a fold.

    Args:
        recordings: Those of the cohort.
        cohort: The animals.
        folds: Places of animals.

    Raises:
        ValueError: Naming them.
    """
    same = _subjects_sharing(recordings, cohort)
    for fold in folds:
        both = np.intersect1d(fold.train, fold.test).tolist()
        if both:
            names = some([cohort.subjects[subject] for subject in both])
            raise ValueError(f"expected no subject on both sides of a fold, got {names}; hold out whole animals")
        for names, subjects in same.items():
            if not subjects.isdisjoint(fold.train.tolist()) and not subjects.isdisjoint(fold.test.tolist()):
                raise ValueError(
                    f"expected no data on both sides of a fold, got the same in {some(names)}, of subjects "
                    f"{some([cohort.subjects[subject] for subject in sorted(subjects)])}; leave all but one out, or "
                    "give them one subject"
                )


def _subjects_sharing(recordings: Sequence[Recording], cohort: Cohort) -> dict[tuple[str, ...], set[int]]:
    """The subjects of recordings with one id, one source or the same traces, by the recordings' ids."""
    subjects, holders = {name: place for place, name in enumerate(cohort.subjects)}, defaultdict(list)
    for recording in recordings:
        for key in {recording.recording_id, recording.source.get("sha256"), digest(recording.traces)} - {None}:
            holders[key].append(recording)
    shared = {
        tuple(recording.recording_id for recording in alike): {subjects[recording.subject_id] for recording in alike}
        for alike in holders.values()
    }
    return {names: members for names, members in shared.items() if len(members) > 1}


def seen_in_pretraining(config: NeurtConfig, cohort: Cohort) -> list[str]:
    """The animals of the cohort that pretraining has seen, sorted."""
    return sorted(set(cohort.subjects) & set(config.pretraining_subjects or ()))


def window_split_optimism(
    windows: WindowFeatures, cohort: Cohort, learner: Learner, *, seed: int = 0
) -> SplitOptimism:
    """How much better single windows seem to be told when they, and not animals, are dealt out to folds.

    Each animal weighs the same among those that a learner is fitted to. At most 4,000 windows, a like number of each
    recording, in as many folds as the rarest class has animals, at most five; scores are compared within folds.

    Args:
        windows: Their recordings must be of the cohort.
        cohort: The animals and their targets.
        learner: Of the problem's type.
        seed: Of the sample and of the folds.

    Raises:
        ValueError: If a recording is not of the cohort, or there are too few animals for two folds.
    """
    windows = _sampled(windows, seed)
    subjects = _subjects_of(windows, cohort)
    targets, regression = cohort.targets[subjects], cohort.problem_type == REGRESSION
    num_folds = usual_folds(cohort)
    by_animal = [np.isin(subjects, fold.test) for fold in stratified_folds(cohort, num_folds, seed)]
    kind = KFold if regression else StratifiedKFold
    dealt = kind(num_folds, shuffle=True, random_state=seed).split(windows.values, targets)
    at_random = [np.isin(np.arange(len(targets)), test) for _, test in dealt]
    means = []
    for tests in (at_random, by_animal):
        told = [test for test in tests if np.ptp(targets[test])]  # animals of one fold may all have the same number
        means.append(np.mean([_score_of_windows(windows.values, targets, subjects, test, learner) for test in told]))
    return SplitOptimism(*map(float, means), len(targets), num_folds)


def _score_of_windows(
    values: np.ndarray, targets: np.ndarray, subjects: np.ndarray, test: np.ndarray, learner: Learner
) -> float:
    """Fit to some windows, score the others, `test` (n,), and ask whether those are in the right order."""
    scores = learner(values[~test], targets[~test], _weights(subjects[~test]))(values[test])
    return auc_within_folds([np.arange(test.sum())], [scores], targets[test])


def identity_decoding(
    windows: WindowFeatures, cohort: Cohort, learner: Learner, window_length: int, *, seed: int = 0
) -> list[Identified]:
    """How well a learner tells the animals of one group apart: how large the signature is that each animal has.

    Fitted to every second recording of each animal and tested on the others, then the other way round. An animal with
    one recording gives the beginning of it and the end, no two windows of which share a frame; what does not change
    within a session is then counted as the animal's. At most 4,000 windows, a like number of each recording.

    Args:
        windows: Their recordings must be of the cohort.
        cohort: The animals and their targets.
        learner: Of classes.
        window_length: Frames of a window.
        seed: Of the sample.

    Returns:
        One for each group, the classes in their order.

    Raises:
        ValueError: If a recording is not of the cohort.
    """
    windows = _sampled(windows, seed)
    subjects = _subjects_of(windows, cohort)
    sides = _sides(windows, subjects, window_length)
    found = []
    for name, members in cohort.groups.items():
        told = [s for s in np.flatnonzero(members) if {0, 1} <= set(sides[subjects == s])]
        several = all(len(np.unique(windows.recording[subjects == s])) > 1 for s in told)
        rows = np.isin(subjects, told) & (sides >= 0)
        accuracy = _balanced_accuracy(
            windows.values[rows], np.searchsorted(told, subjects[rows]), sides[rows], learner
        )
        found.append(Identified(name, len(told), accuracy, 1 / max(len(told), 1), RECORDINGS if several else HALVES))
    return found


def _balanced_accuracy(values: np.ndarray, animals: np.ndarray, sides: np.ndarray, learner: Learner) -> float:
    """Of telling animals (n,), counted from 0, on one side by the other, averaged over both ways round."""
    if len(np.unique(animals)) < 2:
        return float("nan")
    accuracies = []
    for test in (sides == 0, sides == 1):
        logits = learner(values[~test], animals[~test], _weights(animals[~test]))(values[test])
        accuracies.append(balanced_accuracy_score(animals[test], logits.argmax(axis=1)))
    return float(np.mean(accuracies))


def _sides(windows: WindowFeatures, subjects: np.ndarray, window_length: int) -> np.ndarray:
    """0 or 1 for what is learnt from or tested on, -1 between: every second recording, or the two ends of one."""
    sides = np.full(len(subjects), -1)
    for subject in np.unique(subjects):
        rows = subjects == subject
        recordings, places = np.unique(windows.recording[rows], return_inverse=True)
        if len(recordings) > 1:
            sides[rows] = places % 2
            continue
        start = windows.start_frame[rows]
        from_middle = start - (start.min() + start.max()) / 2
        sides[rows] = np.where(np.abs(from_middle) < window_length / 2, -1, from_middle > 0)
    return sides


def _sampled(windows: WindowFeatures, seed: int) -> WindowFeatures:
    """At most `MOST_WINDOWS`, a like number of each recording."""
    most = max(1, MOST_WINDOWS // len(windows.recording_ids))
    shuffled = np.random.default_rng(seed).permutation(len(windows.recording))
    of_recordings = (shuffled[windows.recording[shuffled] == place] for place in range(len(windows.recording_ids)))
    rows = np.sort(np.concatenate([of_one[:most] for of_one in of_recordings]))
    kept = {name: getattr(windows, name)[rows] for name in ("values", "recording", "start_frame")}
    return replace(windows, **kept)


def _subjects_of(windows: WindowFeatures, cohort: Cohort) -> np.ndarray:
    """The animal of each window, as a place in `Cohort.subjects`."""
    places = dict(zip(cohort.recording_ids, cohort.recording_subjects.tolist(), strict=True))
    unknown = [name for name in windows.recording_ids if name not in places]
    if unknown:
        raise ValueError(f"expected windows of the cohort's recordings, got some of {some(unknown)}")
    return np.array([places[name] for name in windows.recording_ids])[windows.recording]


def _weights(subjects: np.ndarray) -> np.ndarray:
    """Alike for each animal, and 1 on average: to who takes windows for units, penalties are as small as that."""
    weights = subject_weights(subjects)
    return weights / weights.mean()
