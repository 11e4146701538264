"""Confidence intervals: what would other subjects, drawn as these were, have given?

Symbols: S subjects.
"""

from collections.abc import Callable

import numpy as np

# The share of studies whose interval should hold the truth.
CONFIDENCE = 0.95


def bootstrap_over_subjects(
    statistic: Callable[[np.ndarray], np.ndarray],
    targets: np.ndarray,
    *,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of 95 % over subjects drawn anew with replacement (Efron & Tibshirani 1993, chapter 13).

    Subjects of a class are drawn among themselves, as many as there are, so that no sample lacks a class; with a
    continuous target they are drawn among all. Samples for which the statistic is NaN (no two subjects to compare in
    one fold, say) are left out.

    The scores of the subjects are taken as they are: how they would differ with other training subjects is not in the
    interval. Where every subject is right, every sample of them is too, and the interval has no width: that says that
    the subjects are few, not that the score is certain.

    With few subjects such an interval is too short. Simulated, of normal scores with a true AUC of 0.76, those of 95 %
    held it in 93 % of the studies with ten subjects in each class, and in 86 % of those with five.

    Not `scipy.stats.bootstrap`: what it draws would have to be turned into counts before pairs of subjects can be
    scored in a few matrix products, and its better interval, BCa, is not defined where every subject is right.

    Args:
        statistic: From (n, S), how often each subject is in each sample, to (n,).
        targets: (S,), integer class ids, or floating numbers.
        samples: How many samples.
        seed: Of the draw.

    Returns:
        Lower and upper end.

    Raises:
        ValueError: If the statistic is not defined for any sample.
    """
    values = statistic(resampled(np.asarray(targets), samples, np.random.default_rng(seed)))
    values = values[~np.isnan(values)]
    if not len(values):
        raise ValueError("expected a statistic that is defined for some sample of the subjects, got only NaN")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def resampled(targets: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each subject is in each sample, (n, S)."""
    groups = targets if targets.dtype.kind in "iu" else np.zeros(len(targets), int)
    counts = np.zeros((samples, len(targets)))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        counts[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=samples)
    return counts
