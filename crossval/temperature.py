"""Temperature scaling: one number that makes probabilities as sure as they should be, and changes no decision."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

# Scores that separate the classes of a few subjects would be called ever surer, those that are wrong ever less sure.
LOWEST, HIGHEST = 0.1, 10.0


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature by which to divide the logits of others (Guo et al. 2017, arXiv:1706.04599).

    It minimises the mean log loss of softmax(logits / temperature), which has one minimum, between 0.1 and 10. It is
    close to 0.1 where no subject is wrong, and close to 10 where scores are no better than chance.

    Args:
        logits: Log-odds of class 1 (n,), or logits or log-probabilities (n, K), of subjects or recordings that were
            not trained on, nor are to be scored: those held out in folds of the training subjects.
        labels: (n,), class ids from 0.

    Raises:
        ValueError: If there is nothing to fit to or a logit is not finite.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim == 1:
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    if not len(logits) or not np.isfinite(logits).all():
        raise ValueError(f"expected finite logits of at least one subject, got {len(logits)} with some that are not")
    rows = np.arange(len(logits))

    def log_loss(log_temperature):
        return -log_softmax(logits * np.exp(-log_temperature), axis=1)[rows, labels].mean()

    # The loss is convex in 1 / temperature, so that it has one minimum in the logarithm too.
    fitted = minimize_scalar(log_loss, bounds=np.log([LOWEST, HIGHEST]), method="bounded")
    return float(np.exp(fitted.x))
