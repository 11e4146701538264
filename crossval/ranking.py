"""Do scores put subjects in the right order? Asked only of subjects that stood in one test fold.

    tests = [fold.test for fold in folds]
    auc = auc_within_folds(tests, scores, cohort.targets)
    pairs = pairs_within_folds(tests, scores, cohort.targets)
    interval = bootstrap_over_subjects(pairs.share, cohort.targets)

Scores of different folds come from different models: pooled over leave-one-out folds they are biased far below 0.5
where there is nothing to find, because the class of the subject that is left out is the rarer one in training. Within
a fold one model scored all (Airola et al. 2011, 10.1016/j.csda.2010.11.018).

Symbols: S subjects, K classes, G comparisons: 1, or the K (K - 1) ordered pairs of more than two classes.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax


@dataclass(frozen=True, eq=False)
class PairsWithinFolds:
    """Pairs of subjects whose targets differ, and how often scores put them in that order.

    Args:
        right: (G, S, S), how often the row's subject, whose target is the larger, had the larger score than the
            column's; a tie counts half.
        compared: (G, S, S), how often the two were in one fold.
    """

    right: np.ndarray
    compared: np.ndarray

    def share(self, counts: np.ndarray) -> np.ndarray:
        """The share of pairs in the right order, averaged over the G comparisons.

        Of two classes this is the ROC-AUC, of a continuous target the concordance index, of more classes Hand & Till's
        M (2001, 10.1023/A:1010920819831); each over pairs within folds.

        Args:
            counts: (n, S), how often each subject counts, as `bootstrap_over_subjects` draws them.

        Returns:
            (n,), NaN where a comparison has no pair.
        """
        right, compared = (((counts @ pairs) * counts).sum(axis=-1) for pairs in (self.right, self.compared))
        with np.errstate(invalid="ignore"):
            return (right / compared).mean(axis=0)


def auc_within_folds(tests: Sequence[np.ndarray], scores: Sequence[np.ndarray], targets: np.ndarray) -> float:
    """The share of pairs in the right order, each subject counting once; all else as `pairs_within_folds`."""
    return float(pairs_within_folds(tests, scores, targets).share(np.ones((1, len(targets))))[0])


def pairs_within_folds(
    tests: Sequence[np.ndarray], scores: Sequence[np.ndarray], targets: np.ndarray
) -> PairsWithinFolds:
    """Compare the subjects of each fold.

    Of two classes, or of a continuous target, each pair of subjects with different targets is compared once, by one
    score. Of more than two, the subjects of classes k and l are compared twice, by their score of class k and of l.

    Args:
        tests: For each fold the places (n,) in `targets` of its test subjects; they may come again in other folds.
        scores: For each fold (n,), which grows with the target: log-odds of class 1, a predicted number; or (n, K)
            logits or log-probabilities of the classes. The same in each fold.
        targets: (S,), class ids from 0 or numbers.

    Raises:
        ValueError: If scores do not fit the folds or are not finite, or no fold holds two subjects to compare.
    """
    targets, scores = np.asarray(targets), [_columns(score) for score in scores]
    own, larger = _comparisons(targets, scores[0].shape[1])
    right, compared = np.zeros((2, *larger.shape))
    for test, score in zip(map(np.asarray, tests), scores, strict=True):
        if len(test) != len(score):
            raise ValueError(f"expected a score for each test subject of a fold, got {len(score)} for {len(test)}")
        values = score[:, own].T
        pairs = (slice(None), test[:, None], test)
        right[pairs] += larger[pairs] * (1 + np.sign(values[:, :, None] - values[:, None, :])) / 2
        compared[pairs] += larger[pairs]
    if not compared.any(axis=(1, 2)).all():
        raise ValueError(
            "expected for any two classes a fold that holds subjects of both, got none; use stratified folds or "
            "leave-pair-out"
        )
    return PairsWithinFolds(right, compared)


def _columns(scores) -> np.ndarray:
    """(n, 1), or (n, K) for more than two classes."""
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got {np.sum(~np.isfinite(scores))} that are not")
    if scores.ndim == 1 or scores.shape[1] == 1:
        return scores.reshape(-1, 1)
    return scores[:, 1:] - scores[:, :1] if scores.shape[1] == 2 else log_softmax(scores, axis=1)


def _comparisons(targets: np.ndarray, columns: int) -> tuple[list[int], np.ndarray]:
    """Which column of scores each comparison reads (G,), and of which pairs the row's should be larger (G, S, S)."""
    if columns == 1:
        return [0], (targets[:, None] > targets)[None]
    classes = list(itertools.permutations(range(columns), 2))
    larger = [(targets[:, None] == own) & (targets == other) for own, other in classes]
    return [own for own, _ in classes], np.stack(larger)
