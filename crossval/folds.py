"""Folds of animals: who is held out together. No animal ever stands on both sides.

Symbols: S subjects.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import KFold, StratifiedKFold

from .cohort import REGRESSION, Cohort

LEAVE_ONE_OUT, LEAVE_PAIR_OUT, STRATIFIED = "leave-one-out", "leave-pair-out", "stratified"
USUAL_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Fold:
    """Places of animals in `Cohort.subjects`.

    Args:
        train: int, sorted.
        test: int, sorted.
    """

    train: np.ndarray
    test: np.ndarray


def leave_one_out(cohort: Cohort) -> list[Fold]:
    """One fold for each animal."""
    return [_fold(cohort, [subject]) for subject in range(len(cohort.subjects))]


def leave_pair_out(cohort: Cohort) -> list[Fold]:
    """One fold for each pair of animals of two classes, for an AUC without the bias of leave-one-out.

    Airola et al. 2011, 10.1016/j.csda.2010.11.018.

    Raises:
        ValueError: If the target is continuous, or there are not two classes.
    """
    if len(cohort.class_names) != 2:
        raise ValueError(f"expected two classes for leave-pair-out, got {len(cohort.class_names) or 'a number'}")
    sides = (np.flatnonzero(cohort.targets == k).tolist() for k in (0, 1))
    return [_fold(cohort, pair) for pair in itertools.product(*sides)]


def usual_folds(cohort: Cohort) -> int:
    """How many stratified folds to make: five, or as many as leave two animals to compare in each."""
    regression = cohort.problem_type == REGRESSION
    return min(USUAL_FOLDS, len(cohort.subjects) // 2 if regression else int(np.bincount(cohort.targets).min()))


def stratified_folds(cohort: Cohort, folds: int, seed: int) -> list[Fold]:
    """Folds with about the same share of each class; of a continuous target, with any animals.

    Args:
        cohort: The animals.
        folds: How many; with at most as many as the rarest class has animals, every fold holds all classes.
        seed: Of the draw.

    Raises:
        ValueError: If there are fewer animals in a class than folds, or fewer than two folds.
    """
    rarest = len(cohort.subjects) if cohort.problem_type == REGRESSION else int(np.bincount(cohort.targets).min())
    if not 2 <= folds <= rarest:
        raise ValueError(f"expected from 2 to {rarest} folds, as many as the rarest class has subjects, got {folds}")
    kind = KFold if cohort.problem_type == REGRESSION else StratifiedKFold
    splits = kind(folds, shuffle=True, random_state=seed).split(np.zeros(len(cohort.subjects)), cohort.targets)
    return [_fold(cohort, test) for _, test in splits]


def _fold(cohort: Cohort, test) -> Fold:
    test = np.sort(np.asarray(test))
    return Fold(np.setdiff1d(np.arange(len(cohort.subjects)), test), test)
