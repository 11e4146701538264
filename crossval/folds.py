"""Folds of animals: who is held out together. No animal ever stands on both sides.

Symbols: S subjects.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold

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
    """How many stratified folds to make: five, or as many as hold animals to compare."""
    return min(USUAL_FOLDS, _most_folds(cohort))


def stratified_folds(cohort: Cohort, folds: int, seed: int) -> list[Fold]:
    """Folds with about the same share of each class; of a continuous target, of small and large numbers.

    Every class is then in every fold; of numbers that are not all alike some fold holds different ones, however many
    are tied and however a permutation test deals them out.

    Args:
        cohort: The animals.
        folds: How many, at most as many as the rarest class has animals; of a continuous target half as many as there
            are animals.
        seed: Of the draw.

    Raises:
        ValueError: If there are more folds than that, or fewer than two.
    """
    most, regression = _most_folds(cohort), cohort.problem_type == REGRESSION
    if not 2 <= folds <= most:
        why = "half as many as there are subjects" if regression else "as many as the rarest class has subjects"
        raise ValueError(f"expected from 2 to {most} folds, {why}, got {folds}")
    strata = cohort.targets
    if regression:
        # As many animals of neighbouring ranks as there are folds, one for each; the last stratum takes the rest.
        ranks = np.argsort(np.argsort(strata, kind="stable"))
        strata = np.minimum(ranks // folds, len(ranks) // folds - 1)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(strata)), strata)
    return [_fold(cohort, test) for _, test in splits]


def _most_folds(cohort: Cohort) -> int:
    """As many as leave animals to compare in each."""
    regression = cohort.problem_type == REGRESSION
    return len(cohort.subjects) // 2 if regression else int(np.bincount(cohort.targets).min())


def _fold(cohort: Cohort, test) -> Fold:
    test = np.sort(np.asarray(test))
    return Fold(np.setdiff1d(np.arange(len(cohort.subjects)), test), test)
