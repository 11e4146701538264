"""One learner on one table of features, animals held out in turn: scores, interval and p-value.

    found = cross_validate(Predictor("probe", features, logistic), cohort, scheme)
    print(found.score, found.interval, found.test.p_value)

Symbols: R recordings, S subjects, K classes, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .cohort import REGRESSION, Cohort
from .folds import (
    LEAVE_ONE_OUT,
    LEAVE_PAIR_OUT,
    STRATIFIED,
    Fold,
    leave_one_out,
    leave_pair_out,
    stratified_folds,
    usual_folds,
)
from .intervals import bootstrap_over_subjects
from .learners import FoldScores, Learner, fit_recordings, out_of_fold_scores, subject_scores
from .permutations import PermutationTest, permutation_test
from .ranking import pairs_within_folds
from .temperature import fit_temperature

BALANCED_ACCURACY = "balanced accuracy"


@dataclass(frozen=True)
class Scheme:
    """How animals are held out.

    Args:
        name: "leave-pair-out", "leave-one-out", or "stratified".
        folds: How many, if stratified.
        seed: Of the draw of stratified folds.
    """

    name: str
    folds: int = 0
    seed: int = 0

    def __str__(self) -> str:
        return self.name if not self.folds else f"{self.folds} stratified folds, seed {self.seed}"

    def make(self, cohort: Cohort) -> list[Fold]:
        """The folds of a cohort, for the labels that it has.

        Raises:
            ValueError: If they cannot be made, or single held-out numbers would have to be ranked.
        """
        if not self.ranks and cohort.problem_type == REGRESSION:
            raise ValueError("expected folds of several subjects for a number, got leave-one-out; pass --folds 5")
        if self.name == LEAVE_PAIR_OUT:
            return leave_pair_out(cohort)
        if self.name == LEAVE_ONE_OUT:
            return leave_one_out(cohort)
        return stratified_folds(cohort, self.folds, self.seed)

    @property
    def ranks(self) -> bool:
        """Whether two animals stand in one test fold, so that their scores may be compared."""
        return self.name != LEAVE_ONE_OUT


@dataclass(frozen=True, eq=False)
class Predictor:
    """What is fitted to what; anything else with a name and `score_folds` can stand in its place.

    Args:
        name: For people.
        features: (R, F), a row for each recording of the cohort.
        learner: As in `learners`.
    """

    name: str
    features: np.ndarray
    learner: Learner

    def score_folds(self, cohort: Cohort, folds: Sequence[Fold]) -> list[FoldScores]:
        """Scores of the recordings of each fold's test animals."""
        return out_of_fold_scores(cohort, folds, self.features, self.learner)


@dataclass(frozen=True, eq=False)
class WindowPredictor(Predictor):
    """One whose features of a recording are the means over its windows, so that single windows can be scored too.

    Args:
        values: (n, F), features of windows.
        recording: int (n,), the place of each window's recording in the cohort.
    """

    values: np.ndarray
    recording: np.ndarray

    def window_logits(self, cohort: Cohort, scheme: Scheme) -> np.ndarray:
        """Logits of single windows of held-out animals, of what was fitted to the recordings of others.

        Returns:
            (n, K) relative to class 0, or predicted numbers (n,): means over the folds that held each window out.
        """
        found = []
        for fold in scheme.make(cohort):
            fitted = fit_recordings(cohort, fold, self.features, self.learner)
            rows = np.flatnonzero(np.isin(self.recording, cohort.rows_of(fold.test)))
            found.append(FoldScores(fold, rows, fitted(self.values[rows])))
        return mean_over_folds(found, len(self.values))

    def calibrated(self, cohort: Cohort, scheme: Scheme) -> np.ndarray:
        """Logits of recordings (R, K), divided by the temperature that fits the training animals of each fold.

        The temperature is fitted to scores of training animals that were themselves held out, as `default_scheme`
        does: of pooled leave-one-out it would be too high, for scores are biased there. It is 1 where a class has a
        single training animal.
        """
        cooled = []
        for each in self.score_folds(cohort, scheme.make(cohort)):
            train, rows = cohort.only(each.fold.train), cohort.rows_of(each.fold.train)
            inner = Predictor(self.name, self.features[rows], self.learner)
            cooled.append(FoldScores(each.fold, each.rows, each.scores / _temperature(inner, train)))
        return mean_over_folds(cooled, len(cohort.recording_ids))


@dataclass(frozen=True, eq=False)
class Held:
    """What a predictor says of animals that it was not fitted to.

    Args:
        recordings: (R, K) logits relative to class 0, or (R,) numbers: means over the folds that held each out.
        subjects: (S, K) or (S,), means over an animal's recordings.
        statistic: From how often each subject counts (n, S) to the score (n,), as `bootstrap_over_subjects` asks.
        score: Of the subjects; see `score_name`.
        interval: 95 % bootstrap interval of the score over subjects.
        test: Its place among scores with permuted labels; None if none were tried.
    """

    recordings: np.ndarray
    subjects: np.ndarray
    statistic: Callable[[np.ndarray], np.ndarray]
    score: float
    interval: tuple[float, float]
    test: PermutationTest | None


def parse_scheme(words: str, seed: int = 0) -> Scheme:
    """A scheme from "leave-pair-out", "leave-one-out" or a number of stratified folds.

    Raises:
        ValueError: If it is none of these.
    """
    if words in (LEAVE_PAIR_OUT, LEAVE_ONE_OUT):
        return Scheme(words)
    if not words.isdecimal():
        raise ValueError(f"expected folds as {LEAVE_PAIR_OUT}, {LEAVE_ONE_OUT} or a number, got {words!r}")
    return Scheme(STRATIFIED, int(words), seed)


def default_scheme(cohort: Cohort, seed: int = 0, *, few: bool = False) -> Scheme:
    """Leave-pair-out for two classes; else stratified folds, five where the rarest class has as many animals.

    Args:
        cohort: The animals.
        seed: Of the draw of stratified folds.
        few: Whether a fold costs so much that two classes are held out in stratified folds too.
    """
    if len(cohort.class_names) == 2 and not few:
        return Scheme(LEAVE_PAIR_OUT)
    return Scheme(STRATIFIED, usual_folds(cohort), seed)


def score_name(cohort: Cohort, scheme: Scheme) -> str:
    """What the score of a cohort is.

    Without an effect the expected AUC and concordance are 0.5, but the balanced accuracy of leave-one-out is far below
    1 / K, for the class of the animal that is left out is the rarer one in training: of two classes of ten animals
    each and 64 features of noise, 0.30, of six animals each 0.15 (means over 150 simulated studies).
    """
    if not scheme.ranks:
        return BALANCED_ACCURACY
    return "concordance index" if cohort.problem_type == REGRESSION else "ROC-AUC"


def cross_validate(
    predictor: Predictor,
    cohort: Cohort,
    scheme: Scheme,
    *,
    permutations: int = 1000,
    seed: int = 0,
    progress: Callable = iter,
) -> Held:
    """Hold animals out in turn, and ask how good the scores of the held-out animals are.

    Args:
        predictor: What is fitted.
        cohort: The animals and their targets.
        scheme: How they are held out.
        permutations: Most labellings to try for the p-value, each of which makes folds and fits anew; 0 for none.
        seed: Of permutations and bootstrap.
        progress: Goes over the labellings, as `tqdm` does.

    Raises:
        ValueError: As the folds, the learner and the statistics do.
    """
    found = predictor.score_folds(cohort, scheme.make(cohort))
    test = None
    if permutations:
        test = permutation_test(
            lambda targets: _score(predictor, cohort.with_targets(targets), scheme),
            cohort.targets,
            cohort.strata,
            most=permutations,
            seed=seed,
            progress=progress,
        )
    statistic = _statistic(cohort, scheme, found)
    return Held(
        recordings=mean_over_folds(found, len(cohort.recording_ids)),
        subjects=mean_over_folds(_of_subjects(cohort, found), len(cohort.subjects)),
        statistic=statistic,
        score=float(statistic(np.ones((1, len(cohort.subjects))))[0]),
        interval=bootstrap_over_subjects(statistic, cohort.targets, seed=seed),
        test=test,
    )


def difference(first: Held, second: Held, cohort: Cohort, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """How much better the first is than the second on the same animals and folds, and the 95 % interval of that."""
    interval = bootstrap_over_subjects(
        lambda counts: first.statistic(counts) - second.statistic(counts), cohort.targets, seed=seed
    )
    return first.score - second.score, interval


def _score(predictor: Predictor, cohort: Cohort, scheme: Scheme) -> float:
    statistic = _statistic(cohort, scheme, predictor.score_folds(cohort, scheme.make(cohort)))
    return float(statistic(np.ones((1, len(cohort.subjects))))[0])


def _statistic(cohort: Cohort, scheme: Scheme, found: Sequence[FoldScores]) -> Callable[[np.ndarray], np.ndarray]:
    """From how often each subject counts (n, S) to the score (n,)."""
    scores = [subject_scores(cohort, each) for each in found]
    tests = [each.fold.test for each in found]
    if scheme.ranks:
        return pairs_within_folds(tests, scores, cohort.targets).share
    # Scores of leave-one-out are of different models and may not be ranked; decisions may be counted.
    right = np.empty(len(cohort.subjects))
    for test, score in zip(tests, scores, strict=True):
        right[test] = score.argmax(axis=1) == cohort.targets[test]
    members = cohort.targets == np.arange(len(cohort.class_names))[:, None]
    return lambda counts: np.mean([counts @ (right * own) / (counts @ own) for own in members], axis=0)


def _of_subjects(cohort: Cohort, found: Sequence[FoldScores]) -> list[FoldScores]:
    """The same with subjects in place of recordings."""
    return [FoldScores(each.fold, each.fold.test, subject_scores(cohort, each)) for each in found]


def _temperature(predictor: Predictor, cohort: Cohort) -> float:
    if np.bincount(cohort.targets).min() < 2:
        return 1.0
    found = predictor.score_folds(cohort, default_scheme(cohort).make(cohort))
    logits = mean_over_folds(_of_subjects(cohort, found), len(cohort.subjects))
    return fit_temperature(logits, cohort.targets)


def mean_over_folds(found: Sequence[FoldScores], total: int) -> np.ndarray:
    """Each row's mean over the folds that held it out; rows of anything, `total` of them."""
    sums, times = np.zeros((total, *found[0].scores.shape[1:])), np.zeros(total)
    for each in found:
        sums[each.rows] += each.scores
        times[each.rows] += 1
    return sums / times.reshape(-1, *[1] * (sums.ndim - 1))
